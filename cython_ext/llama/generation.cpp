#include "generation.hpp"

#include "log.hpp"
#include "prompt_cache.hpp"

namespace rkvisor {

Generation::Generation(Handle &handle, Request request)
    : handle_(handle), engine_(handle.engine()), request_(std::move(request)) {}

Ending Generation::start(Listener &listener) {
    stopwatch_.start();
    if (!prefill()) return Ending::aborted;
    sampler_ = make_sampler(request_.sampling, engine_, handle_.settings().ignore_end);
    accept_context(sampler_.get(), engine_);
    stopwatch_.start();
    const std::optional<Ending> early = take_forced();
    const Ending ending = early ? *early : generate(listener);
    stopwatch_.add_generated();
    if (request_.keeps_history) keep_history();
    return ending;
}

void Generation::check_fits(size_t more) const {
    const size_t held = engine_.cached().size();
    const auto most = static_cast<size_t>(handle_.settings().context);
    if (held + more <= most) return;
    refuse("the length of prompt is greater than max context: %zu tokens held, %zu more, max_context[%zu]", held, more,
           most);
}

bool Generation::prefill() {
    size_t reused = 0;
    size_t size = 0;
    bool is_done = false;
    if (request_.type == RKLLM_INPUT_EMBED) {
        size = request_.embeddings.size() / static_cast<size_t>(engine_.embedding_size());
        check_fits(size);
        if (size == 0) refuse("the input is empty");
        is_done = engine_.evaluate({nullptr, request_.embeddings.data(), size});
    } else {
        std::vector<llama_token> tokens = request_.tokens;
        if (request_.type == RKLLM_INPUT_PROMPT) {
            rendered_ = handle_.chat().render(request_.turn);
            tokens = handle_.tokenize(rendered_, engine_.cached().empty());
        }
        size = tokens.size();
        if (size == 0) refuse("the input is empty");
        check_fits(size);
        if (engine_.cached().empty()) reused = handle_.restore_shared(tokens);
        tokens.erase(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(reused));
        is_done = handle_.evaluate(tokens);
    }
    stopwatch_.add_prefill(size - reused);
    if (is_done && request_.saved_cache) write_prompt_cache(engine_, *request_.saved_cache);
    return is_done;
}

std::optional<Ending> Generation::take_forced() {
    const std::vector<llama_token> forced = handle_.take_forced();
    // A greedy text depends on the last bits of the logits, so its tokens are computed as they were the first time, one
    // by one; for a sampled text one batch is as good, and much faster.
    const bool one_by_one = is_greedy(request_.sampling);
    std::vector<llama_token> batch;
    std::optional<Ending> ending;  // all that was forced is kept even so: the next turn is read behind it
    for (const llama_token token : forced) {
        llama_sampler_accept(sampler_.get(), token);
        if (take(token, nullptr)) {
            ending = Ending::stop;
        } else if (request_.max_new_tokens > 0 && produced_ >= request_.max_new_tokens) {
            ending = Ending::length;
        }
        if (ending) break;
        if (one_by_one) {
            if (const std::optional<Ending> early = settle()) return early;
            continue;
        }
        batch.push_back(token);
        pending_ = LLAMA_TOKEN_NULL;
        if (engine_.cached().size() + batch.size() > static_cast<size_t>(handle_.settings().context)) {
            log_line(Level::warning, "the context is not enough!");
            return Ending::context;
        }
    }
    if (!handle_.evaluate(batch)) return Ending::aborted;
    return ending;
}

bool Generation::take(llama_token token, Listener *listener) {
    const Settings &settings = handle_.settings();
    const bool is_last = engine_.is_end(token) && !settings.ignore_end;
    spelled_ += engine_.piece(token, true);
    pending_ = token;
    if (is_last) end_token_ = token;
    if (is_last && settings.skip_special) return true;
    ++produced_;
    stopwatch_.count_generated();
    const std::string text = utf8_.push(engine_.piece(token, !settings.skip_special));
    if (!is_last) answer_ += text;
    if (listener != nullptr) {
        const Answer answer = listener->piece(text, token, text.empty() && utf8_.is_waiting());
        if (answer == Answer::pause && request_.keeps_history)
            log_line(Level::warning, "a task with keep_history cannot be paused: it goes on");
        is_pausing_ = answer == Answer::pause && !request_.keeps_history && !is_last;
    }
    return is_last;
}

std::optional<Ending> Generation::settle() {
    if (pending_ == LLAMA_TOKEN_NULL) return std::nullopt;
    if (engine_.cached().size() >= static_cast<size_t>(handle_.settings().context)) {
        log_line(Level::warning, "the context is not enough!");
        return Ending::context;
    }
    if (!handle_.evaluate({pending_})) return Ending::aborted;
    pending_ = LLAMA_TOKEN_NULL;
    return std::nullopt;
}

Ending Generation::generate(Listener &listener) {
    for (;;) {
        if (!is_pausing_ && request_.max_new_tokens > 0 && produced_ >= request_.max_new_tokens) return Ending::length;
        if (const std::optional<Ending> ending = settle()) return *ending;
        if (is_pausing_) {
            is_pausing_ = false;
            return Ending::paused;
        }
        if (engine_.is_aborted()) return Ending::aborted;
        if (take(llama_sampler_sample(sampler_.get(), engine_.context(), -1), &listener)) return Ending::stop;
    }
}

bool Generation::append(const Request &content) {
    size_t size = content.tokens.size();
    bool is_done = false;
    if (content.type == RKLLM_INPUT_EMBED) {
        size = content.embeddings.size() / static_cast<size_t>(engine_.embedding_size());
        check_fits(size);
        is_done = engine_.evaluate({nullptr, content.embeddings.data(), size});
    } else {
        const std::vector<llama_token> tokens = content.type == RKLLM_INPUT_PROMPT
                                                    ? handle_.tokenize(content.turn.content, engine_.cached().empty())
                                                    : content.tokens;
        size = tokens.size();
        check_fits(size);
        for (const llama_token token : tokens) llama_sampler_accept(sampler_.get(), token);
        is_done = handle_.evaluate(tokens);
    }
    stopwatch_.add_prefill(size);
    return is_done;
}

Ending Generation::resume(Listener &listener, const Request &content) {
    stopwatch_.start();
    if (!content.is_empty() && !content.has_same_input(request_)) {
        if (!append(content)) return Ending::aborted;
    } else if (has_stale_logits_) {
        if (engine_.cached().empty()) refuse("nothing is left to resume from: the cache is empty");
        const llama_token last = engine_.cached().back();
        if (last == LLAMA_TOKEN_NULL) refuse("cannot resume behind an embedding whose successors were cleared");
        engine_.truncate(engine_.cached().size() - 1);
        if (!handle_.evaluate({last})) return Ending::aborted;
    }
    has_stale_logits_ = false;
    stopwatch_.start();
    const std::optional<Ending> early = take_forced();
    const Ending ending = early ? *early : generate(listener);
    stopwatch_.add_generated();
    return ending;
}

void Generation::keep_history() {
    // The next turn is read behind the whole answer, so its last token is computed too, abort or not.
    engine_.forget_abort();
    if (pending_ != LLAMA_TOKEN_NULL && engine_.cached().size() < static_cast<size_t>(handle_.settings().context)) {
        handle_.evaluate({pending_});
        pending_ = LLAMA_TOKEN_NULL;
    }
    if (request_.type == RKLLM_INPUT_PROMPT) {
        handle_.chat().remember(request_.turn, rendered_, answer_, spelled_);
        return;
    }
    std::string text;
    for (const llama_token token : request_.tokens) text += engine_.piece(token, true);
    handle_.chat().remember_raw(text + spelled_);
}

}  // namespace rkvisor
