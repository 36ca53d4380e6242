/* The vendor's log: one line per event, level first, on stdout (I) or stderr (W, E). */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "sim.h"

/* What a scan of the file for the vendor's version string finds; rkllm_init prints it. */
const char sim_version_line[] = "RKLLM SDK (version: " SIM_VERSION " | sim)";

void sim_log(char level, const char *format, ...) {
    char line[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    FILE *stream = level == 'I' ? stdout : stderr;
    fprintf(stream, "%c rkllm: %s\n", level, line);
    fflush(stream); /* a crash that follows must not swallow it */
}

int sim_log_level(void) {
    const char *level = getenv("RKLLM_LOG_LEVEL");
    return level ? atoi(level) : 0;
}
