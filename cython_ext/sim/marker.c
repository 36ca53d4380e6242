/* Fault markers: [[sim:KIND at=PHASE after=N times=M key=K bytes=B ms=T where=W]] in a prompt; those at=call in the
 * system prompt of rkllm_set_chat_template. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

static const char *const kinds[FAULT_KINDS] = {"segv",  "abrt",  "fpe",   "bus",      "ill",  "stack", "exit",   "hang",
                                               "slow",  "error", "errcb", "nofinish", "utf8", "leak",  "fdleak", "oom"};
static const char *const phases[AT_PHASES] = {"init", "prefill", "token", "callback", "destroy", "call"};
static const char *const wheres[WHERE_KINDS] = {"heap", "mmap", "shmem", "memfd"};

static int find(const char *const *names, int n, const char *name) {
    for (int i = 0; i < n; i++)
        if (strcmp(names[i], name) == 0) return i;
    return -1;
}

static bool read_count(const char *text, int64_t *value) {
    char *end;
    errno = 0;
    *value = strtoll(text, &end, 10);
    return *text >= '0' && *text <= '9' && !*end && !errno && *value <= (int64_t)1 << 40;
}

static bool set_option(sim_fault *fault, const char *name, const char *value) {
    if (strcmp(name, "after") == 0) return read_count(value, &fault->after);
    if (strcmp(name, "times") == 0) return read_count(value, &fault->times);
    if (strcmp(name, "bytes") == 0) return read_count(value, &fault->bytes);
    if (strcmp(name, "ms") == 0) return read_count(value, &fault->ms);
    if (strcmp(name, "key") == 0) return *value && strcpy(fault->key, value);
    int found = -1;
    if (strcmp(name, "at") == 0 && (found = find(phases, AT_PHASES, value)) >= 0) fault->phase = (sim_fault_phase)found;
    if (strcmp(name, "where") == 0 && (found = find(wheres, WHERE_KINDS, value)) >= 0) fault->where = (sim_fault_where)found;
    return found >= 0;
}

/* Only what kills, hangs, fails, delays or leaks means something where no token is generated. */
static bool makes_sense(const sim_fault *fault) {
    bool idle = fault->phase == AT_INIT || fault->phase == AT_DESTROY || fault->phase == AT_CALL;
    return !idle || (fault->kind != FAULT_NOFINISH && fault->kind != FAULT_UTF8);
}

bool sim_parse_marker(const char *text, size_t len, sim_fault *fault) {
    char words[SIM_MARKER], *rest = words;
    *fault = (sim_fault){.phase = AT_TOKEN, .times = -1, .bytes = -1, .ms = 100};
    if (len >= sizeof words) return false;
    memcpy(fault->text, text, len);
    memcpy(fault->key, text, len);
    memcpy(words, text + 6, len - 8); /* between "[[sim:" and "]]" */
    words[len - 8] = 0;
    char *word = strtok_r(rest, " ", &rest);
    int kind = word ? find(kinds, FAULT_KINDS, word) : -1;
    if (kind < 0) return false;
    fault->kind = (sim_fault_kind)kind;
    while ((word = strtok_r(NULL, " ", &rest))) {
        char *value = strchr(word, '=');
        if (!value) return false;
        *value++ = 0;
        if (!set_option(fault, word, value)) return false;
    }
    return makes_sense(fault);
}

bool sim_faults_enabled(void) {
    const char *value = getenv("RKVISOR_SIM_FAULTS");
    return value && strcmp(value, "1") == 0;
}

static void take_marker(const char *text, size_t len, sim_faults *faults) {
    sim_fault fault;
    if (!sim_parse_marker(text, len, &fault)) sim_log('W', "malformed fault marker: %.*s", (int)len, text);
    else if (faults->n == SIM_FAULTS) sim_log('W', "too many fault markers: %.*s", (int)len, text);
    else faults->at[faults->n++] = fault;
}

char *sim_take_markers(const char *prompt, sim_faults *faults) {
    char *copy = sim_copy(prompt);
    if (!copy || !sim_faults_enabled()) return copy;
    for (char *at = copy, *end; (at = strstr(at, "[[sim:"));) {
        end = strstr(at, "]]");
        if (!end) {
            sim_log('W', "malformed fault marker: it has no end");
            break;
        }
        end += 2;
        take_marker(at, (size_t)(end - at), faults);
        memmove(at, end, strlen(end) + 1);
    }
    return copy;
}
