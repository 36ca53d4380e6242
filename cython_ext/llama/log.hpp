// Log lines in the vendor's style, "E rkllm: …", on stderr.  rkvisor captures them and classifies failures by them.
#ifndef RKVISOR_LLAMA_LOG_HPP
#define RKVISOR_LLAMA_LOG_HPP

#include <atomic>
#include <stdexcept>
#include <string>

#include "ggml.h"

namespace rkvisor {

enum class Level : int { error = 0, warning = 1, info = 2, debug = 3 };

// One line, written with one write(2), so that lines of several threads never mix.  RKLLM_LOG_LEVEL: unset or 0 prints
// errors and warnings, 1 adds information, 2 debugging.
void log_line(Level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

// libllama's and ggml's own log, line by line under the same prefix.
void receive_engine_log(ggml_log_level level, const char *text, void *unused);

// While it lives, what libllama says on this thread counts as debugging once `is_quiet` is set: an abort that was asked
// for is no error.
class QuietEngine {
public:
    explicit QuietEngine(const std::atomic<bool> &is_quiet);
    ~QuietEngine();
    QuietEngine(const QuietEngine &) = delete;
    QuietEngine &operator=(const QuietEngine &) = delete;
};

// A call that is refused or failed.  The boundary (abi.cpp) logs what() as an error line and returns -1.
class Refused : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

[[noreturn]] void refuse(const char *format, ...) __attribute__((format(printf, 1, 2)));

}  // namespace rkvisor

#endif
