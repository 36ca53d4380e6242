// One inference from prompt to last token; it survives a pause between two calls of rkllm_run.
#ifndef RKVISOR_LLAMA_GENERATION_HPP
#define RKVISOR_LLAMA_GENERATION_HPP

#include "handle.hpp"
#include "listener.hpp"
#include "sampling.hpp"
#include "utf8.hpp"

namespace rkvisor {

enum class Ending { stop, length, context, aborted, paused };

class Generation {
public:
    Generation(Handle &handle, Request request);

    const Request &request() const { return request_; }
    // Prefills the prompt, takes over forced tokens, generates.  Throws Refused.
    Ending start(Listener &listener);
    // Goes on after a pause.  Input that differs from the paused one is appended as it is, without a template.
    Ending resume(Listener &listener, const Request &content);
    // The cache was changed while paused: the last token has to be computed again.
    void note_edit() { has_stale_logits_ = true; }
    bool has_answered() const { return sampler_ != nullptr; }
    void finish(Listener &listener) { listener.finish(stopwatch_.perf(), end_token_); }

private:
    bool prefill();
    void check_fits(size_t more) const;
    bool append(const Request &content);
    Ending generate(Listener &listener);
    std::optional<Ending> take_forced();
    // The token becomes part of the answer; true when it ends the answer.
    bool take(llama_token token, Listener *listener);
    // Computes what was taken last.  Nothing when generation goes on.
    std::optional<Ending> settle();
    void keep_history();

    Handle &handle_;
    Engine &engine_;
    Request request_;
    llama_sampler_ptr sampler_;
    Utf8Assembler utf8_;
    Stopwatch stopwatch_;
    std::string rendered_;  // the prompt as the model read it
    std::string answer_;    // whole characters, without control tokens
    std::string spelled_;   // every token's bytes
    int32_t produced_ = 0;
    llama_token pending_ = LLAMA_TOKEN_NULL;  // taken, not yet computed
    llama_token end_token_ = LLAMA_TOKEN_NULL;
    bool is_pausing_ = false;
    bool has_stale_logits_ = false;
};

// RKLLM_INFER_GET_LAST_HIDDEN_LAYER and RKLLM_INFER_GET_LOGITS: rows for every input token.  False when aborted.
bool deliver_tensors(Handle &handle, const Request &request, Listener &listener, Stopwatch &stopwatch);

}  // namespace rkvisor

#endif
