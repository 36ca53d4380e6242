/* The exported functions: NULL and range checks, then the other files. */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

extern const char sim_version_line[];

SIM_API RKLLMParam rkllm_createDefaultParam(void) {
    RKLLMParam param;
    memset(&param, 0, sizeof param); /* padding too: programs count the bytes that are written */
    param.max_context_len = 512;
    param.max_new_tokens = 512;
    param.top_k = 40;
    param.top_p = 0.9f;
    param.temperature = 0.8f;
    param.repeat_penalty = 1.1f;
    param.mirostat_tau = 5.0f;
    param.mirostat_eta = 0.1f;
#if SIM_HAS_HISTORY
    param.extend_param.enabled_cpus_num = 4;
    param.extend_param.enabled_cpus_mask = 0xF0; /* the four big cores of an RK3588 */
#endif
#if SIM_HAS_ROLES
    param.extend_param.n_batch = 1;
#endif
    return param;
}

static bool check_param(const RKLLMParam *param) {
    int context = param->max_context_len, domain = param->extend_param.base_domain_id;
    if (!sim_given(param->model_path, "model_path")) return false;
    if (context > 16384) sim_log('E', "max_context[%d] must be less than 16384", context);
    else if (context <= 0 || context % 32) sim_log('E', "max_context[%d] must be a multiple of 32", context);
    else if (domain < 0 || domain > 15) sim_log('E', "base_domain_id[%d] must be from 0 to 15", domain);
#if SIM_HAS_HISTORY
    else if (param->n_keep >= context) sim_log('E', "The n_keep must be less than max_context: %d", param->n_keep);
    else if (param->extend_param.enabled_cpus_num != __builtin_popcount(param->extend_param.enabled_cpus_mask))
        sim_log('E', "Mismatch between enabled CPUs mask 0x%x and enabled CPUs num %d",
                param->extend_param.enabled_cpus_mask, param->extend_param.enabled_cpus_num);
#endif
#if SIM_HAS_ROLES
    else if (param->extend_param.n_batch > 100) sim_log('E', "n_batch[%d] must be from 1 to 100", param->extend_param.n_batch);
#endif
    else return true;
    return false;
}

static int finish_init(LLMHandle *out, sim_handle *handle) {
    if (handle->max_context > handle->model.context) {
        sim_log('E', "max_context[%lld] must be less than the model's limit %lld", (long long)handle->max_context,
                (long long)handle->model.context);
        sim_destroy(handle);
        return -1;
    }
    *out = handle;
    sim_log('I', "%s, model %s, context %lld", sim_version_line, handle->model.name ? handle->model.name : "without a name",
            (long long)handle->max_context);
    return 0;
}

#if SIM_HAS_PER_RUN
SIM_API int rkllm_init(LLMHandle *handle, RKLLMParam *param, RKLLMCallback *callback) {
    if (!sim_given(handle, "handle") || !sim_given(param, "param") || !sim_given(callback, "callback")) return -1;
    if (!sim_given((void *)callback->result_callback, "result_callback") || !check_param(param)) return -1;
#else
SIM_API int rkllm_init(LLMHandle *handle, RKLLMParam *param, LLMResultCallback callback) {
    if (!sim_given(handle, "handle") || !sim_given(param, "param") || !sim_given((void *)callback, "callback")) return -1;
    if (!check_param(param)) return -1;
#endif
    sim_log('I', "loading rkllm model from %s", param->model_path);
    if (sim_armed_faults(AT_INIT) != SIM_GO) return -1;
    sim_handle *made = sim_create(param, param->model_path);
    if (!made) return -1;
#if SIM_HAS_PER_RUN
    made->hooks = *callback;
    made->callback = callback->result_callback;
    made->callback_userdata = callback->result_userdata;
#else
    made->callback = callback;
#endif
    return finish_init(handle, made);
}

SIM_API int rkllm_destroy(LLMHandle handle) {
    sim_handle *h = sim_find(handle);
    return h ? sim_destroy(h) : -1;
}

static sim_run *start(LLMHandle handle, RKLLMInput *input, RKLLMInferParam *params, void *userdata) {
    sim_handle *h = sim_find(handle);
    if (!h || !sim_given(input, "rkllm_input") || !sim_given(params, "rkllm_infer_params") || !sim_begin(h)) return NULL;
    sim_run *run = sim_prepare(h, input, params, userdata);
    if (!run) sim_end(h);
    return run;
}

SIM_API int rkllm_run(LLMHandle handle, RKLLMInput *rkllm_input, RKLLMInferParam *rkllm_infer_params, void *userdata) {
    sim_run *run = start(handle, rkllm_input, rkllm_infer_params, userdata);
    return run ? sim_execute(run) : -1;
}

static void *run_apart(void *argument) {
    sim_run *run = argument;
    sim_adopt(run->handle);
    sim_execute(run);
    return NULL;
}

SIM_API int rkllm_run_async(LLMHandle handle, RKLLMInput *rkllm_input, RKLLMInferParam *rkllm_infer_params, void *userdata) {
    sim_run *run = start(handle, rkllm_input, rkllm_infer_params, userdata);
    if (!run) return -1;
    sim_handle *h = run->handle;
    run->is_async = true;
    pthread_t thread;
    pthread_mutex_lock(&h->lock); /* so that has_thread is seen before the run can end */
    bool started = pthread_create(&thread, NULL, run_apart, run) == 0;
    h->thread = thread;
    h->has_thread = started;
    pthread_mutex_unlock(&h->lock);
    if (started) return 0;
    sim_log('E', "failed to start a thread");
    sim_free_run(run);
    sim_end(h);
    return -1;
}

SIM_API int rkllm_abort(LLMHandle handle) {
    sim_handle *h = sim_find(handle);
    if (!h) return -1;
    pthread_mutex_lock(&h->lock);
    bool running = h->phase == PHASE_RUNNING, idle = h->phase == PHASE_IDLE;
    if (running) h->aborted = true;
    pthread_cond_broadcast(&h->wake);
    pthread_mutex_unlock(&h->lock);
    if (running) return 0;
    bool was_paused = false;
    if (idle && sim_claim(h)) {
        was_paused = h->paused;
        h->paused = false;
        sim_end(h);
    }
    if (!was_paused) sim_log('W', "rkllm_abort: no task is running");
    return was_paused ? 0 : -1;
}

SIM_API int rkllm_is_running(LLMHandle handle) {
    sim_handle *h = sim_find(handle);
    if (!h) return -1;
    pthread_mutex_lock(&h->lock);
    bool running = h->phase == PHASE_RUNNING;
    pthread_mutex_unlock(&h->lock);
    return SIM_HAS_PER_RUN ? running : !running; /* 1.3.0 turned the meaning round */
}

SIM_API int rkvisor_force_tokens(LLMHandle handle, const int32_t *ids, size_t n) {
    sim_handle *h = sim_find(handle);
    if (!h || (n && !sim_given(ids, "ids")) || !sim_claim(h)) return -1;
    bool ok = n <= (size_t)h->max_context && (h->n_batch == 1 || n == 0);
    for (size_t i = 0; ok && i < n; i++) ok = ids[i] >= 0 && ids[i] < h->model.vocab_size;
    int32_t *copy = ok && n ? malloc(n * sizeof *copy) : NULL;
    ok = ok && (copy || !n);
    if (copy) memcpy(copy, ids, n * sizeof *copy);
    if (ok) {
        free(h->forced);
        h->forced = copy;
        h->n_forced = n;
    } else {
        sim_log('E', "rkvisor_force_tokens: %zu ids cannot be forced", n);
    }
    sim_end(h);
    return ok ? 0 : -1;
}
