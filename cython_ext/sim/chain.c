/* What follows from a list of tokens: the next one, hidden states, logits.
 *
 * A 64-bit hash chain over all positions; each answer is drawn from its current value.  Nothing else goes in, so a
 * run that is cut anywhere and fed the same tokens again goes on as if it had not been cut. */
#include <string.h>

#include "sim.h"

uint64_t sim_mix(uint64_t a, uint64_t b) { /* the finaliser of splitmix64 */
    uint64_t x = a + 0x9E3779B97F4A7C15u * (b + 1);
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

uint64_t sim_hash_bytes(const void *data, size_t len, uint64_t seed) { /* FNV-1a, mixed */
    const unsigned char *bytes = data;
    uint64_t hash = 0xCBF29CE484222325u ^ seed;
    for (size_t i = 0; i < len; i++) hash = (hash ^ bytes[i]) * 0x100000001B3u;
    return sim_mix(hash, len);
}

void sim_chain_start(sim_chain *chain, uint64_t seed) {
    *chain = (sim_chain){.hash = sim_mix(seed, 0)};
}

/* How many bytes the UTF-8 character that begins with this byte has; 1 for what begins none. */
static size_t width_of(unsigned char lead) {
    return lead >= 0xF5 || lead < 0xC2 ? 1 : lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
}

static void follow_byte(sim_chain *chain, unsigned char byte) {
    bool continues = chain->n_partial && (byte & 0xC0) == 0x80;
    if (!continues) chain->n_partial = 0;
    if (!continues && width_of(byte) == 1) return;
    chain->partial[chain->n_partial++] = byte;
    if (chain->n_partial == width_of(chain->partial[0])) chain->n_partial = 0;
}

void sim_chain_add(sim_chain *chain, sim_token token) {
    char text[SIM_MAX_TEXT];
    size_t len = sim_token_bytes(token.id, text);
    chain->hash = sim_mix(chain->hash ^ token.fold, (uint64_t)token.id);
    if (len == 0) chain->n_partial = 0;
    for (size_t i = 0; i < len; i++) follow_byte(chain, (unsigned char)text[i]);
}

void sim_chain_add_all(sim_chain *chain, const sim_tokens *tokens) {
    for (size_t i = 0; i < tokens->len; i++) sim_chain_add(chain, tokens->at[i]);
}

/* A continuation byte that keeps the open character valid. */
static int32_t next_byte(const sim_chain *chain, uint64_t draw) {
    unsigned char lead = chain->partial[0];
    bool low = chain->n_partial == 1 && (lead == 0xED || lead == 0xF4);
    return SIM_BYTE + (low ? 0x80 : 0xA0) + (int32_t)(draw % 16);
}

static int32_t next_head(uint64_t draw) {
    static const int32_t bytes[] = {SIM_BYTE + 0xC3, SIM_BYTE + 0xC4};
    size_t pick = draw % 6;
    return pick < 2 ? bytes[pick] : SIM_HEAD + (int32_t)pick - 2;
}

int32_t sim_chain_next(const sim_chain *chain, const sim_model *model, bool ignore_eos) {
    static const char marks[] = {'.', ',', '.', ',', '!', '?', ';', '\n'};
    uint64_t kind = sim_mix(chain->hash, 1), draw = sim_mix(chain->hash, 2);
    if (chain->n_partial) return next_byte(chain, draw);
    if (model->eos_after && !ignore_eos && sim_mix(chain->hash, 3) % (uint64_t)model->eos_after == 0) return SIM_EOS;
    switch (kind % 16) {
    case 0: return next_head(draw);
    case 1:
    case 2: return SIM_WIDE + (int32_t)(draw % (SIM_PLAIN - SIM_WIDE));
    case 3: return SIM_BYTE + marks[draw % sizeof marks];
    default: return SIM_PLAIN + (int32_t)(draw % (SIM_TEXTS - SIM_PLAIN));
    }
}

static float unit(uint64_t draw) { return (float)(draw >> 40) / (float)(1 << 24); } /* [0, 1) */

void sim_chain_hidden(const sim_chain *chain, const sim_model *model, float *row) {
    for (int64_t i = 0; i < model->embedding_size; i++) row[i] = 2 * unit(sim_mix(chain->hash ^ 4, (uint64_t)i)) - 1;
}

void sim_chain_logits(const sim_chain *chain, const sim_model *model, bool ignore_eos, float *row) {
    for (int64_t i = 0; i < model->vocab_size; i++) row[i] = unit(sim_mix(chain->hash ^ 5, (uint64_t)i));
    row[sim_chain_next(chain, model, ignore_eos)] = 10;
}
