// The program's result callback, and the numbers it is told at the end.
#ifndef RKVISOR_LLAMA_LISTENER_HPP
#define RKVISOR_LLAMA_LISTENER_HPP

#include <chrono>
#include <string>

#include "abi_f5.hpp"

namespace rkvisor {

// What the callback may answer; anything else counts as go_on.
enum class Answer { go_on = 0, pause = 1, release_buffer = 2 };

class Listener {
public:
    Listener(const RKLLMCallback &callback, void *userdata)
        : callback_(callback.result_callback), userdata_(userdata != nullptr ? userdata : callback.result_userdata) {}

    // `text` is whole UTF-8; empty with is_waiting while a character is incomplete.
    Answer piece(const std::string &text, int32_t token, bool is_waiting);
    void hidden(const float *rows, int embedding_size, int n_rows);
    void logits(const float *rows, int vocabulary_size, int n_rows);
    // `token` is the one that ended the generation, -1 when none did.
    void finish(const RKLLMPerfStat &perf, int32_t token);
    void error();

private:
    Answer call(RKLLMResult &result, LLMCallState state);

    LLMResultCallback callback_;
    void *userdata_;
};

// Milliseconds and tokens of one run.
class Stopwatch {
public:
    void start() { begun_ = Clock::now(); }
    void add_prefill(size_t tokens);
    void add_generated();  // the time since start(), without counting tokens
    void count_generated() { ++perf_.generate_tokens; }
    RKLLMPerfStat perf() const;

private:
    using Clock = std::chrono::steady_clock;
    float elapsed_ms() const { return std::chrono::duration<float, std::milli>(Clock::now() - begun_).count(); }

    Clock::time_point begun_;
    RKLLMPerfStat perf_{};
};

}  // namespace rkvisor

#endif
