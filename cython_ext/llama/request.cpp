#include "request.hpp"

#include <algorithm>
#include <cstring>

#include "log.hpp"

namespace rkvisor {
namespace {

// An enum as a number: the caller may have put anything there, and reading it as the enum would be undefined.
template <typename Enum>
int raw(const Enum &value) {
    int number = 0;
    static_assert(sizeof number == sizeof value);
    std::memcpy(&number, &value, sizeof number);
    return number;
}

void read_tokens(const RKLLMTokenInput &input, int32_t context, int32_t vocabulary_size, Request &request) {
    if (input.input_ids == nullptr && input.n_tokens != 0) refuse("input_ids must not be NULL");
    // One more than fits is enough for the run to see that it does not fit.
    const size_t count = std::min(input.n_tokens, static_cast<size_t>(context) + 1);
    request.tokens.assign(input.input_ids, input.input_ids + count);
    for (const int32_t token : request.tokens) {
        if (token < 0 || token >= vocabulary_size)
            refuse("token %d is not in the vocabulary of %d", token, vocabulary_size);
    }
}

void read_embeddings(const RKLLMEmbedInput &input, int32_t context, int32_t embedding_size, Request &request) {
    if (input.embed == nullptr) refuse("embed must not be NULL");
    const size_t count = std::min(input.n_tokens, static_cast<size_t>(context) + 1);
    request.embeddings.assign(input.embed, input.embed + count * static_cast<size_t>(embedding_size));
}

}  // namespace

bool Request::has_same_input(const Request &other) const {
    return type == other.type && turn.content == other.turn.content && tokens == other.tokens &&
           embeddings == other.embeddings;
}

bool Request::is_empty() const { return turn.content.empty() && tokens.empty() && embeddings.empty(); }

Request read_request(const Settings &settings, const RKLLMInput *input, const RKLLMInferParam *param,
                     int32_t vocabulary_size, int32_t embedding_size) {
    if (input == nullptr) refuse("rkllm_input must not be NULL");
    if (param == nullptr) refuse("rkllm_infer_params must not be NULL");
    Request request;
    request.turn.role = input->role != nullptr && *input->role != '\0' ? input->role : "user";
    request.turn.is_thinking = input->enable_thinking;
    switch (raw(input->input_type)) {
        case RKLLM_INPUT_PROMPT:
            if (input->prompt_input == nullptr) refuse("prompt_input must not be NULL");
            request.turn.content = input->prompt_input;
            break;
        case RKLLM_INPUT_TOKEN: read_tokens(input->token_input, settings.context, vocabulary_size, request); break;
        case RKLLM_INPUT_EMBED: read_embeddings(input->embed_input, settings.context, embedding_size, request); break;
        case RKLLM_INPUT_MULTIMODAL:
            refuse("multimodal input is not supported by the CPU runtime: it loads text models only");
        default: refuse("input_type[%d] is unknown", raw(input->input_type));
    }
    request.type = input->input_type;
    const int mode = raw(param->mode);
    if (mode < RKLLM_INFER_GENERATE || mode > RKLLM_INFER_GET_LOGITS) refuse("mode[%d] is unknown", mode);
    request.mode = param->mode;
    if (param->lora_params != nullptr) {
        if (param->lora_params->lora_adapter_name == nullptr) refuse("lora_adapter_name must not be NULL");
        request.lora = param->lora_params->lora_adapter_name;
    }
    if (param->prompt_cache_params != nullptr && param->prompt_cache_params->save_prompt_cache != 0) {
        if (param->prompt_cache_params->prompt_cache_path == nullptr) refuse("prompt_cache_path must not be NULL");
        request.saved_cache = param->prompt_cache_params->prompt_cache_path;
    }
    request.sampling = param->sampling_params != nullptr ? *param->sampling_params : settings.sampling;
    check_sampling(request.sampling);
    request.keeps_history = param->keep_history != 0;
    request.max_new_tokens = param->max_new_tokens > 0 ? param->max_new_tokens : settings.max_new_tokens;
    return request;
}

}  // namespace rkvisor
