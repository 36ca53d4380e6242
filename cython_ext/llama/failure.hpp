// No exception crosses the C boundary, nor a callback's.
#ifndef RKVISOR_LLAMA_FAILURE_HPP
#define RKVISOR_LLAMA_FAILURE_HPP

#include <exception>
#include <new>

#include "log.hpp"

namespace rkvisor {

// Logs the exception being handled.
inline void report_failure() noexcept {
    try {
        throw;
    } catch (const std::bad_alloc &) {
        log_line(Level::error, "malloc memory fail");
    } catch (const std::exception &failure) {
        log_line(Level::error, "%s", failure.what());
    } catch (...) {
        log_line(Level::error, "unknown failure");
    }
}

// Runs `action`: false, logged, when it threw.
template <typename Action>
bool contain(Action action) noexcept {
    try {
        action();
        return true;
    } catch (...) {
        report_failure();
        return false;
    }
}

}  // namespace rkvisor

#endif
