// What an LLMHandle points to: a loaded model and everything that outlives one run.
#ifndef RKVISOR_LLAMA_HANDLE_HPP
#define RKVISOR_LLAMA_HANDLE_HPP

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "chat.hpp"
#include "engine.hpp"
#include "prompt_cache.hpp"
#include "request.hpp"
#include "settings.hpp"

namespace rkvisor {

class Generation;

struct Adapter {
    llama_adapter_lora *weights;  // owned by the model
    float scale;
};

class Handle {
public:
    // Throws Refused.
    Handle(const Settings &settings, const RKLLMCallback &callback);
    ~Handle();
    Handle(const Handle &) = delete;
    Handle &operator=(const Handle &) = delete;

    // Runs on the calling thread.  Throws Refused when the request was not begun; -1 after an ERROR callback, else 0.
    int run(Request request);
    // Runs on a thread of its own.
    void run_async(Request request);
    void abort();
    bool is_running() const;
    // Aborts what runs and waits for it.  Throws Refused inside a callback.
    void stop();

    // The calls below throw Refused while a run is under way.
    void load_lora(const RKLLMLoraAdapter &adapter);
    void load_prompt_cache(const std::string &path);
    void release_prompt_cache();
    void clear_cache(bool keeps_system_prompt);
    void clear_range(int32_t begin, int32_t end);
    void force_tokens(const int32_t *ids, size_t count);
    template <typename Change>
    void change_chat(Change change) {
        const Exclusive exclusive(*this);
        change(chat_);
    }

    const Settings &settings() const { return settings_; }
    const RKLLMCallback &callback() const { return callback_; }
    // The process ends: stops what runs, and waits a little for it.
    void leave();

    Engine &engine() { return engine_; }
    Chat &chat() { return chat_; }

    // For a run: ----------------------------------------------------------------------------------------------------
    std::vector<llama_token> take_forced() { return std::exchange(forced_, {}); }
    // Tokens of a text, by the program's own tokenizer if it gave one.
    std::vector<llama_token> tokenize(const std::string &text, bool at_start) const;
    // Evaluates tokens, by the program's own embeddings if it gave any.
    bool evaluate(const std::vector<llama_token> &tokens, Outputs outputs = Outputs::last_logits,
                  const Engine::Sink &sink = nullptr);
    // Puts into an empty cache what the prompt cache shares with the prompt.  Returns the tokens put back.
    size_t restore_shared(const std::vector<llama_token> &prompt);

private:
    // One caller at a time: a run, or a call that changes what runs share.
    class Exclusive {
    public:
        explicit Exclusive(Handle &handle, bool is_run = false) : handle_(handle) { handle_.claim(is_run); }
        ~Exclusive() { handle_.release(); }
        Exclusive(const Exclusive &) = delete;
        Exclusive &operator=(const Exclusive &) = delete;

    private:
        Handle &handle_;
    };

    struct Releaser {
        Handle &handle;
        ~Releaser() { handle.release(); }
    };

    void claim(bool is_run);
    void note_ending();
    void release();
    int execute(Request request);
    int conduct(Request request);
    void select_lora(const std::optional<std::string> &name);

    Settings settings_;
    RKLLMCallback callback_;
    Engine engine_;
    Chat chat_;
    std::map<std::string, Adapter> adapters_;
    std::optional<PromptCache> prompt_cache_;
    std::vector<llama_token> forced_;
    std::unique_ptr<Generation> paused_;

    mutable std::mutex mutex_;
    std::condition_variable idle_;
    bool is_busy_ = false;
    std::thread::id busy_thread_;
    bool is_ending_ = false;  // the last callback is being made: whoever comes now waits instead of being refused
    bool is_generating_ = false;
    bool has_stale_cache_ = false;  // it holds a run without keep_history: shown by its size, never read again
    std::thread worker_;
};

}  // namespace rkvisor

#endif
