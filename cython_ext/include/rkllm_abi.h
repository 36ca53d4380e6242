/* The RKLLM ABI of one family, chosen by -DRKLLM_FAMILY=1|2|3|4|5, and the one symbol that rkvisor adds to it. */
#ifndef RKVISOR_RKLLM_ABI_H
#define RKVISOR_RKLLM_ABI_H

#if RKLLM_FAMILY == 1
#include "rkllm_f1.h"
#elif RKLLM_FAMILY == 2
#include "rkllm_f2.h"
#elif RKLLM_FAMILY == 3
#include "rkllm_f3.h"
#elif RKLLM_FAMILY == 4
#include "rkllm_f4.h"
#elif RKLLM_FAMILY == 5
#include "rkllm_f5.h"
#else
#error "define RKLLM_FAMILY as 1, 2, 3, 4 or 5"
#endif

#ifdef __cplusplus
extern "C" {
#endif
/* Take ids[0..n) as already generated in the next rkllm_run of this handle: no callback is made for them, they count
 * towards max_new_tokens, and generation goes on behind them.  The ids are copied.  Greedy runs decode them one by
 * one, sampled ones in one batch (docs/design.md, resume).  n = 0 clears.  Returns 0, or -1 on a bad argument. */
int rkvisor_force_tokens(LLMHandle handle, const int32_t *ids, size_t n);
#ifdef __cplusplus
}
#endif

#endif
