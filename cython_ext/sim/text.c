/* Copies of texts, and numbers that mean the same in every locale. */
#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

char *sim_copy(const char *text) { return text ? strdup(text) : NULL; }

bool sim_replace(char **slot, const char *text) {
    char *copy = sim_copy(text);
    if (text && !copy) return false;
    free(*slot);
    *slot = copy;
    return true;
}

double sim_read_number(const char *text, char **rest) {
    locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    double value = c ? strtod_l(text, rest, c) : strtod(text, rest);
    if (c) freelocale(c);
    return value;
}
