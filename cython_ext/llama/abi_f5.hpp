// The F5 ABI as this library exports it.
#ifndef RKVISOR_LLAMA_ABI_F5_HPP
#define RKVISOR_LLAMA_ABI_F5_HPP

#pragma GCC visibility push(default)
#define RKLLM_FAMILY 5
#include "rkllm_abi.h"
#pragma GCC visibility pop

#endif
