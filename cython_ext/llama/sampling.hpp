// The vendor's sampling parameters as a chain of libllama's samplers.
#ifndef RKVISOR_LLAMA_SAMPLING_HPP
#define RKVISOR_LLAMA_SAMPLING_HPP

#include "engine.hpp"

namespace rkvisor {

// Whether every run with these parameters gives the same text.
bool is_greedy(const RKLLMSamplingParam &sampling);

// `bans_end`: tokens that end a generation are never chosen (ignore_eos_token).
llama_sampler_ptr make_sampler(const RKLLMSamplingParam &sampling, const Engine &engine, bool bans_end);

// Makes the penalties see the last tokens of what the cache holds.
void accept_context(llama_sampler *sampler, const Engine &engine);

}  // namespace rkvisor

#endif
