#include "registry.hpp"

#include <atomic>
#include <cstdlib>
#include <set>

#include "log.hpp"

namespace rkvisor {
namespace {

struct Registry {
    std::mutex mutex;
    std::set<Handle *> handles;
};

// Never destroyed: threads of the program may outlive every destructor.
Registry &registry() {
    static auto *const only = new Registry;
    return *only;
}

std::atomic<bool> process_is_ending{false};

// A run that goes on while the engine's statics are destroyed ends the process with SIGSEGV instead of its status.
void stop_all() {
    process_is_ending = true;
    const std::lock_guard<std::mutex> lock(registry().mutex);
    for (Handle *handle : registry().handles) handle->leave();
}

}  // namespace

void enlist(Handle *handle) {
    const std::lock_guard<std::mutex> lock(registry().mutex);
    registry().handles.insert(handle);
}

Handle &find_handle(LLMHandle handle) {
    auto *const wanted = static_cast<Handle *>(handle);
    if (wanted == nullptr) refuse("handle must not be NULL");
    const std::lock_guard<std::mutex> lock(registry().mutex);
    if (registry().handles.count(wanted) == 0) refuse("invalid handle: it was destroyed, or never made");
    return *wanted;
}

bool delist(Handle *handle) {
    const std::lock_guard<std::mutex> lock(registry().mutex);
    return registry().handles.erase(handle) != 0;
}

void stop_all_at_exit() { std::atexit(stop_all); }

bool is_process_ending() { return process_is_ending; }

}  // namespace rkvisor
