/* Callbacks.  Everything a result points to is valid inside the callback only: afterwards it is overwritten and freed,
 * so that a program that kept a pointer shows it at once. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

enum { SCRIBBLE = 0xFE };

static void scrap(void *data, size_t len) {
    if (!data) return;
    memset(data, SCRIBBLE, len);
    __asm__ volatile("" : : "r"(data) : "memory"); /* the compiler would drop the stores before a free */
    free(data);
}

static int call(const sim_run *run, RKLLMResult *results, int state) {
    LLMResultCallback callback = run->handle->callback;
#if SIM_HAS_ROLES
    int verdict = callback(results, run->userdata, (LLMCallState)state);
    if (verdict >= 0 && verdict <= 2) return verdict;
    sim_log('W', "unknown return value of the callback: %d", verdict);
#else
    callback(results, run->userdata, (LLMCallState)state);
#endif
    return 0;
}

static RKLLMResult *blank_results(const sim_run *run) {
    RKLLMResult *results = calloc(run->handle->n_batch, sizeof *results);
    for (size_t i = 0; results && i < run->handle->n_batch; i++) results[i].token_id = -1;
    return results;
}

int sim_deliver_step(sim_run *run) {
    size_t n = run->handle->n_batch;
    RKLLMResult *results = blank_results(run);
    char *texts = calloc(n, sizeof run->lanes->text);
    int verdict = -1, state = RKLLM_RUN_WAITING;
    for (size_t i = 0; results && texts && i < n; i++) {
        const sim_lane *lane = &run->lanes[i];
        if (lane->now < 0) continue;
        if (!lane->waiting) state = RKLLM_RUN_NORMAL;
        results[i].token_id = lane->now;
        results[i].text = strcpy(texts + i * sizeof lane->text, lane->text);
    }
    if (results && texts) verdict = call(run, results, state);
    scrap(texts, n * sizeof run->lanes->text);
    scrap(results, n * sizeof *results);
    return verdict;
}

#if SIM_HAS_ROLES
/* VmHWM, as the vendor's: the peak of the process's life, not its present use. */
static float peak_mb(const sim_run *run) {
    if (run->handle->model.memory_mb > 0) return (float)run->handle->model.memory_mb;
    FILE *status = fopen("/proc/self/status", "r");
    char line[256];
    long kb = 0;
    while (status && fgets(line, sizeof line, status))
        if (sscanf(line, "VmHWM: %ld", &kb) == 1) break;
    if (status) fclose(status);
    return (float)kb / 1024;
}

static void fill_perf(const sim_run *run, RKLLMPerfStat *perf) {
    int64_t prefilled = run->prefilled ? run->prefilled : sim_now();
    perf->prefill_time_ms = (float)(prefilled - run->begun) / 1e6f;
    perf->prefill_tokens = (int)run->prefill_tokens;
    perf->generate_time_ms = (float)(sim_now() - prefilled) / 1e6f;
    perf->generate_tokens = (int)run->generated;
    perf->memory_usage_mb = peak_mb(run);
}
#endif

void sim_deliver_end(sim_run *run, LLMCallState state) {
    sim_ending(run->handle);
    RKLLMResult *results = blank_results(run);
    if (!results) return;
#if SIM_HAS_ROLES
    for (size_t i = 0; i < run->handle->n_batch; i++) fill_perf(run, &results[i].perf);
#endif
    call(run, results, state);
    scrap(results, run->handle->n_batch * sizeof *results);
}

/* The rows of one item, one per token it brought; NULL with *ok false: no memory. */
static float *make_rows(const sim_run *run, const sim_lane *lane, size_t width, bool *ok) {
    const sim_handle *h = run->handle;
    sim_chain chain = lane->chain; /* as before the first fresh token */
    float *rows = lane->fresh.len ? malloc(lane->fresh.len * width * sizeof *rows) : NULL;
    *ok = rows || !lane->fresh.len;
    for (size_t i = 0; rows && i < lane->fresh.len; i++) {
        sim_chain_add(&chain, lane->fresh.at[i]);
        if (run->mode == RKLLM_INFER_GET_LAST_HIDDEN_LAYER) sim_chain_hidden(&chain, &h->model, rows + i * width);
        else sim_chain_logits(&chain, &h->model, h->ignore_eos, rows + i * width);
    }
    return rows;
}

static void attach(const sim_run *run, const sim_lane *lane, float *rows, RKLLMResult *result) {
#if SIM_HAS_HISTORY
    if (run->mode == RKLLM_INFER_GET_LOGITS) {
        result->logits.logits = rows;
        result->logits.vocab_size = (int)run->handle->model.vocab_size;
        result->logits.num_tokens = (int)lane->fresh.len;
        return;
    }
#endif
    result->last_hidden_layer.hidden_states = rows;
    result->last_hidden_layer.embd_size = (int)run->handle->model.embedding_size;
    result->last_hidden_layer.num_tokens = (int)lane->fresh.len;
}

/* From F5 on the buffer is the library's until the program returns 2: without it memory grows until destroy. */
static void let_go(sim_run *run, float *rows, size_t bytes, int verdict) {
    sim_buffer *kept = SIM_HAS_PER_RUN && verdict != 2 && rows ? malloc(sizeof *kept) : NULL;
    if (!kept) {
        scrap(rows, bytes);
        return;
    }
    memset(rows, SCRIBBLE, bytes);
    *kept = (sim_buffer){run->handle->kept, rows};
    run->handle->kept = kept;
}

bool sim_deliver_tensors(sim_run *run) {
    const sim_handle *h = run->handle;
    bool hidden = run->mode == RKLLM_INFER_GET_LAST_HIDDEN_LAYER, ok = true;
    size_t width = (size_t)(hidden ? h->model.embedding_size : h->model.vocab_size);
    RKLLMResult *results = blank_results(run);
    float **rows = calloc(h->n_batch, sizeof *rows);
    ok = results && rows;
    for (size_t i = 0; ok && i < h->n_batch; i++) {
        rows[i] = make_rows(run, &run->lanes[i], width, &ok);
        results[i].text = "";
        attach(run, &run->lanes[i], rows[i], &results[i]);
    }
#if RKLLM_FAMILY == 1
    int verdict = ok ? call(run, results, RKLLM_RUN_GET_LAST_HIDDEN_LAYER) : 0;
#else
    int verdict = ok ? call(run, results, RKLLM_RUN_NORMAL) : 0;
#endif
    for (size_t i = 0; rows && i < h->n_batch; i++)
        let_go(run, rows[i], run->lanes[i].fresh.len * width * sizeof(float), verdict);
    scrap(results, h->n_batch * sizeof *results);
    free(rows);
    if (!ok) sim_log('E', "malloc npu memory fail");
    return ok;
}
