// The handles that are alive: a program may name one that is not, and may end while one works.
#ifndef RKVISOR_LLAMA_REGISTRY_HPP
#define RKVISOR_LLAMA_REGISTRY_HPP

#include "handle.hpp"

namespace rkvisor {

void enlist(Handle *handle);

// The handle behind a program's pointer; refuses one that is NULL, was destroyed, or never was.
Handle &find_handle(LLMHandle handle);

// Takes a handle out of the living.  False: another thread was faster.
bool delist(Handle *handle);

// From now on the process's end stops every handle first.  Call it once, after the engine was started: then it happens
// before the engine takes itself apart.
void stop_all_at_exit();

// Whether the process is ending: nobody is called back any more.
bool is_process_ending();

}  // namespace rkvisor

#endif
