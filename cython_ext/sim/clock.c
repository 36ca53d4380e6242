/* Time.  Deadlines are absolute, so that many short waits do not drift. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <time.h>

#include "sim.h"

int64_t sim_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void sim_sleep_until(int64_t deadline) {
    struct timespec when = {.tv_sec = deadline / 1000000000, .tv_nsec = deadline % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL) == EINTR) {
    }
}

double sim_time_scale(void) {
    const char *text = getenv("RKVISOR_SIM_TIME_SCALE");
    if (!text || !*text) return 1.0;
    char *end;
    double scale = sim_read_number(text, &end);
    if (*end || !isfinite(scale) || scale < 0) {
        sim_log('W', "RKVISOR_SIM_TIME_SCALE is not a number >= 0: %s", text);
        return 1.0;
    }
    return scale;
}
