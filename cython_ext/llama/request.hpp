// One rkllm_run as asked for, copied out of the caller's memory.
#ifndef RKVISOR_LLAMA_REQUEST_HPP
#define RKVISOR_LLAMA_REQUEST_HPP

#include <optional>
#include <string>
#include <vector>

#include "chat.hpp"
#include "settings.hpp"

namespace rkvisor {

struct Request {
    RKLLMInputType type = RKLLM_INPUT_PROMPT;
    Turn turn;                      // RKLLM_INPUT_PROMPT
    std::vector<int32_t> tokens;    // RKLLM_INPUT_TOKEN
    std::vector<float> embeddings;  // RKLLM_INPUT_EMBED, [n × embedding size]
    RKLLMInferMode mode = RKLLM_INFER_GENERATE;
    std::optional<std::string> lora;
    std::optional<std::string> saved_cache;  // where to write the prompt's cache
    RKLLMSamplingParam sampling{};
    bool keeps_history = false;
    int32_t max_new_tokens = 0;  // 0: until the context is full
    void *userdata = nullptr;

    bool has_same_input(const Request &other) const;
    bool is_empty() const;
};

// Throws Refused.
Request read_request(const Settings &settings, const RKLLMInput *input, const RKLLMInferParam *param,
                     int32_t vocabulary_size, int32_t embedding_size);

}  // namespace rkvisor

#endif
