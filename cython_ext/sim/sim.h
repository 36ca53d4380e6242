/* The RKLLM simulator from inside: its data and what each file offers the others.
 *
 *   api.c      exported: life and runs      settings.c exported: what later runs start from
 *   handle.c   handles and who runs         run.c      one run: prefill, tokens, pause
 *   prompt.c   input -> tokens              read.c     one text, or rows, -> tokens
 *   media.c    images and videos -> tokens  text.c     copies of texts, numbers
 *   deliver.c  callbacks, their buffers     cache.c    prompt cache files
 *   model.c    the TOML "model"             vocab.c    bytes <-> tokens
 *   chain.c    tokens -> next token, hidden states, logits
 *   marker.c   [[sim:...]] in prompts       fault.c    when faults fire
 *   misdeed.c  what faults do               state.c    counts shared by processes
 *   clock.c    time                         log.c      the vendor's log lines
 */
#ifndef RKVISOR_SIM_H
#define RKVISOR_SIM_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "family.h"

/* ---- log.c: lines "I|W|E rkllm: ..."; I to stdout, the others to stderr, as the vendor's ---- */
void sim_log(char level, const char *format, ...) __attribute__((format(printf, 2, 3)));
int sim_log_level(void); /* RKLLM_LOG_LEVEL, 0 when unset; from 2 on prompts are printed */

/* ---- clock.c: CLOCK_MONOTONIC in nanoseconds ---- */
int64_t sim_now(void);
void sim_sleep_until(int64_t deadline);
double sim_time_scale(void); /* RKVISOR_SIM_TIME_SCALE, 1 when unset */

/* ---- vocab.c ---- */
enum { SIM_UNK = 0, SIM_BOS = 1, SIM_EOS = 2, SIM_BYTE = 3, SIM_HEAD = 259, SIM_WIDE = 263, SIM_PLAIN = 311, SIM_TEXTS = 512 };
enum { SIM_MAX_TEXT = 32 };

typedef struct {
    int32_t id;
    uint64_t fold; /* what else the position stands for: a hash of an embedding row; 0 for plain tokens */
} sim_token;

typedef struct {
    sim_token *at;
    size_t len, cap;
} sim_tokens;

bool sim_push(sim_tokens *list, int32_t id, uint64_t fold); /* false: out of memory */
bool sim_push_all(sim_tokens *list, const sim_tokens *more);
void sim_free_tokens(sim_tokens *list);
bool sim_tokenise(const char *text, size_t len, sim_tokens *out);
size_t sim_token_bytes(int32_t id, char out[SIM_MAX_TEXT]); /* its length; 0 for special and unused ids */

/* ---- text.c ---- */
char *sim_copy(const char *text); /* NULL for NULL */
bool sim_replace(char **slot, const char *text);
double sim_read_number(const char *text, char **rest); /* as strtod, with a decimal point in every locale */

/* ---- model.c ---- */
typedef struct {
    char *name, *system_prompt, *prompt_prefix, *prompt_postfix, *thinking_prefix, *init_error;
    int64_t seed, vocab_size, embedding_size, context, resident_mb, eos_after;
    double load_ms, prefill_ms, prefill_ms_per_token, prefill_curve_ms, prefill_curve_exponent, token_ms, memory_mb;
    bool tensor_finish;
} sim_model;

bool sim_load_model(const char *path, sim_model *model); /* logs its reason when false */
void sim_free_model(sim_model *model);
double sim_prefill_ms(const sim_model *model, size_t tokens);

/* ---- chain.c: everything the simulator "thinks" is a function of this state ---- */
typedef struct {
    uint64_t hash;
    unsigned char partial[4]; /* the bytes of a character that is not complete yet */
    size_t n_partial;
} sim_chain;

uint64_t sim_mix(uint64_t a, uint64_t b);
uint64_t sim_hash_bytes(const void *data, size_t len, uint64_t seed);
void sim_chain_start(sim_chain *chain, uint64_t seed);
void sim_chain_add(sim_chain *chain, sim_token token);
void sim_chain_add_all(sim_chain *chain, const sim_tokens *tokens);
int32_t sim_chain_next(const sim_chain *chain, const sim_model *model, bool ignore_eos);
void sim_chain_hidden(const sim_chain *chain, const sim_model *model, float *row);
void sim_chain_logits(const sim_chain *chain, const sim_model *model, bool ignore_eos, float *row);

/* ---- marker.c, fault.c, state.c, misdeed.c ---- */
typedef enum {
    FAULT_SEGV, FAULT_ABRT, FAULT_FPE, FAULT_BUS, FAULT_ILL, FAULT_STACK, FAULT_EXIT, FAULT_HANG, FAULT_SLOW,
    FAULT_ERROR, FAULT_ERRCB, FAULT_NOFINISH, FAULT_UTF8, FAULT_LEAK, FAULT_FDLEAK, FAULT_OOM, FAULT_KINDS
} sim_fault_kind;
typedef enum { AT_INIT, AT_PREFILL, AT_TOKEN, AT_CALLBACK, AT_DESTROY, AT_CALL, AT_PHASES } sim_fault_phase;
typedef enum { WHERE_HEAP, WHERE_MMAP, WHERE_SHMEM, WHERE_MEMFD, WHERE_KINDS } sim_fault_where;
enum { SIM_MARKER = 256, SIM_FAULTS = 16 };

typedef struct {
    sim_fault_kind kind;
    sim_fault_phase phase;
    sim_fault_where where;
    int64_t after, times, bytes, ms; /* times -1: unlimited; bytes -1: the kind's default */
    char key[SIM_MARKER];
    char text[SIM_MARKER];
    bool fired;
} sim_fault;

typedef struct {
    sim_fault at[SIM_FAULTS];
    size_t n;
    double slow_ms; /* extra time of each further token */
    bool raw_utf8, no_finish;
} sim_faults;

typedef enum { SIM_GO, SIM_FAIL, SIM_FAIL_CALLBACK } sim_outcome;

bool sim_faults_enabled(void);
bool sim_parse_marker(const char *text, size_t len, sim_fault *fault);
char *sim_take_markers(const char *prompt, sim_faults *faults); /* a copy of the prompt without them; NULL: no memory */
sim_outcome sim_faults_at(sim_faults *faults, sim_fault_phase phase, int64_t count);
sim_outcome sim_armed_faults(sim_fault_phase phase);
bool sim_count_once(const char *key, int64_t times); /* take one of `times`; false when all are taken */
void sim_arm(sim_fault_phase phase, const char *marker);
bool sim_disarm(sim_fault_phase phase, char marker[SIM_MARKER]); /* take one armed marker */
void sim_misbehave(const sim_fault *fault); /* returns only from the kinds that do not kill or hang */

/* ---- handle.c ---- */
typedef struct sim_lora {
    struct sim_lora *next;
    char *name;
    uint64_t fold;
} sim_lora;

typedef struct sim_buffer {
    struct sim_buffer *next;
    float *data;
} sim_buffer;

typedef struct {
    sim_tokens kv;
    size_t n_system;   /* how many of them are the system prompt */
    uint64_t residue;  /* what a run without history leaves behind when nobody clears the cache */
    bool dirty;        /* a run has written to kv */
} sim_item;

typedef enum { PHASE_IDLE, PHASE_RUNNING, PHASE_ENDING } sim_phase;

typedef struct sim_handle {
    struct sim_handle *next;
    sim_model model;
    LLMResultCallback callback;
    void *callback_userdata;
#if SIM_HAS_PER_RUN
    RKLLMCallback hooks;
#endif
    int64_t max_context, max_new_tokens;
    size_t n_batch;
    bool ignore_eos, cross_attention;
    double time_scale;
    char *image_start, *image_end;

    sim_item *items;
    sim_tokens cache; /* a loaded prompt cache: every fresh conversation starts with it */
    size_t cache_system;
    bool cache_loaded;
    int32_t *forced;
    size_t n_forced;
    bool template_set, tools_set;
    char *system_prompt, *prompt_prefix, *prompt_postfix, *tools, *tool_response;
    sim_lora *loras;
    uint64_t cross_fold;
    sim_buffer *kept; /* tensors whose release nobody asked for */
    char *resident;
    size_t n_resident;

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t wake;
    sim_phase phase;
    pthread_t runner;
    bool has_thread;
    pthread_t thread; /* of the last run_async, joined before the next run */
    bool aborted;

    bool paused;         /* what follows belongs to whoever runs */
    int64_t paused_after; /* tokens the paused run has generated */
} sim_handle;

bool sim_given(const void *pointer, const char *name); /* false, after a log line, for NULL */
sim_handle *sim_find(LLMHandle handle); /* NULL, after a log line, for what is no live handle */
sim_handle *sim_create(const RKLLMParam *param, const char *path);
int sim_destroy(sim_handle *handle);
bool sim_begin(sim_handle *handle); /* false: a run is going on */
bool sim_claim(sim_handle *handle); /* as sim_begin, for a short call that is no run */
void sim_adopt(sim_handle *handle); /* the calling thread is the one that runs */
void sim_ending(sim_handle *handle);
void sim_end(sim_handle *handle);
bool sim_is_own(sim_handle *handle); /* the calling thread is inside a callback of this handle */
bool sim_is_aborted(sim_handle *handle);
void sim_wait_until(sim_handle *handle, int64_t deadline); /* or until rkllm_abort */
void sim_clear_items(sim_handle *handle, bool keep_system);

/* ---- cache.c ---- */
bool sim_save_cache(const char *path, const sim_tokens *tokens, size_t n_system);
bool sim_read_cache(const char *path, const sim_model *model, sim_tokens *tokens, size_t *n_system);

/* ---- read.c, media.c, prompt.c ---- */
typedef struct {
    sim_tokens fresh; /* what this run adds in front of generating */
    size_t n_system;
    sim_chain chain;
    int32_t now;                 /* the token of this step, or -1 */
    bool done, waiting, raw;     /* raw: the open character was begun raw */
    char text[2 * SIM_MAX_TEXT]; /* of this step */
} sim_lane;

typedef struct {
    sim_handle *handle;
    void *userdata;
    RKLLMInferMode mode;
    bool keep_history, resumed, is_async;
    int64_t max_new_tokens;
    uint64_t seed;
    char *save_path;
    sim_faults faults;
    int32_t *forced;
    size_t n_forced;
    sim_lane *lanes;
    int64_t begun, prefilled; /* times */
    int64_t prefill_tokens, generated; /* generated: forced ones and those before a pause too */
} sim_run;

bool sim_too_long(const sim_run *run, size_t n); /* for the context; logs it, as does: */
bool sim_no_memory(void);                        /* false */
bool sim_read_prompt(sim_run *run, const char *text, sim_tokens *out);
bool sim_read_rows(sim_run *run, const float *rows, size_t n, sim_tokens *out);
bool sim_read_media(sim_run *run, const RKLLMInput *input, const char *prompt, sim_tokens *out);
bool sim_read_input(sim_run *run, sim_lane *lane, sim_item *item, const RKLLMInput *input);
bool sim_embed(sim_run *run, sim_token *tokens, size_t n); /* ask the program for embeddings, if it wants to be asked */

/* ---- run.c, deliver.c ---- */
sim_run *sim_prepare(sim_handle *handle, const RKLLMInput *input, const RKLLMInferParam *params, void *userdata);
int sim_execute(sim_run *run);
void sim_free_run(sim_run *run);
int sim_deliver_step(sim_run *run); /* returns what the callback did: 0 go on, 1 pause, 2 release */
void sim_deliver_end(sim_run *run, LLMCallState state);
bool sim_deliver_tensors(sim_run *run); /* false: out of memory */

#endif
