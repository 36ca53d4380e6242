/* Registers of the interrupted thread, by the names of its processor.  Another processor than these two has none. */
#include <sys/uio.h>
#include <ucontext.h>
#include <unistd.h>

#include "note.h"

static void one(note_writer *writer, const char *name, uint64_t value) {
    note_text(writer, "register ");
    note_text(writer, name);
    note_text(writer, " ");
    note_hex(writer, value);
    modules_locate(writer, (uintptr_t)value);
    note_text(writer, "\n");
}

#if defined(__x86_64__)

static const struct { const char *name; int at; } names[] = {
    {"rip", REG_RIP}, {"rsp", REG_RSP}, {"rbp", REG_RBP}, {"rax", REG_RAX}, {"rbx", REG_RBX}, {"rcx", REG_RCX},
    {"rdx", REG_RDX}, {"rsi", REG_RSI}, {"rdi", REG_RDI}, {"r8", REG_R8},   {"r9", REG_R9},   {"r10", REG_R10},
    {"r11", REG_R11}, {"r12", REG_R12}, {"r13", REG_R13}, {"r14", REG_R14}, {"r15", REG_R15}, {"rflags", REG_EFL},
};

/* A word of our own memory that may not be there: the kernel says so instead of a second fault. */
static uintptr_t peek(uintptr_t address) {
    uintptr_t word = 0;
    struct iovec here = {&word, sizeof word}, there = {(void *)address, sizeof word};
    return process_vm_readv(getpid(), &here, 1, &there, 1, 0) == (ssize_t)sizeof word ? word : 0;
}

note_place registers_place(const void *context) {
    const greg_t *at = ((const ucontext_t *)context)->uc_mcontext.gregs;
    uintptr_t sp = (uintptr_t)at[REG_RSP], caller = peek(sp);
    return (note_place){(uintptr_t)at[REG_RIP], sp, modules_has(caller) ? caller : 0};
}

void registers_write(note_writer *writer, const void *context) {
    const greg_t *at = ((const ucontext_t *)context)->uc_mcontext.gregs;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) one(writer, names[i].name, (uint64_t)at[names[i].at]);
}

#elif defined(__aarch64__)

note_place registers_place(const void *context) {
    const mcontext_t *at = &((const ucontext_t *)context)->uc_mcontext;
    return (note_place){(uintptr_t)at->pc, (uintptr_t)at->sp, (uintptr_t)at->regs[30]};
}

void registers_write(note_writer *writer, const void *context) {
    const mcontext_t *at = &((const ucontext_t *)context)->uc_mcontext;
    one(writer, "pc", at->pc);
    one(writer, "lr", at->regs[30]);
    one(writer, "sp", at->sp);
    one(writer, "fp", at->regs[29]);
    for (int i = 0; i < 29; i++) {
        char name[4] = {'x', (char)('0' + i), 0, 0};
        if (i > 9) name[1] = (char)('0' + i / 10), name[2] = (char)('0' + i % 10);
        one(writer, name, at->regs[i]);
    }
    one(writer, "pstate", at->pstate);
}

#else

note_place registers_place(const void *context) {
    (void)context;
    return (note_place){0, 0, 0};
}

void registers_write(note_writer *writer, const void *context) {
    (void)writer, (void)context;
}

#endif
