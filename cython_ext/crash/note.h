/* The crash note: what a dying process can still say by itself.  Everything called from the signal handler is
 * async-signal-safe: no memory is allocated, no lock is taken, only system calls are made. */
#ifndef RKVISOR_CRASH_NOTE_H
#define RKVISOR_CRASH_NOTE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Text on its way to a descriptor.  What does not fit is sent; what cannot be sent without waiting is dropped. */
typedef struct {
    int fd;
    size_t used;
    char text[1024];
} note_writer;

void note_text(note_writer *writer, const char *text);
void note_hex(note_writer *writer, uint64_t value);
void note_decimal(note_writer *writer, int64_t value);
void note_flush(note_writer *writer);

/* Which file each address belongs to, as of the last refresh.  Refresh outside the handler, one thread at a time. */
void modules_refresh(void);
/* Whether ADDRESS lies in code of a known module. */
int modules_has(uintptr_t address);
/* Writes " PATH+0xOFFSET", the offset being the address within the file as addr2line takes it; nothing if unknown. */
void modules_locate(note_writer *writer, uintptr_t address);

/* The general registers of an interrupted thread; CONTEXT is a ucontext_t. */
typedef struct {
    uintptr_t pc, sp, caller; /* caller: the return address, where it is known without a walk; else 0 */
} note_place;

note_place registers_place(const void *context);
void registers_write(note_writer *writer, const void *context);

#endif
