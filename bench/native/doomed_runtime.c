/* An RKLLM runtime whose rkllm_init dies of SIGSEGV, as the vendor's does of a model that it cannot stand: for counting how
 * often a supervisor starts what cannot live.  Used with a forced ABI family, so nothing else of it is called. */
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    char bytes[184];
} param; /* RKLLMParam of family F5 */

param rkllm_createDefaultParam(void) {
    param empty;
    memset(&empty, 0, sizeof empty);
    return empty;
}

int rkllm_init(void **handle, void *given, void *callback) {
    (void)handle, (void)given, (void)callback;
    return kill(getpid(), SIGSEGV);
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
