// The RKLLM ABI families side by side, each in a namespace of its own, and the conversions between them.
//
// F5 is the lingua franca: callers build F5 structs, narrow() turns them into those of an older family, widen() turns
// an older family's result into F5's.  F2's structs are prefixes of F3's, so F3 serves both: the fields that F2 does
// not know lie behind what it reads and are zero.
#ifndef RKVISOR_FAMILIES_HPP
#define RKVISOR_FAMILIES_HPP

// The family headers include these again inside a namespace, where their guards must already hold.
#include <assert.h>
#include <stdalign.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <type_traits>
#include <utility>

#ifndef RKLLM_NO_PROTOTYPES
#define RKLLM_NO_PROTOTYPES
#endif

namespace rkvisor {

namespace f1 {
#include "rkllm_f1.h"
}
namespace f3 {
#include "rkllm_f3.h"
}
namespace f4 {
#include "rkllm_f4.h"
}
namespace f5 {
#include "rkllm_f5.h"
}

// RKLLMParam of F5, and what older families have beside it.
struct Param {
    f5::RKLLMParam base;
    const char *img_start;
    const char *img_end;
    const char *img_content;
};

#define RKVISOR_BASE_FIELDS(X)                                                                                  \
    X(model_path) X(max_context_len) X(max_new_tokens) X(top_k) X(n_keep) X(top_p) X(temperature)               \
    X(repeat_penalty) X(frequency_penalty) X(presence_penalty) X(mirostat) X(mirostat_tau) X(mirostat_eta)      \
    X(skip_special_token) X(ignore_eos_token) X(is_async)
#define RKVISOR_IMAGE_FIELDS(X) X(img_start) X(img_end) X(img_content)
#define RKVISOR_EXTEND_FIELDS(X)                                                                                \
    X(base_domain_id) X(embed_flash) X(enabled_cpus_num) X(enabled_cpus_mask) X(n_batch) X(use_cross_attn)
#define RKVISOR_SAMPLING_FIELDS(X)                                                                              \
    X(top_k) X(top_p) X(temperature) X(repeat_penalty) X(frequency_penalty) X(presence_penalty) X(mirostat)     \
    X(mirostat_tau) X(mirostat_eta)

// has_<field><Struct>::value tells whether a struct has the field.
#define RKVISOR_TRAIT(field)                                                                                    \
    template <class T, class = void> struct has_##field : std::false_type {};                                   \
    template <class T>                                                                                          \
    struct has_##field<T, std::void_t<decltype(std::declval<T &>().field)>> : std::true_type {};
RKVISOR_BASE_FIELDS(RKVISOR_TRAIT)
RKVISOR_IMAGE_FIELDS(RKVISOR_TRAIT)
RKVISOR_EXTEND_FIELDS(RKVISOR_TRAIT)
RKVISOR_TRAIT(role)
RKVISOR_TRAIT(n_image)
RKVISOR_TRAIT(keep_history)
RKVISOR_TRAIT(logits)
RKVISOR_TRAIT(perf)
#undef RKVISOR_TRAIT

// Copies what both structs have; the rest of `to`, reserved bytes included, stays as it is.
#define RKVISOR_COPY(field)                                                                                     \
    if constexpr (has_##field<To>::value && has_##field<From>::value) to.field = from.field;

template <class To, class From> void copy_base(To &to, const From &from) { RKVISOR_BASE_FIELDS(RKVISOR_COPY) }
template <class To, class From> void copy_images(To &to, const From &from) {
    (void)to, (void)from;  // F5 has none of them
    RKVISOR_IMAGE_FIELDS(RKVISOR_COPY)
}
template <class To, class From> void copy_extend(To &to, const From &from) { RKVISOR_EXTEND_FIELDS(RKVISOR_COPY) }
#undef RKVISOR_COPY

template <class Native> void narrow(Native &to, const Param &from) {
    copy_base(to, from.base);
    copy_images(to, from);
    copy_extend(to.extend_param, from.base.extend_param);
}

template <class Native> Param widen(const Native &from) {
    Param to = {};
    copy_base(to.base, from);
    copy_images(to, from);
    copy_extend(to.base.extend_param, from.extend_param);
    return to;
}

// Strings, arrays and embeddings are shared, not copied: they must outlive both structs.
template <class Input> Input narrow_input(const f5::RKLLMInput &from) {
    Input to = {};
    to.input_type = static_cast<decltype(to.input_type)>(from.input_type);
    if constexpr (has_role<Input>::value) {
        to.role = from.role;
        to.enable_thinking = from.enable_thinking;
    }
    switch (from.input_type) {
    case f5::RKLLM_INPUT_PROMPT:
        to.prompt_input = from.prompt_input;
        break;
    case f5::RKLLM_INPUT_TOKEN:
        to.token_input = {from.token_input.input_ids, from.token_input.n_tokens};
        break;
    case f5::RKLLM_INPUT_EMBED:
        to.embed_input = {from.embed_input.embed, from.embed_input.n_tokens};
        break;
    case f5::RKLLM_INPUT_MULTIMODAL: {
        auto &target = to.multimodal_input;
        const auto &image = from.multimodal_input.image;
        target.prompt = from.multimodal_input.prompt;
        target.image_embed = image.image_embed;
        target.n_image_tokens = image.n_image_tokens;
        if constexpr (has_n_image<std::remove_reference_t<decltype(target)>>::value) {
            target.n_image = image.n_image;
            target.image_width = image.image_width;
            target.image_height = image.image_height;
        }
        break;
    }
    }
    return to;
}

// RKLLMLoraParam and RKLLMPromptCacheParam have one layout in all families (the headers' asserts hold them to it).
template <class Infer> Infer narrow_infer(const f5::RKLLMInferParam &from) {
    Infer to = {};
    to.mode = static_cast<decltype(to.mode)>(from.mode);
    to.lora_params = reinterpret_cast<decltype(to.lora_params)>(from.lora_params);
    to.prompt_cache_params = reinterpret_cast<decltype(to.prompt_cache_params)>(from.prompt_cache_params);
    if constexpr (has_keep_history<Infer>::value) to.keep_history = from.keep_history;
    return to;
}

template <class Result> f5::RKLLMResult widen_result(const Result &from) {
    f5::RKLLMResult to = {};
    to.text = from.text;
    to.token_id = from.token_id;
    to.last_hidden_layer = {from.last_hidden_layer.hidden_states, from.last_hidden_layer.embd_size,
                            from.last_hidden_layer.num_tokens};
    if constexpr (has_logits<Result>::value)
        to.logits = {from.logits.logits, from.logits.vocab_size, from.logits.num_tokens};
    return to;
}

// F4's and F5's results are one layout, so that arrays of them (n_batch > 1) need no conversion.
static_assert(sizeof(f4::RKLLMResult) == sizeof(f5::RKLLMResult));
static_assert(offsetof(f4::RKLLMResult, perf) == offsetof(f5::RKLLMResult, perf));

}  // namespace rkvisor

#endif
