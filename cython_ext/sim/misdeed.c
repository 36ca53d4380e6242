/* What faults do.  Everything here is the real thing: a real invalid write, a real overflow of the stack, real leaks. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sim.h"

/* The compiler must neither foresee these nor instrument them. */
#define REAL __attribute__((noinline, no_sanitize("undefined", "address")))

REAL static void write_nowhere(void) {
    volatile uintptr_t nowhere = 0xD0;
    *(volatile int *)nowhere = 1;
}

REAL static int recurse(volatile int depth) {
    volatile char frame[4096];
    int (*volatile again)(volatile int) = recurse;
    frame[0] = (char)depth;
    return again(depth + 1) + frame[0];
}

REAL static void divide_by_zero(void) {
#if defined(__x86_64__)
    volatile int zero = 0, one = 1;
    one = one / zero;
#endif
    raise(SIGFPE); /* where the processor answers a division by zero with a number */
}

REAL static void run_nonsense(void) {
#if defined(__x86_64__) || defined(__i386__)
    __asm__ volatile("ud2");
#elif defined(__aarch64__)
    __asm__ volatile(".inst 0x00000000"); /* udf #0 */
#endif
    raise(SIGILL);
}

REAL static void write_behind_a_file(void) {
    int fd = memfd_create("rkllm-truncated", MFD_CLOEXEC);
    if (fd >= 0 && ftruncate(fd, 4096) == 0) {
        volatile char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (page != MAP_FAILED && ftruncate(fd, 0) == 0) *page = 1;
    }
    raise(SIGBUS);
}

static void *take_memory(sim_fault_where where, size_t bytes) {
    if (where == WHERE_HEAP) return malloc(bytes);
    int shared = where == WHERE_MMAP ? MAP_PRIVATE : MAP_SHARED;
    /* The descriptor stays open, as that of an NPU buffer would. */
    int fd = where == WHERE_MEMFD ? memfd_create("rkllm-buffer", MFD_CLOEXEC) : -1;
    if (where == WHERE_MEMFD && (fd < 0 || ftruncate(fd, (off_t)bytes) != 0)) return NULL;
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, shared | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static void leak(sim_fault_where where, int64_t wanted) {
    size_t bytes = (size_t)(wanted < 0 ? 16384 : wanted);
    char *memory = bytes ? take_memory(where, bytes) : NULL;
    if (memory) memset(memory, 0xA5, bytes);
    __asm__ volatile("" : : "r"(memory) : "memory");
}

static void leak_descriptor(void) {
    if (memfd_create("rkllm-forgotten", MFD_CLOEXEC) < 0) sim_log('W', "no descriptor left to forget");
}

static void run_out_of_memory(int64_t wanted) {
    leak(WHERE_MMAP, wanted < 0 ? (int64_t)64 << 20 : wanted);
    kill(getpid(), SIGKILL); /* as the kernel's OOM killer: no message, no handler */
}

static void hang(void) {
    for (;;) pause();
}

void sim_misbehave(const sim_fault *fault) {
    switch (fault->kind) {
    case FAULT_SEGV: write_nowhere(); break;
    case FAULT_ABRT:
        fprintf(stderr, "rkllm: job.c:217: submit: Assertion `task->status == 0' failed.\n");
        abort();
    case FAULT_FPE: divide_by_zero(); break;
    case FAULT_BUS: write_behind_a_file(); break;
    case FAULT_ILL: run_nonsense(); break;
    case FAULT_STACK: recurse(0); break;
    case FAULT_EXIT: exit(1);
    case FAULT_HANG: hang(); break;
    case FAULT_LEAK: leak(fault->where, fault->bytes); break;
    case FAULT_FDLEAK: leak_descriptor(); break;
    case FAULT_OOM: run_out_of_memory(fault->bytes); break;
    default: break;
    }
}
