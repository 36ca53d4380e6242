#include "sampling.hpp"

#include <algorithm>
#include <cmath>

namespace rkvisor {
namespace {

constexpr int32_t kPenaltyWindow = 64;    // tokens, libllama's customary value
constexpr int32_t kMirostatTokens = 100;  // tokens that mirostat 1 estimates from, the paper's value

void add_penalties(llama_sampler *chain, const RKLLMSamplingParam &sampling, const Engine &engine) {
    const float repeat = sampling.repeat_penalty > 0 ? sampling.repeat_penalty : 1.0F;
    if (repeat == 1.0F && sampling.frequency_penalty == 0 && sampling.presence_penalty == 0) return;
    llama_sampler_chain_add(chain, llama_sampler_init_penalties(engine.vocabulary_size(), kPenaltyWindow, repeat,
                                                                sampling.frequency_penalty, sampling.presence_penalty));
}

void add_ban(llama_sampler *chain, const Engine &engine) {
    std::vector<llama_logit_bias> bans;
    for (const llama_token token : engine.end_tokens()) bans.push_back({token, -INFINITY});
    llama_sampler_chain_add(
        chain, llama_sampler_init_logit_bias(engine.vocabulary_size(), static_cast<int32_t>(bans.size()), bans.data()));
}

void add_choice(llama_sampler *chain, const RKLLMSamplingParam &sampling, const Engine &engine) {
    const auto add = [chain](llama_sampler *sampler) { llama_sampler_chain_add(chain, sampler); };
    if (is_greedy(sampling)) {
        add(llama_sampler_init_greedy());
        return;
    }
    if (sampling.mirostat != 0) {
        add(llama_sampler_init_temp(sampling.temperature));
        add(sampling.mirostat == 1
                ? llama_sampler_init_mirostat(engine.vocabulary_size(), LLAMA_DEFAULT_SEED, sampling.mirostat_tau,
                                              sampling.mirostat_eta, kMirostatTokens)
                : llama_sampler_init_mirostat_v2(LLAMA_DEFAULT_SEED, sampling.mirostat_tau, sampling.mirostat_eta));
        return;
    }
    if (sampling.top_k > 0) add(llama_sampler_init_top_k(sampling.top_k));
    if (sampling.top_p < 1.0F) add(llama_sampler_init_top_p(std::max(sampling.top_p, 0.0F), 1));
    add(llama_sampler_init_temp(sampling.temperature));
    add(llama_sampler_init_dist(LLAMA_DEFAULT_SEED));
}

}  // namespace

bool is_greedy(const RKLLMSamplingParam &sampling) { return sampling.temperature <= 0 || sampling.top_k == 1; }

llama_sampler_ptr make_sampler(const RKLLMSamplingParam &sampling, const Engine &engine, bool bans_end) {
    llama_sampler_chain_params params = llama_sampler_chain_default_params();
    params.no_perf = true;
    llama_sampler_ptr chain(llama_sampler_chain_init(params));
    if (bans_end) add_ban(chain.get(), engine);
    add_penalties(chain.get(), sampling, engine);
    add_choice(chain.get(), sampling, engine);
    return chain;
}

void accept_context(llama_sampler *sampler, const Engine &engine) {
    const std::vector<llama_token> &cached = engine.cached();
    const size_t first = cached.size() > kPenaltyWindow ? cached.size() - kPenaltyWindow : 0;
    for (size_t at = first; at < cached.size(); ++at) {
        if (cached[at] >= 0) llama_sampler_accept(sampler, cached[at]);
    }
}

}  // namespace rkvisor
