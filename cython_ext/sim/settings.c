/* The exported functions that change what later runs start from: adapters, caches, templates, tools, encoders. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim.h"

static bool add_lora(sim_handle *h, const RKLLMLoraAdapter *adapter) {
    sim_lora *lora = calloc(1, sizeof *lora);
    if (!lora || !(lora->name = sim_copy(adapter->lora_adapter_name))) {
        free(lora);
        return false;
    }
    lora->fold = sim_hash_bytes(&adapter->scale, sizeof adapter->scale, sim_hash_bytes(lora->name, strlen(lora->name), 3));
    lora->next = h->loras; /* a later one of the same name wins */
    h->loras = lora;
    return true;
}

SIM_API int rkllm_load_lora(LLMHandle handle, RKLLMLoraAdapter *lora_adapter) {
    sim_handle *h = sim_find(handle);
    if (!h || !sim_given(lora_adapter, "lora_adapter") || !sim_given(lora_adapter->lora_adapter_path, "lora_adapter_path") ||
        !sim_given(lora_adapter->lora_adapter_name, "lora_adapter_name"))
        return -1;
    if (access(lora_adapter->lora_adapter_path, R_OK) != 0) {
        sim_log('E', "failed to open lora %s: %s", lora_adapter->lora_adapter_path, strerror(errno));
        return -1;
    }
    if (!sim_claim(h)) return -1;
    bool ok = add_lora(h, lora_adapter);
    sim_end(h);
    return ok ? 0 : -1;
}

static bool load_cache(sim_handle *h, const char *path) {
    if (h->cache_loaded) {
        sim_log('E', "a prompt cache is loaded already: release it first");
        return false;
    }
    if (!sim_read_cache(path, &h->model, &h->cache, &h->cache_system)) {
        sim_free_tokens(&h->cache);
        return false;
    }
    h->cache_loaded = true;
    sim_clear_items(h, false);
    bool ok = true;
    for (size_t i = 0; i < h->n_batch; i++) {
        h->items[i].n_system = h->cache_system;
        ok = ok && sim_push_all(&h->items[i].kv, &h->cache);
    }
    return ok;
}

SIM_API int rkllm_load_prompt_cache(LLMHandle handle, const char *prompt_cache_path) {
    sim_handle *h = sim_find(handle);
    if (!h || !sim_given(prompt_cache_path, "prompt_cache_path") || !sim_claim(h)) return -1;
    bool ok = load_cache(h, prompt_cache_path);
    sim_end(h);
    return ok ? 0 : -1;
}

SIM_API int rkllm_release_prompt_cache(LLMHandle handle) {
    sim_handle *h = sim_find(handle);
    if (!h || !sim_claim(h)) return -1;
    bool ok = h->cache_loaded;
    if (ok) sim_clear_items(h, false);
    else sim_log('W', "no prompt cache is loaded");
    sim_free_tokens(&h->cache);
    h->cache_loaded = false;
    h->cache_system = 0;
    sim_end(h);
    return ok ? 0 : -1;
}

#if SIM_HAS_HISTORY
SIM_API int rkllm_set_chat_template(LLMHandle handle, const char *system_prompt, const char *prompt_prefix,
                                    const char *prompt_postfix) {
    sim_handle *h = sim_find(handle);
    if (!h || !sim_given(system_prompt, "system_prompt") || !sim_given(prompt_prefix, "prompt_prefix") ||
        !sim_given(prompt_postfix, "prompt_postfix") || !sim_claim(h))
        return -1;
    sim_faults faults = {0};
    char *system = sim_take_markers(system_prompt, &faults);
    bool ok = system && sim_faults_at(&faults, AT_CALL, INT64_MAX) == SIM_GO;
    if (faults.slow_ms > 0) sim_sleep_until(sim_now() + (int64_t)(faults.slow_ms * sim_time_scale() * 1e6));
    ok = ok && sim_replace(&h->system_prompt, system) && sim_replace(&h->prompt_prefix, prompt_prefix) &&
         sim_replace(&h->prompt_postfix, prompt_postfix);
    free(system);
    h->template_set = ok;
    sim_log('W', "the chat template of the model and enable_thinking are switched off");
    sim_end(h);
    return ok ? 0 : -1;
}
#endif

#if SIM_HAS_ROLES
/* Drop [start, end) of every item's cache; nothing is changed when one of the ranges is bad. */
static bool clear_ranges(sim_handle *h, const int *start, const int *end) {
    if (!start || !end || !h->paused) {
        sim_log('E', "start_pos and end_pos go together, and only while a run is paused");
        return false;
    }
    for (size_t i = 0; i < h->n_batch; i++) {
        if (start[i] >= 0 && start[i] <= end[i] && (size_t)end[i] <= h->items[i].kv.len) continue;
        sim_log('E', "invalid range [%d, %d) of %zu cached", start[i], end[i], h->items[i].kv.len);
        return false;
    }
    for (size_t i = 0; i < h->n_batch; i++) {
        sim_tokens *kv = &h->items[i].kv;
        size_t rest = kv->len - (size_t)end[i];
        if (rest) memmove(kv->at + start[i], kv->at + end[i], rest * sizeof *kv->at);
        kv->len = (size_t)start[i] + rest;
        if (h->items[i].n_system > (size_t)start[i]) h->items[i].n_system = (size_t)start[i];
    }
    return true;
}

SIM_API int rkllm_clear_kv_cache(LLMHandle handle, int keep_system_prompt, int *start_pos, int *end_pos) {
    sim_handle *h = sim_find(handle);
    if (!h || !sim_claim(h)) return -1;
    bool ok = true;
    if (start_pos || end_pos) ok = clear_ranges(h, start_pos, end_pos);
    else sim_clear_items(h, keep_system_prompt != 0);
    sim_end(h);
    return ok ? 0 : -1;
}

SIM_API int rkllm_get_kv_cache_size(LLMHandle handle, int *cache_sizes) {
    sim_handle *h = sim_find(handle);
    if (!h || !sim_given(cache_sizes, "cache_sizes")) return -1;
    bool inside = sim_is_own(h); /* a callback may ask about its own run */
    if (!inside && !sim_claim(h)) return -1;
    for (size_t i = 0; i < h->n_batch; i++) cache_sizes[i] = (int)h->items[i].kv.len;
    if (!inside) sim_end(h);
    return 0;
}

SIM_API int rkllm_set_function_tools(LLMHandle handle, const char *system_prompt, const char *tools,
                                     const char *tool_response_str) {
    sim_handle *h = sim_find(handle);
    if (!h || !sim_given(system_prompt, "system_prompt") || !sim_given(tools, "tools") ||
        !sim_given(tool_response_str, "tool_response_str") || !sim_claim(h))
        return -1;
    bool ok = sim_replace(&h->system_prompt, system_prompt) && sim_replace(&h->tools, tools) &&
              sim_replace(&h->tool_response, tool_response_str);
    h->tools_set = ok;
    sim_end(h);
    return ok ? 0 : -1;
}

/* How wide a position of the encoder's caches is, only a real model knows: the first num_tokens numbers of each count. */
SIM_API int rkllm_set_cross_attn_params(LLMHandle handle, RKLLMCrossAttnParam *cross_attn_params) {
    sim_handle *h = sim_find(handle);
    const RKLLMCrossAttnParam *in = cross_attn_params;
    if (!h || !sim_given(in, "cross_attn_params") || !sim_given(in->encoder_k_cache, "encoder_k_cache") ||
        !sim_given(in->encoder_v_cache, "encoder_v_cache") || !sim_given(in->encoder_mask, "encoder_mask") ||
        !sim_given(in->encoder_pos, "encoder_pos"))
        return -1;
    if (in->num_tokens <= 0) {
        sim_log('E', "num_tokens[%d] must be greater than 0", in->num_tokens);
        return -1;
    }
    if (!sim_claim(h)) return -1;
    if (!h->cross_attention) sim_log('W', "use_cross_attn is off");
    size_t n = (size_t)in->num_tokens;
    uint64_t fold = sim_hash_bytes(in->encoder_k_cache, n * sizeof(float), 5);
    fold = sim_hash_bytes(in->encoder_v_cache, n * sizeof(float), fold);
    fold = sim_hash_bytes(in->encoder_mask, n * sizeof(float), fold);
    h->cross_fold = sim_hash_bytes(in->encoder_pos, n * sizeof(int32_t), fold);
    sim_end(h);
    return 0;
}
#elif SIM_HAS_HISTORY
SIM_API int rkllm_clear_kv_cache(LLMHandle handle, int keep_system_prompt) {
    sim_handle *h = sim_find(handle);
    if (!h || !sim_claim(h)) return -1;
    sim_clear_items(h, keep_system_prompt != 0);
    sim_end(h);
    return 0;
}
#endif
