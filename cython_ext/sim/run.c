/* One run: what it starts from, prefill, tokens, pause, end. */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

/* What the text of a run depends on besides its tokens. */
static bool find_seed(sim_run *run, const RKLLMInferParam *params) {
    const sim_handle *h = run->handle;
    run->seed = sim_mix((uint64_t)h->model.seed, h->cross_fold);
    if (!params->lora_params) return true;
    const char *name = params->lora_params->lora_adapter_name;
    for (const sim_lora *lora = h->loras; name && lora; lora = lora->next) {
        if (strcmp(lora->name, name) != 0) continue;
        run->seed = sim_mix(run->seed, lora->fold);
        return true;
    }
    sim_log('E', "lora adapter %s is not loaded", name ? name : "NULL");
    return false;
}

static bool read_params(sim_run *run, const RKLLMInferParam *params) {
    run->mode = params->mode;
    run->max_new_tokens = run->handle->max_new_tokens;
#if SIM_HAS_HISTORY
    run->keep_history = params->keep_history != 0;
    bool known = (int)run->mode >= 0 && run->mode <= RKLLM_INFER_GET_LOGITS;
#else
    bool known = (int)run->mode >= 0 && run->mode <= RKLLM_INFER_GET_LAST_HIDDEN_LAYER;
#endif
#if SIM_HAS_PER_RUN
    if (params->max_new_tokens > 0) run->max_new_tokens = params->max_new_tokens;
#endif
    if (!known) {
        sim_log('E', "invalid infer mode %d", (int)params->mode);
        return false;
    }
    const RKLLMPromptCacheParam *cache = params->prompt_cache_params;
    if (cache && cache->save_prompt_cache) {
        run->save_path = sim_copy(cache->prompt_cache_path);
        if (!run->save_path) sim_log('E', "prompt_cache_path is NULL");
    }
    return find_seed(run, params) && (run->save_path || !cache || !cache->save_prompt_cache);
}

/* Bring the cache of one item to where this run starts.  Without history the vendor's runtime starts over, but not
 * clean: unless the program clears the cache, what lay in it still shows in the text. */
static bool begin_item(const sim_run *run, sim_item *item) {
    if (run->resumed) return true;
#if !SIM_HAS_HISTORY
    item->kv.len = item->n_system = 0;
    item->dirty = false;
#endif
    if (!run->keep_history && item->dirty) {
        sim_chain chain;
        sim_chain_start(&chain, item->residue);
        sim_chain_add_all(&chain, &item->kv);
        item->residue = chain.hash;
        item->kv.len = item->n_system = 0;
        item->dirty = false;
    }
    if (item->kv.len || !run->handle->cache_loaded) return true;
    item->n_system = run->handle->cache_system;
    return sim_push_all(&item->kv, &run->handle->cache);
}

#if RKLLM_FAMILY == 4
/* Version 1.2.3 dies of this combination. */
static void refuse_logits_with_history(const sim_run *run, const RKLLMInput *input) {
    if (run->mode != RKLLM_INFER_GET_LOGITS || !run->keep_history || input->input_type != RKLLM_INPUT_TOKEN) return;
    sim_fault fault = {.kind = FAULT_ABRT};
    sim_misbehave(&fault);
}
#endif

static bool read_inputs(sim_run *run, const RKLLMInput *input) {
    for (size_t i = 0; i < run->handle->n_batch; i++) {
        sim_item *item = &run->handle->items[i];
#if RKLLM_FAMILY == 4
        refuse_logits_with_history(run, &input[i]);
#endif
        if (!begin_item(run, item) || !sim_read_input(run, &run->lanes[i], item, &input[i])) return false;
        run->prefill_tokens += (int64_t)run->lanes[i].fresh.len;
    }
    for (size_t i = 0; i < run->faults.n; i++) {
        sim_fault_phase phase = run->faults.at[i].phase;
        if (phase == AT_INIT || phase == AT_DESTROY) sim_arm(phase, run->faults.at[i].text);
    }
    return true;
}

sim_run *sim_prepare(sim_handle *handle, const RKLLMInput *input, const RKLLMInferParam *params, void *userdata) {
    sim_run *run = calloc(1, sizeof *run);
    if (!run) return NULL;
    *run = (sim_run){.handle = handle, .userdata = userdata ? userdata : handle->callback_userdata,
                     .forced = handle->forced, .n_forced = handle->n_forced, .resumed = handle->paused};
    handle->forced = NULL;
    handle->n_forced = 0;
    run->lanes = calloc(handle->n_batch, sizeof *run->lanes);
    if (!run->lanes || !read_params(run, params) || !read_inputs(run, input)) {
        sim_free_run(run);
        return NULL;
    }
    if (run->resumed) run->generated = handle->paused_after;
    return run;
}

void sim_free_run(sim_run *run) {
    for (size_t i = 0; run->lanes && i < run->handle->n_batch; i++) sim_free_tokens(&run->lanes[i].fresh);
    free(run->lanes);
    free(run->forced);
    free(run->save_path);
    free(run);
}

static int64_t scaled(const sim_run *run, double ms) { return (int64_t)(ms * run->handle->time_scale * 1e6); }

/* Prefill: not interruptible.  Forced tokens cost what prompt tokens cost.  Faults strike half-way. */
static sim_outcome prefill(sim_run *run) {
    int64_t length = scaled(run, sim_prefill_ms(&run->handle->model, (size_t)run->prefill_tokens + run->n_forced));
    run->begun = sim_now();
    sim_sleep_until(run->begun + length / 2);
    sim_outcome outcome = sim_faults_at(&run->faults, AT_PREFILL, 0);
    if (outcome != SIM_GO) return outcome;
    for (size_t i = 0; i < run->handle->n_batch; i++) {
        sim_item *item = &run->handle->items[i];
        sim_lane *lane = &run->lanes[i];
        if (lane->n_system) item->n_system = item->kv.len + lane->n_system;
        sim_chain_start(&lane->chain, sim_mix(run->seed, item->residue));
        sim_chain_add_all(&lane->chain, &item->kv);
        item->dirty = true;
        if (!sim_push_all(&item->kv, &lane->fresh)) return SIM_FAIL;
    }
    sim_sleep_until(run->begun + length + scaled(run, run->faults.slow_ms));
    run->prefilled = sim_now();
    const sim_item *first = run->handle->items;
    return !run->save_path || sim_save_cache(run->save_path, &first->kv, first->n_system) ? SIM_GO : SIM_FAIL;
}

/* Put a generated token behind the others, and its text where the callback finds it. */
static bool append(sim_run *run, size_t i, int32_t id) {
    sim_lane *lane = &run->lanes[i];
    sim_token token = {id, 0};
    size_t open = lane->chain.n_partial;
    bool raw = run->faults.raw_utf8 && (!open || lane->raw);
    if (!sim_embed(run, &token, 1) || !sim_push(&run->handle->items[i].kv, id, token.fold)) return false;
    size_t kept = raw ? 0 : open;
    memcpy(lane->text, lane->chain.partial, kept);
    size_t len = kept + sim_token_bytes(id, lane->text + kept);
    sim_chain_add(&lane->chain, token);
    lane->waiting = lane->chain.n_partial && !raw;
    lane->raw = lane->chain.n_partial && raw;
    lane->text[lane->waiting ? 0 : len] = 0;
    return true;
}

/* rkvisor_force_tokens: taken as generated, without callbacks. */
static bool take_forced(sim_run *run) {
    for (size_t i = 0; i < run->n_forced; i++) {
        bool full = run->handle->items[0].kv.len >= (size_t)run->handle->max_context;
        if (full || (run->max_new_tokens > 0 && run->generated >= run->max_new_tokens)) return true;
        if (!append(run, 0, run->forced[i])) return false;
        run->generated++;
    }
    return true;
}

/* Choose the next token of every item; false: all are done. */
static bool choose(sim_run *run) {
    const sim_handle *h = run->handle;
    bool any = false;
    if (run->max_new_tokens > 0 && run->generated >= run->max_new_tokens) return false;
    for (size_t i = 0; i < h->n_batch; i++) {
        sim_lane *lane = &run->lanes[i];
        lane->now = -1;
        if (lane->done) continue;
        if (h->items[i].kv.len >= (size_t)h->max_context) {
            sim_log('W', "the context is not enough! %zu of %lld used", h->items[i].kv.len, (long long)h->max_context);
            lane->done = true;
            continue;
        }
        lane->now = sim_chain_next(&lane->chain, &h->model, h->ignore_eos);
        lane->done = lane->now == SIM_EOS;
        if (lane->done) lane->now = -1;
        else any = true;
    }
    return any;
}

typedef enum { STEP_GO, STEP_END, STEP_PAUSE, STEP_FAIL, STEP_FAIL_CALLBACK } step;

static step from_outcome(sim_outcome outcome) {
    return outcome == SIM_GO ? STEP_GO : outcome == SIM_FAIL ? STEP_FAIL : STEP_FAIL_CALLBACK;
}

static step after_callback(sim_run *run, int verdict) {
    if (verdict < 0) return STEP_FAIL;
    if (verdict != 1) return from_outcome(sim_faults_at(&run->faults, AT_CALLBACK, run->generated));
    if (run->keep_history) {
        sim_log('W', "a run with keep_history cannot be paused");
        return STEP_GO;
    }
    return STEP_PAUSE;
}

/* One token of every item.  *due: when it is ready; a slow callback moves it, so that nothing is caught up later. */
static step one_step(sim_run *run, int64_t *due) {
    sim_handle *h = run->handle;
    if (sim_is_aborted(h) || !choose(run)) return STEP_END;
    int64_t period = scaled(run, h->model.token_ms + run->faults.slow_ms), now = sim_now();
    *due = *due + period < now - period ? now + period : *due + period;
    if (*due > now) sim_wait_until(h, *due);
    if (sim_is_aborted(h)) return STEP_END;
    step verdict = from_outcome(sim_faults_at(&run->faults, AT_TOKEN, run->generated));
    if (verdict != STEP_GO) return verdict;
    for (size_t i = 0; i < h->n_batch; i++)
        if (run->lanes[i].now >= 0 && !append(run, i, run->lanes[i].now)) return STEP_FAIL;
    run->generated++;
    return after_callback(run, sim_deliver_step(run));
}

static step generate(sim_run *run) {
    int64_t due = run->prefilled;
    step verdict = STEP_GO;
    for (size_t i = 0; i < run->handle->n_batch; i++) sim_chain_add_all(&run->lanes[i].chain, &run->lanes[i].fresh);
    if (!take_forced(run)) return STEP_FAIL;
    while (verdict == STEP_GO) verdict = one_step(run, &due);
    return verdict;
}

/* Hidden states and logits come in one callback; for faults it counts as that of the first token. */
static step give_tensors(sim_run *run) {
    step verdict = from_outcome(sim_faults_at(&run->faults, AT_TOKEN, 0));
    if (verdict != STEP_GO) return verdict;
    if (!sim_deliver_tensors(run)) return STEP_FAIL;
    verdict = from_outcome(sim_faults_at(&run->faults, AT_CALLBACK, 1));
    if (!run->handle->model.tensor_finish) run->faults.no_finish = true;
    return verdict == STEP_GO ? STEP_END : verdict;
}

static step work(sim_run *run) {
    step verdict = from_outcome(prefill(run));
    if (verdict != STEP_GO) return verdict;
    return run->mode == RKLLM_INFER_GENERATE ? generate(run) : give_tensors(run);
}

int sim_execute(sim_run *run) {
    sim_handle *h = run->handle;
    step verdict = work(run);
    h->paused = verdict == STEP_PAUSE;
    if (h->paused) h->paused_after = run->generated;
    if (verdict == STEP_FAIL) sim_log('E', "rkllm_run failed");
    /* run_async has no status to return, so there every failure calls back. */
    if (verdict == STEP_FAIL_CALLBACK || (verdict == STEP_FAIL && run->is_async)) sim_deliver_end(run, RKLLM_RUN_ERROR);
    if (verdict == STEP_END && !run->faults.no_finish) sim_deliver_end(run, RKLLM_RUN_FINISH);
    int status = verdict == STEP_FAIL || verdict == STEP_FAIL_CALLBACK ? -1 : 0;
    sim_free_run(run);
    sim_end(h);
    return status;
}
