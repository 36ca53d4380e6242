// What rkllm_init was asked for, checked and copied: nothing of the caller's memory is kept.
#ifndef RKVISOR_LLAMA_SETTINGS_HPP
#define RKVISOR_LLAMA_SETTINGS_HPP

#include <string>

#include "abi_f5.hpp"

namespace rkvisor {

struct Settings {
    std::string model_path;
    int32_t context = 0;         // tokens, prompt and generated together
    int32_t max_new_tokens = 0;  // 0: until the context is full
    RKLLMSamplingParam sampling{};
    bool skip_special = true;
    bool ignore_end = false;
    bool is_async = false;
    int32_t threads = 1;
};

// Throws Refused with the vendor's words where it has some.
Settings read_settings(const RKLLMParam &param);

// Throws Refused unless every number can be sampled with.
void check_sampling(const RKLLMSamplingParam &sampling);

// The values an RKLLM program starts from.
RKLLMParam default_param();

}  // namespace rkvisor

#endif
