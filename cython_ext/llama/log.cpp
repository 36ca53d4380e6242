#include "log.hpp"

#include <unistd.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>

namespace rkvisor {
namespace {

std::string formatted(const char *format, va_list arguments) {
    va_list again;
    va_copy(again, arguments);
    const int size = std::vsnprintf(nullptr, 0, format, arguments);
    std::string text(size > 0 ? static_cast<size_t>(size) : 0, '\0');
    std::vsnprintf(text.data(), text.size() + 1, format, again);
    va_end(again);
    return text;
}

bool is_wanted(Level level) {
    const char *text = std::getenv("RKLLM_LOG_LEVEL");
    const int extra = text != nullptr ? std::atoi(text) : 0;
    return static_cast<int>(level) <= static_cast<int>(Level::warning) + extra;
}

void write_line(Level level, const std::string &text) {
    if (!is_wanted(level)) return;
    const std::string line = std::string(1, "EWID"[static_cast<int>(level)]) + " rkllm: " + text + "\n";
    // A log that cannot be written must not fail the call it tells about.
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, line.data(), line.size());
}

thread_local const std::atomic<bool> *quiet_when = nullptr;

}  // namespace

QuietEngine::QuietEngine(const std::atomic<bool> &is_quiet) { quiet_when = &is_quiet; }
QuietEngine::~QuietEngine() { quiet_when = nullptr; }

void log_line(Level level, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    const std::string text = formatted(format, arguments);
    va_end(arguments);
    write_line(level, text);
}

void refuse(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    const std::string text = formatted(format, arguments);
    va_end(arguments);
    throw Refused(text);
}

void receive_engine_log(ggml_log_level level, const char *text, void *) {
    // A CONT piece belongs to the line before it, of the same thread.
    thread_local std::string line;
    thread_local Level current = Level::debug;
    if (level != GGML_LOG_LEVEL_CONT) {
        current = level == GGML_LOG_LEVEL_ERROR  ? Level::error
                  : level == GGML_LOG_LEVEL_WARN ? Level::warning
                  : level == GGML_LOG_LEVEL_INFO ? Level::info
                                                 : Level::debug;
        if (quiet_when != nullptr && quiet_when->load()) current = Level::debug;
    }
    for (const char *at = text; *at != '\0'; ++at) {
        if (*at != '\n') {
            line += *at;
            continue;
        }
        if (!line.empty()) write_line(current, line);
        line.clear();
    }
}

}  // namespace rkvisor
