/* Handles: the live ones, their creation, their end, and who is running. */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static sim_handle *registry;

sim_handle *sim_find(LLMHandle wanted) {
    pthread_mutex_lock(&registry_lock);
    sim_handle *at = registry;
    while (at && at != wanted) at = at->next;
    pthread_mutex_unlock(&registry_lock);
    if (!at) sim_log('E', wanted ? "invalid handle" : "handle is NULL");
    return at;
}

bool sim_given(const void *pointer, const char *name) {
    if (!pointer) sim_log('E', "%s is NULL", name);
    return pointer != NULL;
}

static void enlist(sim_handle *handle) {
    pthread_mutex_lock(&registry_lock);
    handle->next = registry;
    registry = handle;
    pthread_mutex_unlock(&registry_lock);
}

static bool delist(sim_handle *handle) {
    pthread_mutex_lock(&registry_lock);
    sim_handle **at = &registry;
    while (*at && *at != handle) at = &(*at)->next;
    bool found = *at != NULL;
    if (found) *at = handle->next;
    pthread_mutex_unlock(&registry_lock);
    return found;
}

static void dispose(sim_handle *handle) {
    for (size_t i = 0; handle->items && i < handle->n_batch; i++) sim_free_tokens(&handle->items[i].kv);
    while (handle->loras) {
        sim_lora *lora = handle->loras;
        handle->loras = lora->next;
        free(lora->name);
        free(lora);
    }
    while (handle->kept) {
        sim_buffer *buffer = handle->kept;
        handle->kept = buffer->next;
        free(buffer->data);
        free(buffer);
    }
    char *strings[] = {handle->image_start, handle->image_end, handle->system_prompt, handle->prompt_prefix,
                       handle->prompt_postfix, handle->tools, handle->tool_response, handle->resident};
    for (size_t i = 0; i < sizeof strings / sizeof *strings; i++) free(strings[i]);
    sim_free_tokens(&handle->cache);
    free(handle->forced);
    free(handle->items);
    sim_free_model(&handle->model);
    pthread_cond_destroy(&handle->wake);
    pthread_mutex_destroy(&handle->lock);
    free(handle);
}

static void init_locks(sim_handle *handle) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&handle->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&handle->lock, NULL);
}

/* Load the model into the handle: its memory is really touched, its time really spent. */
static bool load(sim_handle *handle, const char *path) {
    int64_t begun = sim_now();
    if (!sim_load_model(path, &handle->model)) return false;
    if (handle->model.init_error) {
        sim_log('E', "%s", handle->model.init_error);
        return false;
    }
    handle->n_resident = (size_t)handle->model.resident_mb << 20;
    if (handle->n_resident && !(handle->resident = malloc(handle->n_resident))) {
        sim_log('E', "malloc npu memory fail, size %zu", handle->n_resident);
        return false;
    }
    if (handle->n_resident) memset(handle->resident, 0x5A, handle->n_resident);
    sim_sleep_until(begun + (int64_t)(handle->model.load_ms * handle->time_scale * 1e6));
    return true;
}

sim_handle *sim_create(const RKLLMParam *param, const char *path) {
    sim_handle *handle = calloc(1, sizeof *handle);
    if (!handle) return NULL;
    init_locks(handle);
    handle->time_scale = sim_time_scale();
    handle->max_context = param->max_context_len;
    handle->max_new_tokens = param->max_new_tokens;
    handle->n_batch = 1;
#if SIM_HAS_ROLES
    if (param->extend_param.n_batch) handle->n_batch = param->extend_param.n_batch;
    handle->cross_attention = param->extend_param.use_cross_attn;
#endif
#if SIM_HAS_PER_RUN
    handle->ignore_eos = param->ignore_eos_token;
    bool ok = true;
#else
    bool ok = sim_replace(&handle->image_start, param->img_start) && sim_replace(&handle->image_end, param->img_end);
#endif
    handle->items = calloc(handle->n_batch, sizeof *handle->items);
    if (!ok || !handle->items || !load(handle, path)) {
        dispose(handle);
        return NULL;
    }
    enlist(handle);
    return handle;
}

/* The vendor's library dies when a handle is destroyed under a run; so does this one, and always. */
static void die_of_destroying_a_running_handle(void) {
    sim_log('E', "rkllm_destroy while a task is running");
    sim_fault fault = {.kind = FAULT_SEGV};
    sim_misbehave(&fault);
}

int sim_destroy(sim_handle *handle) {
    pthread_mutex_lock(&handle->lock);
    bool own = handle->phase != PHASE_IDLE && pthread_equal(handle->runner, pthread_self());
    if (handle->phase == PHASE_RUNNING || own) die_of_destroying_a_running_handle();
    while (handle->phase != PHASE_IDLE) pthread_cond_wait(&handle->wake, &handle->lock);
    bool join = handle->has_thread;
    handle->has_thread = false;
    pthread_mutex_unlock(&handle->lock);
    if (join) pthread_join(handle->thread, NULL);
    int status = sim_armed_faults(AT_DESTROY) == SIM_GO ? 0 : -1;
    if (!delist(handle)) return -1; /* another thread was faster */
    dispose(handle);
    return status;
}

/* Take the handle for the calling thread, as a run or (PHASE_ENDING) for a short call that is none. */
static bool take(sim_handle *handle, sim_phase phase) {
    pthread_mutex_lock(&handle->lock);
    bool own = handle->phase != PHASE_IDLE && pthread_equal(handle->runner, pthread_self());
    while (handle->phase == PHASE_ENDING && !own) pthread_cond_wait(&handle->wake, &handle->lock);
    bool free_now = handle->phase == PHASE_IDLE;
    bool join = free_now && handle->has_thread;
    if (free_now) {
        handle->phase = phase;
        handle->runner = pthread_self();
        handle->aborted = false;
        handle->has_thread = false;
    }
    pthread_mutex_unlock(&handle->lock);
    if (join) pthread_join(handle->thread, NULL);
    if (!free_now) sim_log('E', "a task is already running");
    return free_now;
}

bool sim_begin(sim_handle *handle) { return take(handle, PHASE_RUNNING); }

bool sim_claim(sim_handle *handle) { return take(handle, PHASE_ENDING); }

void sim_adopt(sim_handle *handle) {
    pthread_mutex_lock(&handle->lock);
    handle->runner = pthread_self();
    pthread_mutex_unlock(&handle->lock);
}

/* The last callback comes now: the run no longer counts as running, and destroy waits instead of dying. */
void sim_ending(sim_handle *handle) {
    pthread_mutex_lock(&handle->lock);
    handle->phase = PHASE_ENDING;
    pthread_mutex_unlock(&handle->lock);
}

void sim_end(sim_handle *handle) {
    pthread_mutex_lock(&handle->lock);
    handle->phase = PHASE_IDLE;
    pthread_cond_broadcast(&handle->wake);
    pthread_mutex_unlock(&handle->lock);
}

bool sim_is_own(sim_handle *handle) {
    pthread_mutex_lock(&handle->lock);
    bool own = handle->phase != PHASE_IDLE && pthread_equal(handle->runner, pthread_self());
    pthread_mutex_unlock(&handle->lock);
    return own;
}

bool sim_is_aborted(sim_handle *handle) {
    pthread_mutex_lock(&handle->lock);
    bool aborted = handle->aborted;
    pthread_mutex_unlock(&handle->lock);
    return aborted;
}

void sim_wait_until(sim_handle *handle, int64_t deadline) {
    struct timespec when = {.tv_sec = deadline / 1000000000, .tv_nsec = deadline % 1000000000};
    pthread_mutex_lock(&handle->lock);
    while (!handle->aborted && pthread_cond_timedwait(&handle->wake, &handle->lock, &when) == 0) {
    }
    pthread_mutex_unlock(&handle->lock);
}

void sim_clear_items(sim_handle *handle, bool keep_system) {
    for (size_t i = 0; i < handle->n_batch; i++) {
        sim_item *item = &handle->items[i];
        item->kv.len = keep_system ? item->n_system : 0;
        item->n_system = item->kv.len;
        item->residue = 0;
        item->dirty = false;
    }
    handle->paused = false;
}
