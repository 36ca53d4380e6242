// One model and one context of libllama: tokens in, logits out, and the account of what the KV cache holds.
#ifndef RKVISOR_LLAMA_ENGINE_HPP
#define RKVISOR_LLAMA_ENGINE_HPP

#include <atomic>
#include <functional>
#include <string>
#include <vector>

#include "llama-cpp.h"
#include "settings.hpp"

namespace rkvisor {

// Tokens, embeddings [size × embedding_size], or both: then the embeddings are evaluated and the tokens remembered.
struct Slice {
    const llama_token *tokens = nullptr;
    const float *embeddings = nullptr;
    size_t size = 0;
};

enum class Outputs { last_logits, all_logits, all_hidden };

class Engine {
public:
    // Loads the model.  Throws Refused.
    explicit Engine(const Settings &settings);

    // `at_start`: the text opens the context, so the model's own BOS goes first.
    std::vector<llama_token> tokenize(const std::string &text, bool at_start) const;
    // Puts the model's BOS before tokens that open the context, where the model wants one and they lack it.
    void open_context(std::vector<llama_token> &tokens) const;
    // The bytes of a token, not always whole characters.  Control tokens have none unless `with_special`.
    std::string piece(llama_token token, bool with_special) const;
    bool is_end(llama_token token) const { return llama_vocab_is_eog(vocab_, token); }
    const std::vector<llama_token> &end_tokens() const { return end_tokens_; }
    const llama_vocab *vocab() const { return vocab_; }
    llama_model *model() const { return model_.get(); }
    llama_context *context() const { return context_.get(); }
    int32_t vocabulary_size() const { return vocabulary_size_; }
    int32_t embedding_size() const { return embedding_size_; }

    using Sink = std::function<void(const float *rows, size_t n_rows)>;
    // Appends to the KV cache in batches of a fixed size, so the same input is always computed the same way.
    // `sink` receives the rows of each batch for all_logits and all_hidden.
    // False when aborted: the batches before stay.  Throws Refused when the engine fails.
    bool evaluate(Slice slice, Outputs outputs = Outputs::last_logits, const Sink &sink = nullptr);

    // What the KV cache holds, in order; -1 for an embedding that came without a token.
    const std::vector<llama_token> &cached() const { return cached_; }
    // The same size, readable from any thread.
    int32_t cached_size() const { return cached_size_.load(); }
    void clear();
    void truncate(size_t size);
    // Takes [begin, end) out and moves what follows up.
    void erase(size_t begin, size_t end);

    // The cache's content as bytes, and back (replaces what is there).  Throws Refused.
    std::vector<uint8_t> save_state() const;
    void restore_state(const std::vector<uint8_t> &state, const std::vector<llama_token> &tokens);

    void request_abort() { is_aborted_ = true; }
    void forget_abort() { is_aborted_ = false; }
    bool is_aborted() const { return is_aborted_.load(); }

private:
    int32_t decode(Slice slice, std::vector<int8_t> &wanted);
    void set_cached_size() { cached_size_ = static_cast<int32_t>(cached_.size()); }

    llama_model_ptr model_;
    llama_context_ptr context_;
    const llama_vocab *vocab_ = nullptr;
    int32_t vocabulary_size_ = 0;
    int32_t embedding_size_ = 0;
    std::vector<llama_token> end_tokens_;
    std::vector<llama_token> cached_;
    std::atomic<int32_t> cached_size_{0};
    std::atomic<bool> is_aborted_{false};
    bool has_foreign_values_ = false;  // a caller's embeddings went through the cache
};

}  // namespace rkvisor

#endif
