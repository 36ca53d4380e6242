#include "listener.hpp"

#include <fstream>

#include "registry.hpp"

namespace rkvisor {
namespace {

// The most memory this process ever held, in MB, which is what the vendor reports as memory_usage_mb.
float peak_memory_mb() {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        if (line.compare(0, 6, "VmHWM:") == 0) return std::stof(line.substr(6)) / 1024.0F;
    }
    return 0.0F;
}

}  // namespace

Answer Listener::call(RKLLMResult &result, LLMCallState state) {
    if (is_process_ending()) return Answer::go_on;
    switch (callback_(&result, userdata_, state)) {
        case 1: return Answer::pause;
        case 2: return Answer::release_buffer;
        default: return Answer::go_on;
    }
}

Answer Listener::piece(const std::string &text, int32_t token, bool is_waiting) {
    RKLLMResult result{};
    result.text = text.c_str();
    result.token_id = token;
    return call(result, is_waiting ? RKLLM_RUN_WAITING : RKLLM_RUN_NORMAL);
}

void Listener::hidden(const float *rows, int embedding_size, int n_rows) {
    RKLLMResult result{};
    result.text = "";
    result.token_id = -1;
    result.last_hidden_layer = {rows, embedding_size, n_rows};
    call(result, RKLLM_RUN_NORMAL);
}

void Listener::logits(const float *rows, int vocabulary_size, int n_rows) {
    RKLLMResult result{};
    result.text = "";
    result.token_id = -1;
    result.logits = {rows, vocabulary_size, n_rows};
    call(result, RKLLM_RUN_NORMAL);
}

void Listener::finish(const RKLLMPerfStat &perf, int32_t token) {
    RKLLMResult result{};
    result.token_id = token;
    result.perf = perf;
    call(result, RKLLM_RUN_FINISH);
}

void Listener::error() {
    RKLLMResult result{};
    result.token_id = -1;
    call(result, RKLLM_RUN_ERROR);
}

void Stopwatch::add_prefill(size_t tokens) {
    perf_.prefill_time_ms += elapsed_ms();
    perf_.prefill_tokens += static_cast<int>(tokens);
}

void Stopwatch::add_generated() { perf_.generate_time_ms += elapsed_ms(); }

RKLLMPerfStat Stopwatch::perf() const {
    RKLLMPerfStat perf = perf_;
    perf.memory_usage_mb = peak_memory_mb();
    return perf;
}

}  // namespace rkvisor
