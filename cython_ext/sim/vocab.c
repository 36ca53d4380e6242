/* Bytes to tokens and back.
 *
 * A prompt is cut into pieces: letters, digits and bytes of other scripts with at most one space before them, or any
 * other single byte.  A piece that is a word of the vocabulary is one token, every other one a token per byte; so
 * every text can be tokenised, and the tokens of a text give that text again. */
#include <stdlib.h>
#include <string.h>

#include "sim.h"
#include "words.h"

static_assert(SIM_WIDE + SIM_N_WIDE == SIM_PLAIN, "the wide words end where the plain ones begin");
static_assert(SIM_PLAIN + SIM_N_PLAIN == SIM_TEXTS, "the plain words end the texts");

/* First pieces of characters that are split over two tokens; the second is one continuation byte. */
static const char *const heads[SIM_WIDE - SIM_HEAD] = {"\xE4\xBD", "\xE6\x97", "\xE8\xAA", "\xF0\x9F\x98"};

bool sim_push(sim_tokens *list, int32_t id, uint64_t fold) {
    if (list->len == list->cap) {
        size_t cap = list->cap ? 2 * list->cap : 64;
        sim_token *grown = realloc(list->at, cap * sizeof *grown);
        if (!grown) return false;
        list->at = grown;
        list->cap = cap;
    }
    list->at[list->len++] = (sim_token){id, fold};
    return true;
}

bool sim_push_all(sim_tokens *list, const sim_tokens *more) {
    for (size_t i = 0; i < more->len; i++)
        if (!sim_push(list, more->at[i].id, more->at[i].fold)) return false;
    return true;
}

void sim_free_tokens(sim_tokens *list) {
    free(list->at);
    *list = (sim_tokens){0};
}

static const char *word_of(int32_t id) {
    if (id >= SIM_PLAIN) return sim_plain_words[id - SIM_PLAIN];
    if (id >= SIM_WIDE) return sim_wide_words[id - SIM_WIDE];
    return heads[id - SIM_HEAD];
}

size_t sim_token_bytes(int32_t id, char out[SIM_MAX_TEXT]) {
    if (id < SIM_BYTE || id >= SIM_TEXTS) return 0;
    if (id < SIM_HEAD) {
        out[0] = (char)(id - SIM_BYTE);
        return 1;
    }
    size_t len = strlen(word_of(id));
    memcpy(out, word_of(id), len);
    return len;
}

static int32_t find_word(const char *piece, size_t len) {
    for (int32_t id = SIM_WIDE; id < SIM_TEXTS; id++) {
        const char *word = word_of(id);
        if (word[1] == piece[1] && strlen(word) == len && memcmp(word, piece, len) == 0) return id;
    }
    return SIM_UNK;
}

static bool in_word(unsigned char c) {
    return c >= 0x80 || (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

bool sim_tokenise(const char *text, size_t len, sim_tokens *out) {
    for (size_t from = 0, to; from < len; from = to) {
        to = from + (text[from] == ' ');
        while (to < len && in_word((unsigned char)text[to])) to++;
        if (to == from) to = from + 1;
        int32_t word = to - from > 1 ? find_word(text + from, to - from) : SIM_UNK;
        if (word != SIM_UNK) {
            if (!sim_push(out, word, 0)) return false;
            continue;
        }
        for (size_t i = from; i < to; i++)
            if (!sim_push(out, SIM_BYTE + (unsigned char)text[i], 0)) return false;
    }
    return true;
}
