/* From one text, or rows of floats, to tokens: the pieces that an input is made of. */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

bool sim_too_long(const sim_run *run, size_t n) {
    if (n <= (size_t)run->handle->max_context) return false;
    sim_log('E', "the length of prompt is greater than max context: %zu > %lld", n, (long long)run->handle->max_context);
    return true;
}

bool sim_no_memory(void) {
    sim_log('E', "malloc npu memory fail");
    return false;
}

#if SIM_HAS_PER_RUN
/* The program's own tokenizer: (userdata, text, bytes, ids, room) -> how many ids, negative: how many it needs. */
static bool ask_tokenizer(sim_run *run, const char *text, size_t len, sim_tokens *out) {
    const RKLLMCallback *hooks = &run->handle->hooks;
    int32_t room = (int32_t)run->handle->max_context;
    int32_t *ids = malloc((size_t)room * sizeof *ids);
    if (!ids) return sim_no_memory();
    int32_t n = hooks->tokenizer_callback(hooks->tokenizer_userdata, text, (int32_t)len, ids, room);
    bool ok = n >= 0 && n <= room;
    if (!ok) sim_log('E', "the length of prompt is greater than max context, or the tokenizer callback failed: %d", n);
    for (int32_t i = 0; ok && i < n; i++) {
        ok = ids[i] >= 0 && ids[i] < run->handle->model.vocab_size;
        if (!ok) sim_log('E', "invalid token id %d from the tokenizer callback", ids[i]);
        else if (!sim_push(out, ids[i], 0)) ok = sim_no_memory();
    }
    free(ids);
    return ok;
}
#endif

bool sim_read_prompt(sim_run *run, const char *text, sim_tokens *out) {
    size_t len = strlen(text);
#if SIM_HAS_PER_RUN
    if (run->handle->hooks.tokenizer_callback && len) return ask_tokenizer(run, text, len, out);
#endif
    (void)run;
    return sim_tokenise(text, len, out) || sim_no_memory();
}

bool sim_read_rows(sim_run *run, const float *rows, size_t n, sim_tokens *out) {
    size_t width = (size_t)run->handle->model.embedding_size;
    if (sim_too_long(run, n)) return false;
    if (n && !rows) {
        sim_log('E', "embedding is NULL");
        return false;
    }
    for (size_t i = 0; i < n; i++)
        if (!sim_push(out, SIM_UNK, sim_hash_bytes(rows + i * width, width * sizeof *rows, 1))) return sim_no_memory();
    return true;
}
