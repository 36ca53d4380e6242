/* A table of the loaded code: dl_iterate_phdr takes a lock, so it is asked beforehand and the handler reads the table. */
#include <link.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "note.h"

enum { MODULES = 256, NAMES = 32768 }; /* a worker has about 60, with names of about 80 bytes */

typedef struct {
    uintptr_t start, end, bias;
    size_t name;
} module;

typedef struct {
    size_t count, used;
    module at[MODULES];
    char names[NAMES];
} table;

/* Two, so that one is whole while the other is written. */
static table tables[2];
static _Atomic(const table *) current;

static size_t keep_name(table *into, const char *name) {
    char self[1024];
    if (!*name) { /* the program itself has no name here */
        ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
        self[length < 0 ? 0 : length] = 0;
        name = self;
    }
    size_t length = strlen(name) + 1, at = into->used;
    if (length > NAMES - at) return NAMES;
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)name[i];
        into->names[at + i] = (char)(c && c < ' ' ? '?' : c); /* a note is made of lines */
    }
    into->used += length;
    return at;
}

static int add(struct dl_phdr_info *info, size_t size, void *data) {
    table *into = data;
    size_t name = NAMES;
    (void)size;
    for (int i = 0; i < info->dlpi_phnum && into->count < MODULES; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        if (part->p_type != PT_LOAD || !(part->p_flags & PF_X)) continue;
        if (name == NAMES && (name = keep_name(into, info->dlpi_name)) == NAMES) return 1;
        uintptr_t start = info->dlpi_addr + part->p_vaddr;
        into->at[into->count++] = (module){start, start + part->p_memsz, info->dlpi_addr, name};
    }
    return 0;
}

void modules_refresh(void) {
    table *next = atomic_load(&current) == &tables[0] ? &tables[1] : &tables[0];
    next->count = next->used = 0;
    dl_iterate_phdr(add, next);
    atomic_store(&current, next);
}

static const module *find(const table *in, uintptr_t address) {
    for (size_t i = 0; in && i < in->count; i++)
        if (address >= in->at[i].start && address < in->at[i].end) return &in->at[i];
    return NULL;
}

int modules_has(uintptr_t address) {
    return find(atomic_load(&current), address) != NULL;
}

void modules_locate(note_writer *writer, uintptr_t address) {
    const table *in = atomic_load(&current);
    const module *found = find(in, address);
    if (!found) return;
    note_text(writer, " ");
    note_text(writer, in->names + found->name);
    note_text(writer, "+");
    note_hex(writer, address - found->bias);
}
