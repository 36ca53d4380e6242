#include "engine.hpp"

#include <algorithm>
#include <cstring>

#include "log.hpp"

#ifndef RKVISOR_ENGINE_BUILD
#error "build with python -m rkvisor.cython_ext.build_llama, which defines RKVISOR_ENGINE_BUILD"
#endif

namespace rkvisor {
namespace {

// Tokens computed at once.  Fixed, because the batch a token is computed in shows in the last bits of its logits and
// so, now and then, in the text.  Small, because memory for intermediate results grows with it.
constexpr uint32_t kBatch = 128;

bool is_abort_requested(void *engine) { return static_cast<const Engine *>(engine)->is_aborted(); }

llama_model_ptr load_model(const Settings &settings) {
    // Structs go by value through llama.h: another libllama than the one compiled against would corrupt memory.
    if (std::strcmp(llama_version(), RKVISOR_ENGINE_BUILD) != 0) {
        refuse(
            "cannot use libllama %s: this runtime was built against %s; run python -m rkvisor.cython_ext.build_llama",
            llama_version(), RKVISOR_ENGINE_BUILD);
    }
    llama_model_params params = llama_model_default_params();
    params.n_gpu_layers = 0;
    params.load_mode = LLAMA_LOAD_MODE_MMAP;
    llama_model_ptr model(llama_model_load_from_file(settings.model_path.c_str(), params));
    if (!model) refuse("cannot load model file %s", settings.model_path.c_str());
    if (!llama_model_has_decoder(model.get()) || llama_model_has_encoder(model.get())) {
        refuse("cannot use model file %s: only decoder models can generate", settings.model_path.c_str());
    }
    const int32_t most = llama_model_n_ctx_train(model.get());
    if (settings.context > most) {
        refuse("max_context[%d] must be less than or equal to the model's %d", settings.context, most);
    }
    return model;
}

llama_context_ptr make_context(llama_model *model, const Settings &settings, Engine *engine) {
    llama_context_params params = llama_context_default_params();
    params.n_ctx = static_cast<uint32_t>(settings.context);
    params.n_batch = kBatch;
    params.n_ubatch = kBatch;
    params.n_seq_max = 1;
    params.n_threads = settings.threads;
    params.n_threads_batch = settings.threads;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    params.abort_callback = is_abort_requested;
    params.abort_callback_data = engine;
    params.no_perf = true;
    params.offload_kqv = false;
    params.op_offload = false;
    llama_context_ptr context(llama_init_from_model(model, params));
    if (!context) refuse("cannot allocate a context of %d tokens", settings.context);
    return context;
}

}  // namespace

Engine::Engine(const Settings &settings)
    : model_(load_model(settings)), context_(make_context(model_.get(), settings, this)) {
    vocab_ = llama_model_get_vocab(model_.get());
    vocabulary_size_ = llama_vocab_n_tokens(vocab_);
    embedding_size_ = llama_model_n_embd(model_.get());
    for (llama_token token = 0; token < vocabulary_size_; ++token) {
        if (is_end(token)) end_tokens_.push_back(token);
    }
    cached_.reserve(static_cast<size_t>(settings.context));
}

std::vector<llama_token> Engine::tokenize(const std::string &text, bool at_start) const {
    const auto length = static_cast<int32_t>(text.size());
    std::vector<llama_token> tokens(text.size() + 2);
    int32_t count =
        llama_tokenize(vocab_, text.data(), length, tokens.data(), static_cast<int32_t>(tokens.size()), at_start, true);
    if (count < 0 && count != INT32_MIN) {
        tokens.resize(static_cast<size_t>(-count));
        count = llama_tokenize(vocab_, text.data(), length, tokens.data(), -count, at_start, true);
    }
    if (count < 0) refuse("the prompt cannot be tokenized: %zu bytes", text.size());
    tokens.resize(static_cast<size_t>(count));
    // A template may write the BOS that the vocabulary adds as well.
    const llama_token bos = llama_vocab_bos(vocab_);
    if (tokens.size() >= 2 && bos != LLAMA_TOKEN_NULL && tokens[0] == bos && tokens[1] == bos)
        tokens.erase(tokens.begin());
    return tokens;
}

void Engine::open_context(std::vector<llama_token> &tokens) const {
    const llama_token bos = llama_vocab_bos(vocab_);
    if (!llama_vocab_get_add_bos(vocab_) || bos == LLAMA_TOKEN_NULL) return;
    if (tokens.empty() || tokens.front() != bos) tokens.insert(tokens.begin(), bos);
}

std::string Engine::piece(llama_token token, bool with_special) const {
    std::string bytes(64, '\0');
    int32_t size =
        llama_token_to_piece(vocab_, token, bytes.data(), static_cast<int32_t>(bytes.size()), 0, with_special);
    if (size < 0) {
        bytes.resize(static_cast<size_t>(-size));
        size = llama_token_to_piece(vocab_, token, bytes.data(), -size, 0, with_special);
    }
    bytes.resize(static_cast<size_t>(std::max(size, 0)));
    return bytes;
}

int32_t Engine::decode(Slice slice, std::vector<int8_t> &wanted) {
    llama_batch batch{};
    batch.n_tokens = static_cast<int32_t>(slice.size);
    // libllama only reads what the batch points to.
    if (slice.embeddings != nullptr) {
        batch.embd = const_cast<float *>(slice.embeddings);
        has_foreign_values_ = true;
    } else {
        batch.token = const_cast<llama_token *>(slice.tokens);
    }
    batch.logits = wanted.data();
    return llama_decode(context_.get(), batch);
}

bool Engine::evaluate(Slice slice, Outputs outputs, const Sink &sink) {
    const QuietEngine quiet(is_aborted_);
    llama_set_embeddings(context_.get(), outputs == Outputs::all_hidden);
    const bool wants_all = outputs != Outputs::last_logits;
    std::vector<int8_t> wanted;
    for (size_t at = 0; at < slice.size;) {
        if (is_aborted()) return false;
        const size_t count = std::min<size_t>(kBatch, slice.size - at);
        wanted.assign(count, wants_all ? 1 : 0);
        wanted.back() = 1;
        const Slice part{
            slice.tokens != nullptr ? slice.tokens + at : nullptr,
            slice.embeddings != nullptr ? slice.embeddings + at * static_cast<size_t>(embedding_size_) : nullptr,
            count};
        const int32_t status = decode(part, wanted);
        if (status != 0) {
            truncate(cached_.size());  // what the failed batch left behind
            if (status == 2 || is_aborted()) return false;
            if (status == 1) refuse("the context is not enough!");
            refuse("the engine failed with status %d", status);
        }
        if (part.tokens != nullptr) {
            cached_.insert(cached_.end(), part.tokens, part.tokens + count);
        } else {
            cached_.insert(cached_.end(), count, LLAMA_TOKEN_NULL);
        }
        set_cached_size();
        if (sink)
            sink(outputs == Outputs::all_hidden ? llama_get_embeddings(context_.get())
                                                : llama_get_logits(context_.get()),
                 count);
        at += count;
    }
    return true;
}

void Engine::clear() {
    // The values of unused cells are multiplied by zero, which is no protection against NaN: wipe what a caller
    // brought.
    llama_memory_clear(llama_get_memory(context_.get()), has_foreign_values_);
    has_foreign_values_ = false;
    cached_.clear();
    set_cached_size();
}

void Engine::truncate(size_t size) {
    if (size == 0) {
        clear();
        return;
    }
    if (!llama_memory_seq_rm(llama_get_memory(context_.get()), 0, static_cast<llama_pos>(size), -1)) {
        clear();
        refuse("this model's cache cannot be shortened: it was cleared");
    }
    cached_.resize(std::min(size, cached_.size()));
    set_cached_size();
}

void Engine::erase(size_t begin, size_t end) {
    llama_memory_t memory = llama_get_memory(context_.get());
    if (end < cached_.size() && !llama_memory_can_shift(memory))
        refuse("this model's cache cannot be cleared in the middle");
    const auto first = static_cast<llama_pos>(begin);
    const auto last = static_cast<llama_pos>(end);
    if (!llama_memory_seq_rm(memory, 0, first, last)) refuse("this model's cache cannot be cleared in parts");
    llama_memory_seq_add(memory, 0, last, -1, first - last);
    cached_.erase(cached_.begin() + first, cached_.begin() + last);
    set_cached_size();
}

std::vector<uint8_t> Engine::save_state() const {
    std::vector<uint8_t> state(llama_state_seq_get_size(context_.get(), 0));
    state.resize(llama_state_seq_get_data(context_.get(), state.data(), state.size(), 0));
    return state;
}

void Engine::restore_state(const std::vector<uint8_t> &state, const std::vector<llama_token> &tokens) {
    clear();
    if (llama_state_seq_set_data(context_.get(), state.data(), state.size(), 0) == 0) {
        clear();
        refuse("the prompt cache cannot be restored");
    }
    cached_ = tokens;
    set_cached_size();
}

}  // namespace rkvisor
