/* An RKLLM runtime whose rkllm_init dies of SIGSEGV, as the vendor's does of a model that it cannot stand: for counting how
 * often a supervisor starts what cannot live.  Used with a forced ABI family, so nothing else of it is called. */
#include <signal.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    const char *model_path;
    int32_t max_context_len;
    char others[172];
} param; /* RKLLMParam of family F5, as much of it as is looked at before rkllm_init */

param rkllm_createDefaultParam(void) {
    param empty;
    memset(&empty, 0, sizeof empty);
    empty.max_context_len = 512;
    return empty;
}

int rkllm_init(void **handle, void *given, void *callback) {
    (void)handle, (void)given, (void)callback;
    return raise(SIGSEGV);
}

int rkllm_run(void *handle, void *input, void *infer, void *userdata) {
    (void)handle, (void)input, (void)infer, (void)userdata;
    return -1;
}

int rkllm_abort(void *handle) {
    (void)handle;
    return 0;
}

int rkllm_destroy(void *handle) {
    (void)handle;
    return 0;
}
