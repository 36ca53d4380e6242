/* A runtime that does nothing but write down what it is handed, built per family by test_binding.py.
 *
 * Each call appends a line to the file named by $RECORDER.  A run calls back three times: "a", "b", and FINISH (with
 * the tensor of the mode, if one was asked for).  Status and misbehaviour come from the model path. */
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rkllm_abi.h"

#if RKLLM_FAMILY >= 4
#define CALLBACK_RESULT int
#else
#define CALLBACK_RESULT void
#endif

typedef struct {
    LLMResultCallback callback;
    RKLLMParam param;
    int n_batch;
    volatile int is_aborted;
} Model;

static void note(const char *format, ...) {
    const char *path = getenv("RECORDER");
    FILE *file = path ? fopen(path, "a") : NULL;
    if (file == NULL) return;
    va_list arguments;
    va_start(arguments, format);
    vfprintf(file, format, arguments);
    va_end(arguments);
    fputc('\n', file);
    fclose(file);
}

static const char *text(const char *s) { return s ? s : "NULL"; }
static int fails(const Model *model, const char *what) {
    return strstr(text(model->param.model_path), what) != NULL;
}

#ifdef SAYS
__attribute__((used)) static const char says[] = SAYS;
#endif

#ifdef TALKS
__attribute__((constructor)) static void talk(void) {
    puts("I rkllm: {}");
    fflush(stdout);
}
#endif

#ifdef LONGER
/* As of a release that appended fields: the function returns them, init expects them. */
typedef struct {
    RKLLMParam param;
    uint64_t appended[32];
} LongParam;
enum { APPENDED = 0x5eed };
#endif

static RKLLMParam defaults(void) {
    RKLLMParam param;
    memset(&param, 0, sizeof param);
    param.max_context_len = 512;
    param.max_new_tokens = 512;
    param.top_k = 40;
    param.top_p = 0.9f;
    param.temperature = 0.8f;
    param.repeat_penalty = 1.1f;
    param.mirostat_tau = 5.0f;
    param.mirostat_eta = 0.1f;
#if RKLLM_FAMILY >= 2
    param.extend_param.enabled_cpus_num = 4;
    param.extend_param.enabled_cpus_mask = 0xF0;
#endif
#if RKLLM_FAMILY >= 4
    param.extend_param.n_batch = 1;
#endif
    param.extend_param.reserved[3] = 77; /* must come back untouched */
    return param;
}

#ifdef LONGER
LongParam create_long_param(void) __asm__("rkllm_createDefaultParam");
LongParam create_long_param(void) { return (LongParam){defaults(), {[31] = APPENDED}}; }
#else
RKLLMParam rkllm_createDefaultParam(void) { return defaults(); }
#endif

#if RKLLM_FAMILY >= 5
int rkllm_init(LLMHandle *handle, RKLLMParam *param, RKLLMCallback *callback) {
#else
int rkllm_init(LLMHandle *handle, RKLLMParam *param, LLMResultCallback callback) {
#endif
#ifdef LONGER
    if (((LongParam *)param)->appended[31] != APPENDED) return -77;
#endif
    Model *model = calloc(1, sizeof *model);
    model->param = *param;
    model->n_batch = 1;
    note("init path=%s context=%d tau=%.2f skip=%d reserved=%d domain=%d", text(param->model_path),
         param->max_context_len, param->mirostat_tau, param->skip_special_token, param->extend_param.reserved[3],
         param->extend_param.base_domain_id);
#if RKLLM_FAMILY >= 2
    note("init n_keep=%d cpus=%d mask=%x", param->n_keep, param->extend_param.enabled_cpus_num,
         param->extend_param.enabled_cpus_mask);
#endif
#if RKLLM_FAMILY >= 4
    model->n_batch = param->extend_param.n_batch;
#endif
#if RKLLM_FAMILY >= 5
    model->callback = callback->result_callback;
    note("init ignore_eos=%d", param->ignore_eos_token);
    if (callback->tokenizer_callback != NULL) {
        int32_t ids[4] = {0};
        int n = callback->tokenizer_callback(callback->tokenizer_userdata, "hi there", 2, ids, 4);
        note("tokenizer %d: %d %d", n, ids[0], ids[1]);
    }
    if (callback->embed_callback != NULL) {
        float row[4] = {0};
        int32_t ids[2] = {7, 8};
        int status = callback->embed_callback(callback->embed_userdata, ids, 2, row, sizeof row);
        note("embedder %d: %g %g", status, row[0], row[3]);
    }
#else
    model->callback = callback;
    note("init img=%s %s %s", text(param->img_start), text(param->img_end), text(param->img_content));
#endif
    if (fails(model, "bad-init")) {
        free(model);
        return -1;
    }
    *handle = model;
    return 0;
}

int rkllm_destroy(LLMHandle handle) {
    note("destroy");
    free(handle);
    return 0;
}

static void note_input(const RKLLMInput *input) {
#if RKLLM_FAMILY >= 4
    note("input role=%s thinking=%d", text(input->role), input->enable_thinking);
#endif
    switch (input->input_type) {
    case RKLLM_INPUT_PROMPT:
        note("prompt %s", input->prompt_input);
        break;
    case RKLLM_INPUT_TOKEN:
        note("tokens n=%zu first=%d last=%d", input->token_input.n_tokens, input->token_input.input_ids[0],
             input->token_input.input_ids[input->token_input.n_tokens - 1]);
        break;
    case RKLLM_INPUT_EMBED:
        note("embed n=%zu %g", input->embed_input.n_tokens, input->embed_input.embed[1]);
        break;
    case RKLLM_INPUT_MULTIMODAL:
#if RKLLM_FAMILY >= 5
        if (input->multimodal_input.image.image_embed != NULL)
            note("image %s %g tokens=%zu n=%zu %zux%zu %s %s %s", input->multimodal_input.prompt,
                 input->multimodal_input.image.image_embed[1], input->multimodal_input.image.n_image_tokens,
                 input->multimodal_input.image.n_image, input->multimodal_input.image.image_width,
                 input->multimodal_input.image.image_height, text(input->multimodal_input.image.image_start),
                 text(input->multimodal_input.image.image_end), text(input->multimodal_input.image.image_content));
        if (input->multimodal_input.video.video_embed != NULL)
            note("video %g tokens=%zu frames=%zu n=%zu %zux%zu %s", input->multimodal_input.video.video_embed[1],
                 input->multimodal_input.video.n_frame_tokens, input->multimodal_input.video.n_frame_per_video,
                 input->multimodal_input.video.n_video, input->multimodal_input.video.frame_width,
                 input->multimodal_input.video.frame_height, text(input->multimodal_input.video.video_content));
#else
        note("image %s %g tokens=%zu", input->multimodal_input.prompt, input->multimodal_input.image_embed[1],
             input->multimodal_input.n_image_tokens);
#if RKLLM_FAMILY >= 3
        note("image n=%zu %zux%zu", input->multimodal_input.n_image, input->multimodal_input.image_width,
             input->multimodal_input.image_height);
#endif
#endif
        break;
    }
}

static int deliver(Model *model, void *userdata, LLMCallState state, RKLLMResult *results) {
#if RKLLM_FAMILY >= 4
    int answer = model->callback(results, userdata, state);
    if (answer != 0) note("answer %d", answer);
    return answer;
#else
    model->callback(results, userdata, state);
    return 0;
#endif
}

static int run(Model *model, const RKLLMInput *input, const RKLLMInferParam *infer, void *userdata) {
    static const float tensor[6] = {0, 1, 2, 3, 4, 5};
    RKLLMResult results[100];
    memset(results, 0, sizeof results);
    while (fails(model, "deaf") && !model->is_aborted) usleep(1000); /* an abort that comes too early is lost */
    model->is_aborted = 0;
    for (int i = 0; i < model->n_batch; ++i) note_input(&input[i]);
    note("infer mode=%d lora=%s cache=%s save=%d", infer->mode,
         infer->lora_params ? infer->lora_params->lora_adapter_name : "NULL",
         infer->prompt_cache_params ? infer->prompt_cache_params->prompt_cache_path : "NULL",
         infer->prompt_cache_params ? infer->prompt_cache_params->save_prompt_cache : 0);
#if RKLLM_FAMILY >= 2
    note("infer keep_history=%d", infer->keep_history);
#endif
#if RKLLM_FAMILY >= 5
    note("infer max_new_tokens=%d", infer->max_new_tokens);
    if (infer->sampling_params != NULL)
        note("sampling top_k=%d temperature=%.2f eta=%.2f", infer->sampling_params->top_k,
             infer->sampling_params->temperature, infer->sampling_params->mirostat_eta);
#endif
    if (fails(model, "null-result")) deliver(model, userdata, RKLLM_RUN_ERROR, NULL);
    if (fails(model, "bad-run")) return 3;
    while (fails(model, "until-aborted") && !model->is_aborted) usleep(1000);
    for (int token = 0; token < 2 && !model->is_aborted; ++token) {
        for (int i = 0; i < model->n_batch; ++i) {
            results[i].text = token == 0 ? "a" : "b";
            results[i].token_id = 10 * i + token;
#if RKLLM_FAMILY == 1
            results[i].last_hidden_layer.hidden_states = (const float *)1; /* meaningless in this state */
            results[i].last_hidden_layer.num_tokens = results[i].last_hidden_layer.embd_size = 3;
#endif
        }
        if (deliver(model, userdata, token == 0 ? RKLLM_RUN_WAITING : RKLLM_RUN_NORMAL, results) == 1) return 0;
    }
    memset(results, 0, sizeof results);
    if (infer->mode == RKLLM_INFER_GET_LAST_HIDDEN_LAYER) {
        results[0].last_hidden_layer.hidden_states = tensor;
        results[0].last_hidden_layer.embd_size = 3;
        results[0].last_hidden_layer.num_tokens = 2;
#if RKLLM_FAMILY == 1
        deliver(model, userdata, RKLLM_RUN_GET_LAST_HIDDEN_LAYER, results);
#else
        deliver(model, userdata, RKLLM_RUN_NORMAL, results);
#endif
    }
#if RKLLM_FAMILY >= 2
    if (infer->mode == RKLLM_INFER_GET_LOGITS) {
        results[0].logits.logits = tensor;
        results[0].logits.vocab_size = 6;
        results[0].logits.num_tokens = 1;
        deliver(model, userdata, RKLLM_RUN_NORMAL, results);
    }
#endif
    memset(results, 0, sizeof results);
    for (int i = 0; i < model->n_batch; ++i) {
        results[i].token_id = -1;
#if RKLLM_FAMILY >= 4
        results[i].perf.prefill_time_ms = 1.5f;
        results[i].perf.prefill_tokens = 2;
        results[i].perf.generate_time_ms = 2.5f;
        results[i].perf.generate_tokens = 3;
        results[i].perf.memory_usage_mb = 4.5f;
#endif
    }
    deliver(model, userdata, RKLLM_RUN_FINISH, results);
    return model->is_aborted ? 9 : 0;
}

int rkllm_run(LLMHandle handle, RKLLMInput *input, RKLLMInferParam *infer, void *userdata) {
    return run(handle, input, infer, userdata);
}

typedef struct {
    Model *model;
    RKLLMInput *input;
    RKLLMInferParam *infer;
    void *userdata;
} Job;

static void *work(void *argument) {
    Job *job = argument;
    usleep(20000); /* the caller is gone by now: inputs must still be there */
    run(job->model, job->input, job->infer, job->userdata);
    free(job);
    return NULL;
}

int rkllm_run_async(LLMHandle handle, RKLLMInput *input, RKLLMInferParam *infer, void *userdata) {
    Job *job = malloc(sizeof *job);
    *job = (Job){handle, input, infer, userdata};
    pthread_t thread;
    if (pthread_create(&thread, NULL, work, job) != 0) return -1;
    return pthread_detach(thread);
}

int rkllm_abort(LLMHandle handle) {
    note("abort");
    ((Model *)handle)->is_aborted = 1;
    return fails(handle, "deaf") ? -1 : 0;
}

int rkllm_is_running(LLMHandle handle) {
    (void)handle;
    return 1;
}

int rkllm_load_lora(LLMHandle handle, RKLLMLoraAdapter *adapter) {
    note("lora %s %s %.2f", adapter->lora_adapter_path, adapter->lora_adapter_name, adapter->scale);
    return fails(handle, "bad-lora") ? -5 : 0;
}

int rkllm_load_prompt_cache(LLMHandle handle, const char *path) {
    (void)handle;
    note("cache %s", path);
    return 0;
}

int rkllm_release_prompt_cache(LLMHandle handle) {
    (void)handle;
    note("release");
    return 0;
}

#if RKLLM_FAMILY >= 4
int rkllm_clear_kv_cache(LLMHandle handle, int keep_system_prompt, int *start, int *end) {
    (void)handle;
    note("clear %d %d %d", keep_system_prompt, start ? start[0] : -1, end ? end[0] : -1);
    return 0;
}

int rkllm_get_kv_cache_size(LLMHandle handle, int *sizes) {
    for (int i = 0; i < ((Model *)handle)->n_batch; ++i) sizes[i] = 100 + i;
    return 0;
}

int rkllm_set_function_tools(LLMHandle handle, const char *system, const char *tools, const char *response) {
    (void)handle;
    note("tools %s %s %s", text(system), text(tools), text(response));
    return 0;
}

int rkllm_set_cross_attn_params(LLMHandle handle, RKLLMCrossAttnParam *params) {
    (void)handle;
    note("cross %g %g %g %d %d", params->encoder_k_cache[1], params->encoder_v_cache[1], params->encoder_mask[1],
         params->encoder_pos[1], params->num_tokens);
    return 0;
}
#elif RKLLM_FAMILY >= 2
int rkllm_clear_kv_cache(LLMHandle handle, int keep_system_prompt) {
    (void)handle;
    note("clear %d", keep_system_prompt);
    return 0;
}
#endif

#if RKLLM_FAMILY >= 2
int rkllm_set_chat_template(LLMHandle handle, const char *system, const char *prefix, const char *postfix) {
    (void)handle;
    note("template %s %s %s", text(system), text(prefix), text(postfix));
    return 0;
}
#endif
