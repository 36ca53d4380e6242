/* What faults must remember: how often a key has fired, and what the next init or destroy shall do.
 *
 * With RKVISOR_SIM_STATE it lies in files of that directory, under one flock, and so holds for all processes that share
 * it, killed ones included; without, it is the process's own. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sim.h"

enum { ENTRIES = 256, MAX_PATH = 4096 };

static pthread_mutex_t local_lock = PTHREAD_MUTEX_INITIALIZER;
static struct { uint64_t key; int64_t count; } local_counts[ENTRIES];
static char local_armed[AT_PHASES][SIM_FAULTS][SIM_MARKER];

static uint64_t hash_of(const char *text) { return sim_hash_bytes(text, strlen(text), 0); }

/* Returns a descriptor that holds the lock, or -1: no shared directory. */
static int lock_directory(void) {
    const char *directory = getenv("RKVISOR_SIM_STATE");
    if (!directory || !*directory) return -1;
    char path[MAX_PATH];
    if (mkdir(directory, 0700) != 0 && errno != EEXIST) sim_log('W', "cannot make %s: %s", directory, strerror(errno));
    snprintf(path, sizeof path, "%s/lock", directory);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) sim_log('W', "cannot open %s: %s", path, strerror(errno));
    while (fd >= 0 && flock(fd, LOCK_EX) != 0 && errno == EINTR) {
    }
    return fd;
}

static void path_of(char path[MAX_PATH], const char *kind, uint64_t hash) {
    snprintf(path, MAX_PATH, "%s/%s-%016llx", getenv("RKVISOR_SIM_STATE"), kind, (unsigned long long)hash);
}

static bool read_file(const char *path, char *text, size_t room) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, room - 1);
    if (fd >= 0) close(fd);
    text[n > 0 ? n : 0] = 0;
    return n > 0;
}

/* Whole or not at all, under the lock: a process may be killed at any moment, and a count would begin anew. */
static void write_file(const char *path, const char *text) {
    char fresh[MAX_PATH + 4];
    snprintf(fresh, sizeof fresh, "%s.new", path);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool ok = fd >= 0 && write(fd, text, strlen(text)) >= 0;
    if (fd >= 0) close(fd);
    if (!ok || rename(fresh, path) != 0) sim_log('W', "cannot write %s: %s", path, strerror(errno));
}

static bool count_shared(const char *key, int64_t times) {
    char path[MAX_PATH], text[32];
    path_of(path, "times", hash_of(key));
    int64_t count = read_file(path, text, sizeof text) ? strtoll(text, NULL, 10) : 0;
    if (count >= times) return false;
    snprintf(text, sizeof text, "%lld", (long long)count + 1);
    write_file(path, text);
    return true;
}

static bool count_local(const char *key, int64_t times) {
    uint64_t hash = hash_of(key) | 1; /* 0 marks a free entry */
    for (size_t i = 0; i < ENTRIES; i++) {
        if (local_counts[i].key && local_counts[i].key != hash) continue;
        local_counts[i].key = hash;
        return local_counts[i].count < times && ++local_counts[i].count;
    }
    return false;
}

bool sim_count_once(const char *key, int64_t times) {
    if (times < 0) return true;
    pthread_mutex_lock(&local_lock);
    int fd = lock_directory();
    bool fires = fd >= 0 ? count_shared(key, times) : count_local(key, times);
    if (fd >= 0) close(fd);
    pthread_mutex_unlock(&local_lock);
    return fires;
}

/* Shared: one file per armed marker and slot.  Arming the same marker twice before it fires arms it once. */
static void arm_shared(const char *kind, const char *marker) {
    char path[MAX_PATH], text[SIM_MARKER];
    for (uint64_t slot = 0; slot < SIM_FAULTS; slot++) {
        path_of(path, kind, slot);
        if (read_file(path, text, sizeof text) && strcmp(text, marker) != 0) continue;
        write_file(path, marker);
        return;
    }
}

static void arm_local(sim_fault_phase phase, const char *marker) {
    for (size_t slot = 0; slot < SIM_FAULTS; slot++) {
        char *at = local_armed[phase][slot];
        if (*at && strcmp(at, marker) != 0) continue;
        strcpy(at, marker);
        return;
    }
}

void sim_arm(sim_fault_phase phase, const char *marker) {
    pthread_mutex_lock(&local_lock);
    int fd = lock_directory();
    if (fd >= 0) arm_shared(phase == AT_INIT ? "init" : "destroy", marker);
    else arm_local(phase, marker);
    if (fd >= 0) close(fd);
    pthread_mutex_unlock(&local_lock);
}

static bool disarm_shared(const char *kind, char marker[SIM_MARKER]) {
    char path[MAX_PATH];
    for (uint64_t slot = 0; slot < SIM_FAULTS; slot++) {
        path_of(path, kind, slot);
        if (read_file(path, marker, SIM_MARKER)) return unlink(path) == 0;
    }
    return false;
}

static bool disarm_local(sim_fault_phase phase, char marker[SIM_MARKER]) {
    for (size_t slot = 0; slot < SIM_FAULTS; slot++) {
        char *at = local_armed[phase][slot];
        if (!*at) continue;
        strcpy(marker, at);
        *at = 0;
        return true;
    }
    return false;
}

bool sim_disarm(sim_fault_phase phase, char marker[SIM_MARKER]) {
    pthread_mutex_lock(&local_lock);
    int fd = lock_directory();
    bool found = fd >= 0 ? disarm_shared(phase == AT_INIT ? "init" : "destroy", marker) : disarm_local(phase, marker);
    if (fd >= 0) close(fd);
    pthread_mutex_unlock(&local_lock);
    return found;
}
