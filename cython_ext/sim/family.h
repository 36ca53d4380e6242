/* What the families of the RKLLM ABI have and have not, as one set of switches.  The rest of the simulator asks these,
 * never RKLLM_FAMILY itself. */
#ifndef RKVISOR_SIM_FAMILY_H
#define RKVISOR_SIM_FAMILY_H

#include "rkllm_abi.h"

#define SIM_API __attribute__((visibility("default")))

#if RKLLM_FAMILY == 1
#define SIM_VERSION "1.1.4"
#elif RKLLM_FAMILY == 2
#define SIM_VERSION "1.2.0"
#elif RKLLM_FAMILY == 3
#define SIM_VERSION "1.2.1b1"
#elif RKLLM_FAMILY == 4
#define SIM_VERSION "1.2.3"
#else
#define SIM_VERSION "1.3.0"
#endif

#define SIM_HAS_HISTORY (RKLLM_FAMILY >= 2)  /* keep_history, clear_kv_cache, logits, n_keep, CPU mask, chat template */
#define SIM_HAS_IMAGES (RKLLM_FAMILY >= 3)   /* n_image, width and height beside n_image_tokens */
#define SIM_HAS_ROLES (RKLLM_FAMILY >= 4)    /* role, thinking, perf, n_batch, int callbacks, tools, cross attention */
#define SIM_HAS_PER_RUN (RKLLM_FAMILY >= 5)  /* RKLLMCallback, per-run limits, nested media, is_running == 1 */

#endif
