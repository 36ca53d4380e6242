/* Prompt cache files: the cached positions of a prompt, in a form of our own. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "sim.h"

static const char magic[16] = "rkvisor-simkv-1";

typedef struct {
    char magic[16];
    uint64_t n, n_system;
} header;

typedef struct {
    int64_t id;
    uint64_t fold;
} entry;

static bool write_cache(FILE *stream, const sim_tokens *tokens, size_t n_system) {
    header head = {.n = tokens->len, .n_system = n_system};
    memcpy(head.magic, magic, sizeof magic);
    bool ok = fwrite(&head, sizeof head, 1, stream) == 1;
    for (size_t i = 0; ok && i < tokens->len; i++) {
        entry one = {tokens->at[i].id, tokens->at[i].fold};
        ok = fwrite(&one, sizeof one, 1, stream) == 1;
    }
    return fclose(stream) == 0 && ok;
}

bool sim_save_cache(const char *path, const sim_tokens *tokens, size_t n_system) {
    char partial[PATH_MAX];
    bool fits = snprintf(partial, sizeof partial, "%s.%d.part", path, (int)getpid()) < (int)sizeof partial;
    FILE *stream = fits ? fopen(partial, "wb") : NULL;
    if (stream && write_cache(stream, tokens, n_system) && rename(partial, path) == 0) return true;
    sim_log('E', "failed to save prompt cache %s: %s", path, strerror(errno));
    if (stream) unlink(partial);
    return false;
}

static bool read_entries(FILE *stream, const header *head, const sim_model *model, sim_tokens *tokens) {
    for (uint64_t i = 0; i < head->n; i++) {
        entry one;
        if (fread(&one, sizeof one, 1, stream) != 1 || one.id < 0 || one.id >= model->vocab_size) return false;
        if (!sim_push(tokens, (int32_t)one.id, one.fold)) return false;
    }
    return true;
}

bool sim_read_cache(const char *path, const sim_model *model, sim_tokens *tokens, size_t *n_system) {
    header head;
    FILE *stream = fopen(path, "rb");
    if (!stream) {
        sim_log('E', "failed to open prompt cache %s: %s", path, strerror(errno));
        return false;
    }
    bool ok = fread(&head, sizeof head, 1, stream) == 1 && memcmp(head.magic, magic, sizeof magic) == 0;
    ok = ok && head.n_system <= head.n && read_entries(stream, &head, model, tokens);
    fclose(stream);
    if (ok) *n_system = head.n_system;
    else sim_log('E', "invalid magic characters in prompt cache %s", path);
    return ok;
}
