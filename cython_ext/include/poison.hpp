// Measures what rkllm_createDefaultParam writes, without knowing which family's struct it returns.
#ifndef RKVISOR_POISON_HPP
#define RKVISOR_POISON_HPP

#include <cstring>
#include <new>

namespace rkvisor {

// Larger than RKLLMParam of any family.  Structs over 16 bytes are returned through a hidden pointer on x86-64 and
// aarch64 whatever their size, so a library that returns less writes less.
struct Returned {
    unsigned char bytes[1024];
};

// Calls function() into memory filled with `fill` and copies that memory to `out`.
inline void call_into_poison(void *function, unsigned char fill, Returned *out) {
    alignas(16) unsigned char memory[sizeof(Returned)];
    std::memset(memory, fill, sizeof memory);
    __asm__ volatile("" : : "r"(memory) : "memory");  // the fill must happen although a new object begins here
    // Guaranteed elision: the hidden pointer is `memory` itself, not a temporary.
    new (memory) Returned(reinterpret_cast<Returned (*)()>(function)());
    __asm__ volatile("" : : "r"(memory) : "memory");
    std::memcpy(out, memory, sizeof memory);
}

}  // namespace rkvisor

#endif
