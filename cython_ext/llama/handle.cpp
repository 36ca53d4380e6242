#include "handle.hpp"

#include <cxxabi.h>

#include <algorithm>
#include <chrono>

#include "failure.hpp"
#include "generation.hpp"
#include "log.hpp"

namespace rkvisor {

Handle::Handle(const Settings &settings, const RKLLMCallback &callback)
    : settings_(settings), callback_(callback), engine_(settings), chat_(engine_.model()) {}

Handle::~Handle() {
    if (worker_.joinable()) worker_.join();
}

void Handle::claim(bool is_run) {
    std::unique_lock<std::mutex> lock(mutex_);
    // A program that heard FINISH from another thread may call again before that thread has left its callback.
    if (is_ending_ && busy_thread_ != std::this_thread::get_id()) idle_.wait(lock, [this] { return !is_busy_; });
    if (is_busy_) refuse("a task is running: the call has to wait for its end");
    is_busy_ = true;
    is_generating_ = is_run;
    busy_thread_ = std::this_thread::get_id();
    engine_.forget_abort();
}

void Handle::release() {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_busy_ = false;
    is_ending_ = false;
    is_generating_ = false;
    // Under the lock: once a waiter in stop() has it, this object may be gone.
    idle_.notify_all();
}

void Handle::note_ending() {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_ending_ = true;
}

bool Handle::is_running() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return is_generating_;
}

void Handle::abort() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (is_busy_) {
        engine_.request_abort();
    } else {
        paused_.reset();
    }
}

void Handle::stop() {
    std::unique_lock<std::mutex> lock(mutex_);
    if (is_busy_ && busy_thread_ == std::this_thread::get_id())
        refuse("a handle cannot be destroyed inside its own callback");
    while (is_busy_) {
        engine_.request_abort();
        idle_.wait(lock);
    }
}

void Handle::leave() {
    std::unique_lock<std::mutex> lock(mutex_);
    if (!is_busy_ || busy_thread_ == std::this_thread::get_id()) return;
    engine_.request_abort();
    // Not for ever: the program's callback may wait for something that is gone already.
    idle_.wait_for(lock, std::chrono::seconds(2), [this] { return !is_busy_; });
}

int Handle::run(Request request) {
    const Exclusive exclusive(*this, true);
    return execute(std::move(request));
}

void Handle::run_async(Request request) {
    claim(true);
    try {
        if (worker_.joinable()) worker_.join();  // done already: it released the claim as its last act
        worker_ = std::thread([this, request = std::move(request)]() mutable {
            {
                const std::lock_guard<std::mutex> lock(mutex_);
                busy_thread_ = std::this_thread::get_id();
            }
            const Releaser releaser{*this};  // even where the callback ends this thread
            execute(std::move(request));
        });
    } catch (...) {
        release();
        throw;
    }
}

int Handle::execute(Request request) {
    Listener listener(callback_, request.userdata);
    const size_t held = has_stale_cache_ || !request.keeps_history ? 0 : engine_.cached().size();
    try {
        return conduct(std::move(request));
    } catch (const abi::__forced_unwind &) {
        throw;  // the callback ended this thread, as Python's does when the interpreter is gone
    } catch (...) {
        report_failure();
        paused_.reset();
        forced_.clear();
        // A failed turn leaves a conversation as it was before.
        if (held < engine_.cached().size()) contain([&] { engine_.truncate(held); });
        if (held == 0) chat_.forget();
    }
    note_ending();
    contain([&] { listener.error(); });
    return -1;
}

int Handle::conduct(Request request) {
    Listener listener(callback_, request.userdata);
    const bool keeps_history = request.keeps_history;
    const bool is_resuming = paused_ != nullptr && !keeps_history && request.mode == RKLLM_INFER_GENERATE;
    if (!is_resuming) paused_.reset();
    if (!is_resuming && (!keeps_history || has_stale_cache_)) {
        engine_.clear();
        chat_.forget();
    }
    has_stale_cache_ = !keeps_history;
    if (!is_resuming) select_lora(request.lora);
    const size_t held = engine_.cached().size();
    if (request.mode != RKLLM_INFER_GENERATE) {
        Stopwatch stopwatch;
        if (!deliver_tensors(*this, request, listener, stopwatch)) engine_.truncate(held);
        note_ending();
        listener.finish(stopwatch.perf(), -1);
        return 0;
    }
    std::unique_ptr<Generation> generation =
        is_resuming ? std::move(paused_) : std::make_unique<Generation>(*this, request);
    const Ending ending = is_resuming ? generation->resume(listener, request) : generation->start(listener);
    if (ending == Ending::paused) {
        paused_ = std::move(generation);
        return 0;
    }
    if (ending == Ending::aborted && keeps_history && !generation->has_answered()) engine_.truncate(held);
    note_ending();
    generation->finish(listener);
    return 0;
}

void Handle::select_lora(const std::optional<std::string> &name) {
    if (!name) {
        llama_set_adapters_lora(engine_.context(), nullptr, 0, nullptr);
        return;
    }
    const auto found = adapters_.find(*name);
    if (found == adapters_.end()) refuse("LoRA adapter %s is not loaded", name->c_str());
    llama_adapter_lora *weights = found->second.weights;
    float scale = found->second.scale;
    if (llama_set_adapters_lora(engine_.context(), &weights, 1, &scale) != 0)
        refuse("LoRA adapter %s cannot be applied", name->c_str());
}

std::vector<llama_token> Handle::tokenize(const std::string &text, bool at_start) const {
    if (callback_.tokenizer_callback == nullptr) return engine_.tokenize(text, at_start);
    std::vector<llama_token> tokens(text.size() + 16);
    const int count =
        callback_.tokenizer_callback(callback_.tokenizer_userdata, text.c_str(), static_cast<int32_t>(text.size()),
                                     tokens.data(), static_cast<int32_t>(tokens.size()));
    if (count < 0 || static_cast<size_t>(count) > tokens.size()) refuse("the tokenizer callback failed with %d", count);
    tokens.resize(static_cast<size_t>(count));
    for (const llama_token token : tokens) {
        if (token < 0 || token >= engine_.vocabulary_size())
            refuse("the tokenizer callback gave token %d, which the model does not have", token);
    }
    if (at_start) engine_.open_context(tokens);  // the callback is not told where its text stands
    return tokens;
}

bool Handle::evaluate(const std::vector<llama_token> &tokens, Outputs outputs, const Engine::Sink &sink) {
    if (callback_.embed_callback == nullptr)
        return engine_.evaluate({tokens.data(), nullptr, tokens.size()}, outputs, sink);
    std::vector<llama_token> ids = tokens;
    std::vector<float> embeddings(tokens.size() * static_cast<size_t>(engine_.embedding_size()));
    const int status = callback_.embed_callback(callback_.embed_userdata, ids.data(), ids.size(), embeddings.data(),
                                                embeddings.size() * sizeof(float));
    if (status != 0) refuse("the embed callback failed with %d", status);
    return engine_.evaluate({tokens.data(), embeddings.data(), tokens.size()}, outputs, sink);
}

size_t Handle::restore_shared(const std::vector<llama_token> &prompt) {
    if (!prompt_cache_ || prompt.empty()) return 0;
    const std::vector<llama_token> &known = prompt_cache_->tokens;
    const auto parting = std::mismatch(prompt.begin(), prompt.end(), known.begin(), known.end());
    // The last token of the prompt is always computed: its logits are not in the cache.
    const size_t shared = std::min<size_t>(static_cast<size_t>(parting.first - prompt.begin()), prompt.size() - 1);
    if (shared == 0) return 0;
    engine_.restore_state(prompt_cache_->state, known);
    engine_.truncate(shared);
    return shared;
}

void Handle::load_lora(const RKLLMLoraAdapter &adapter) {
    const Exclusive exclusive(*this);
    if (adapter.lora_adapter_path == nullptr) refuse("lora_adapter_path must not be NULL");
    if (adapter.lora_adapter_name == nullptr) refuse("lora_adapter_name must not be NULL");
    if (adapters_.count(adapter.lora_adapter_name) != 0)
        refuse("LoRA adapter %s is loaded already", adapter.lora_adapter_name);
    llama_adapter_lora *weights = llama_adapter_lora_init(engine_.model(), adapter.lora_adapter_path);
    if (weights == nullptr) refuse("cannot load LoRA adapter %s", adapter.lora_adapter_path);
    adapters_[adapter.lora_adapter_name] = {weights, adapter.scale};
}

void Handle::load_prompt_cache(const std::string &path) {
    const Exclusive exclusive(*this);
    if (prompt_cache_) refuse("a prompt cache is loaded already: release it first");
    prompt_cache_ = read_prompt_cache(engine_, path, settings_.context);
}

void Handle::release_prompt_cache() {
    const Exclusive exclusive(*this);
    prompt_cache_.reset();
}

void Handle::clear_cache(bool keeps_system_prompt) {
    const Exclusive exclusive(*this);
    paused_.reset();
    size_t kept = 0;
    std::string text;
    if (keeps_system_prompt) {
        const std::vector<llama_token> opening = tokenize(chat_.opening(), true);
        const std::vector<llama_token> &cached = engine_.cached();
        const auto parting = std::mismatch(cached.begin(), cached.end(), opening.begin(), opening.end());
        kept = static_cast<size_t>(parting.first - cached.begin());
        for (size_t at = 0; at < kept; ++at) text += engine_.piece(cached[at], true);
    }
    engine_.truncate(kept);
    has_stale_cache_ = false;
    chat_.forget(text);
}

void Handle::clear_range(int32_t begin, int32_t end) {
    const Exclusive exclusive(*this);
    if (!paused_) refuse("a part of the cache can be cleared only while a task is paused");
    if (begin < 0 || end <= begin || end > engine_.cached_size()) {
        refuse("the range [%d, %d) is not within the cache of %d tokens", begin, end, engine_.cached_size());
    }
    engine_.erase(static_cast<size_t>(begin), static_cast<size_t>(end));
    paused_->note_edit();
}

void Handle::force_tokens(const int32_t *ids, size_t count) {
    const Exclusive exclusive(*this);
    if (ids == nullptr && count != 0) refuse("ids must not be NULL");
    const std::vector<llama_token> forced(ids, ids + count);
    for (const llama_token token : forced) {
        if (token < 0 || token >= engine_.vocabulary_size())
            refuse("token %d is not in the vocabulary of %d", token, engine_.vocabulary_size());
    }
    forced_ = forced;
}

}  // namespace rkvisor
