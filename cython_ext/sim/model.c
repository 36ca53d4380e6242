/* The simulator's "model": a file of `key = value` lines, a strict subset of TOML.
 *
 * Values are "strings" (escapes \n \t \" \\), integers, floats, true and false.  An unknown key, a value of the wrong
 * type or out of range, and a line that is none of these make the load fail with file and line in the log. */
#include <ctype.h>
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

enum { MAX_FILE = 65536 };
typedef enum { STRING, INTEGER, REAL, BOOLEAN } kind;

typedef struct {
    const char *key;
    kind type;
    size_t offset;
    double low, high;
} field;

#define FIELD(name, type, low, high) {#name, type, offsetof(sim_model, name), low, high}
static const field fields[] = {
    FIELD(name, STRING, 0, 0),
    FIELD(seed, INTEGER, 0, 4294967295.0),
    FIELD(vocab_size, INTEGER, SIM_TEXTS, 1048576),
    FIELD(embedding_size, INTEGER, 1, 65536),
    FIELD(context, INTEGER, 32, 16384),
    FIELD(load_ms, REAL, 0, 1e9),
    FIELD(prefill_ms, REAL, 0, 1e9),
    FIELD(prefill_ms_per_token, REAL, 0, 1e6),
    FIELD(prefill_curve_ms, REAL, 0, 1e9),
    FIELD(prefill_curve_exponent, REAL, 1, 6),
    FIELD(token_ms, REAL, 0, 1e9),
    FIELD(memory_mb, REAL, 0, 1e6),
    FIELD(resident_mb, INTEGER, 0, 65536),
    FIELD(eos_after, INTEGER, 0, 1e9),
    FIELD(tensor_finish, BOOLEAN, 0, 0),
    FIELD(system_prompt, STRING, 0, 0),
    FIELD(prompt_prefix, STRING, 0, 0),
    FIELD(prompt_postfix, STRING, 0, 0),
    FIELD(thinking_prefix, STRING, 0, 0),
    FIELD(init_error, STRING, 0, 0),
};
enum { N_FIELDS = sizeof fields / sizeof *fields };

static char *skip_space(char *at) {
    while (*at == ' ' || *at == '\t' || *at == '\r') at++;
    return at;
}

static bool at_end(char *at) {
    at = skip_space(at);
    return !*at || *at == '#';
}

/* Unescape the string that begins behind `at` in place; returns what follows its closing quote, or NULL. */
static char *take_string(char *at, char **value) {
    char *to = at;
    for (*value = at; *at != '"'; at++) {
        if (!*at) return NULL;
        if (*at != '\\') {
            *to++ = *at;
            continue;
        }
        static const char from[] = "nt\"\\", into[] = "\n\t\"\\";
        const char *escape = *++at ? strchr(from, *at) : NULL;
        if (!escape) return NULL;
        *to++ = into[escape - from];
    }
    char *after = at + 1;
    *to = 0;
    return after;
}

static const char *set_number(const field *f, sim_model *model, char *text, char **rest) {
    errno = 0;
    double value = sim_read_number(text, rest);
    if (*rest == text || errno || !isfinite(value)) return "a number is expected";
    if (f->type == INTEGER && value != floor(value)) return "an integer is expected";
    if (value < f->low || value > f->high) return "the value is out of range";
    if (f->type == INTEGER) *(int64_t *)((char *)model + f->offset) = (int64_t)value;
    else *(double *)((char *)model + f->offset) = value;
    return NULL;
}

static const char *set_field(const field *f, sim_model *model, char *text) {
    char *rest = text, *value;
    const char *problem = NULL;
    if (f->type == STRING) {
        if (*text != '"' || !(rest = take_string(text + 1, &value))) return "a string is expected";
        if (!sim_replace((char **)((char *)model + f->offset), value)) return "out of memory";
    } else if (f->type == BOOLEAN) {
        bool yes = strncmp(text, "true", 4) == 0;
        if (!yes && strncmp(text, "false", 5) != 0) return "true or false is expected";
        *(bool *)((char *)model + f->offset) = yes;
        rest = text + (yes ? 4 : 5);
    } else {
        problem = set_number(f, model, text, &rest);
    }
    return problem ? problem : at_end(rest) ? NULL : "nothing may follow the value";
}

/* Returns NULL or what is wrong with the line. */
static const char *read_line(char *line, sim_model *model, bool seen[N_FIELDS]) {
    if (at_end(line)) return NULL;
    char *key = skip_space(line), *end = key;
    while (isalnum((unsigned char)*end) || *end == '_') end++;
    char *sign = skip_space(end);
    if (end == key || *sign != '=') return "`key = value` is expected";
    *end = 0;
    for (size_t i = 0; i < N_FIELDS; i++) {
        if (strcmp(fields[i].key, key) != 0) continue;
        if (seen[i]) return "the key is there twice";
        seen[i] = true;
        return set_field(&fields[i], model, skip_space(sign + 1));
    }
    return "unknown key";
}

/* `builtin:NAME` lies in ../etc/models beside the folder of this very library. */
static bool resolve(const char *path, char out[PATH_MAX]) {
    static const char prefix[] = "builtin:";
    if (strncmp(path, prefix, sizeof prefix - 1) != 0) return snprintf(out, PATH_MAX, "%s", path) < PATH_MAX;
    const char *name = path + sizeof prefix - 1;
    Dl_info info;
    if (!*name || *name == '.' || strchr(name, '/') || !dladdr((void *)sim_load_model, &info)) return false;
    const char *slash = strrchr(info.dli_fname, '/');
    int folder = slash ? (int)(slash - info.dli_fname) : 1;
    const char *base = slash ? info.dli_fname : ".";
    return snprintf(out, PATH_MAX, "%.*s/../etc/models/%s.toml", folder, base, name) < PATH_MAX;
}

static bool read_text(const char *file, char *text) {
    FILE *stream = fopen(file, "rb");
    if (!stream) {
        sim_log('E', "failed to open model file %s: %s", file, strerror(errno));
        return false;
    }
    size_t len = fread(text, 1, MAX_FILE, stream);
    bool failed = ferror(stream);
    fclose(stream);
    if (failed) {
        sim_log('E', "failed to read model file %s", file);
        return false;
    }
    if (len == MAX_FILE || memchr(text, 0, len)) { /* a real model, or anything else but a small text */
        sim_log('E', "invalid magic characters in model file %s", file);
        return false;
    }
    text[len] = 0;
    return true;
}

static bool read_model(const char *file, char *text, sim_model *model) {
    bool seen[N_FIELDS] = {false};
    int number = 1;
    for (char *line = text, *next; line; line = next, number++) {
        next = strchr(line, '\n');
        if (next) *next++ = 0;
        const char *problem = read_line(line, model, seen);
        if (problem) {
            sim_log('E', "%s:%d: %s: %.60s", file, number, problem, skip_space(line));
            return false;
        }
    }
    return true;
}

bool sim_load_model(const char *path, sim_model *model) {
    *model = (sim_model){.vocab_size = 1024, .embedding_size = 64, .context = 16384, .prefill_curve_exponent = 2,
                         .tensor_finish = true};
    char file[PATH_MAX];
    char *text = malloc(MAX_FILE + 1);
    bool ok = text && resolve(path, file);
    if (!ok) sim_log('E', "failed to open model file %s: no such builtin or a bad name", path);
    ok = ok && read_text(file, text) && read_model(file, text, model);
    if (ok && model->context % 32) {
        sim_log('E', "%s: context must be a multiple of 32", file);
        ok = false;
    }
    free(text);
    if (!ok) sim_free_model(model);
    return ok;
}

void sim_free_model(sim_model *model) {
    for (size_t i = 0; i < N_FIELDS; i++)
        if (fields[i].type == STRING) free(*(char **)((char *)model + fields[i].offset));
    *model = (sim_model){0};
}

double sim_prefill_ms(const sim_model *model, size_t tokens) {
    if (!tokens) return 0;
    double n = (double)tokens;
    return model->prefill_ms + model->prefill_ms_per_token * n +
           model->prefill_curve_ms * pow(n / 1000, model->prefill_curve_exponent);
}
