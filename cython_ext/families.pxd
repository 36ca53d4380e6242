"""The RKLLM C ABI as the binding sees it: F5 structs, and a library that speaks its own family.  ABI only, no policy."""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.string cimport string


cdef extern from "families.hpp" namespace "rkvisor::f5" nogil:
    int RKLLM_RUN_NORMAL, RKLLM_RUN_WAITING, RKLLM_RUN_FINISH, RKLLM_RUN_ERROR
    int RKLLM_INPUT_PROMPT, RKLLM_INPUT_TOKEN, RKLLM_INPUT_EMBED, RKLLM_INPUT_MULTIMODAL
    int RKLLM_INFER_GENERATE, RKLLM_INFER_GET_LAST_HIDDEN_LAYER, RKLLM_INFER_GET_LOGITS
    ctypedef int RKLLMInputType
    ctypedef int RKLLMInferMode

    ctypedef struct RKLLMLoraAdapter:
        const char *lora_adapter_path
        const char *lora_adapter_name
        float scale

    ctypedef struct RKLLMEmbedInput:
        float *embed
        size_t n_tokens

    ctypedef struct RKLLMTokenInput:
        int32_t *input_ids
        size_t n_tokens

    ctypedef struct ImagePart "decltype(rkvisor::f5::RKLLMMultiModalInput::image)":
        float *image_embed
        size_t n_image_tokens
        size_t n_image
        const char *image_start
        const char *image_end
        const char *image_content
        size_t image_width
        size_t image_height

    ctypedef struct VideoPart "decltype(rkvisor::f5::RKLLMMultiModalInput::video)":
        float *video_embed
        size_t n_frame_tokens
        size_t n_frame_per_video
        size_t n_video
        const char *video_start
        const char *video_end
        const char *video_content
        size_t frame_width
        size_t frame_height

    ctypedef struct RKLLMMultiModalInput:
        char *prompt
        ImagePart image
        VideoPart video

    ctypedef struct RKLLMInput:
        const char *role
        cbool enable_thinking
        RKLLMInputType input_type
        const char *prompt_input
        RKLLMEmbedInput embed_input
        RKLLMTokenInput token_input
        RKLLMMultiModalInput multimodal_input

    ctypedef struct RKLLMLoraParam:
        const char *lora_adapter_name

    ctypedef struct RKLLMPromptCacheParam:
        int save_prompt_cache
        const char *prompt_cache_path

    ctypedef struct RKLLMCrossAttnParam:
        float *encoder_k_cache
        float *encoder_v_cache
        float *encoder_mask
        int32_t *encoder_pos
        int num_tokens

    ctypedef struct RKLLMSamplingParam:
        pass

    ctypedef struct RKLLMInferParam:
        RKLLMInferMode mode
        RKLLMLoraParam *lora_params
        RKLLMPromptCacheParam *prompt_cache_params
        RKLLMSamplingParam *sampling_params
        int keep_history
        int32_t max_new_tokens

    ctypedef struct RKLLMResultLastHiddenLayer:
        const float *hidden_states
        int embd_size
        int num_tokens

    ctypedef struct RKLLMResultLogits:
        const float *logits
        int vocab_size
        int num_tokens

    ctypedef struct RKLLMPerfStat:
        float prefill_time_ms
        int prefill_tokens
        float generate_time_ms
        int generate_tokens
        float memory_usage_mb

    ctypedef struct RKLLMResult:
        const char *text
        int32_t token_id
        RKLLMResultLastHiddenLayer last_hidden_layer
        RKLLMResultLogits logits
        RKLLMPerfStat perf

    ctypedef int (*LLMTokenizerCallback)(void *, const char *, int32_t, int32_t *, int32_t) noexcept
    ctypedef int (*LLMGetEmbedCallback)(void *, int32_t *, uint64_t, void *, uint64_t) noexcept

    ctypedef struct RKLLMCallback:
        LLMTokenizerCallback tokenizer_callback
        void *tokenizer_userdata
        LLMGetEmbedCallback embed_callback
        void *embed_userdata
        void *result_userdata


cdef extern from "families.hpp" namespace "rkvisor" nogil:
    cppclass Param:
        Param()


cdef extern from "fields.hpp" namespace "rkvisor" nogil:
    int FIELD_TEXT, FIELD_I32, FIELD_U32, FIELD_I8, FIELD_U8, FIELD_F32, FIELD_BOOL

    ctypedef struct Field:
        const char *name
        int kind
        size_t offset
        unsigned families

    const Field PARAM_FIELDS[]
    const Field SAMPLING_FIELDS[]
    size_t PARAM_FIELD_COUNT
    size_t SAMPLING_FIELD_COUNT


cdef extern from "tracker.hpp" namespace "rkvisor" nogil:
    cppclass Site:
        pass
    Site HERE "RKVISOR_SITE"(const char *function) noexcept  # a macro: the site of the line that it stands in

    cppclass TrackerStatus:
        cbool is_open
        size_t count
        size_t bytes
        size_t allocations
        size_t total_bytes
        size_t warnings

    cppclass Tracker:
        @staticmethod
        Tracker &get() noexcept
        int open(const char *path) noexcept
        size_t close() noexcept
        TrackerStatus status() noexcept
        cbool free_tracked(void *memory) noexcept
        @staticmethod
        size_t held_count() noexcept
        @staticmethod
        size_t held_bytes() noexcept


cdef extern from "buffers.hpp" namespace "rkvisor" nogil:
    cppclass NativeBuffers "rkvisor::Buffers":
        NativeBuffers()
        void *take(size_t count, size_t size, Site site) noexcept
        void clear() noexcept
        size_t count() noexcept


cdef extern from "library.hpp" namespace "rkvisor" nogil:
    ctypedef int (*Sink)(RKLLMResult *, void *, int) noexcept
    Sink sink
    int FUNCTION_COUNT
    int AT_createDefaultParam, AT_init, AT_run, AT_run_async, AT_clear_kv_cache, AT_load_lora, AT_load_prompt_cache
    int AT_release_prompt_cache, AT_destroy, AT_abort, AT_is_running, AT_set_chat_template, AT_get_kv_cache_size
    int AT_set_function_tools, AT_set_cross_attn_params
    const char *function_name(int index) noexcept
    int function_first(int index) noexcept
    void *open_library(const char *path, string &error) except +

    cppclass Prepared:
        Prepared()
        void *inputs
        void *infer

    cppclass Library:
        @staticmethod
        Library *adapt(void *dl, int family) noexcept
        cbool has(int index) noexcept
        cbool can_force_tokens() noexcept
        void hide_force_tokens() noexcept
        Param default_param() noexcept
        int init(void **handle, const Param &param, const RKLLMCallback &callback) noexcept
        Prepared prepare(RKLLMInput *inputs, size_t n, RKLLMInferParam *infer, NativeBuffers &buffers) noexcept
        int run(void *handle, Prepared what, void *userdata) noexcept
        int run_async(void *handle, Prepared what, void *userdata) noexcept
        int clear_kv_cache(void *handle, int keep_system_prompt, int *start, int *end) noexcept
        int load_lora(void *handle, RKLLMLoraAdapter *adapter) noexcept
        int load_prompt_cache(void *handle, const char *path) noexcept
        int release_prompt_cache(void *handle) noexcept
        int destroy(void *handle) noexcept
        int abort(void *handle) noexcept
        int is_running(void *handle) noexcept
        int set_chat_template(void *handle, const char *system, const char *prefix, const char *postfix) noexcept
        int get_kv_cache_size(void *handle, int *sizes) noexcept
        int set_function_tools(void *handle, const char *system, const char *tools, const char *response) noexcept
        int set_cross_attn_params(void *handle, RKLLMCrossAttnParam *params) noexcept
        int force_tokens(void *handle, const int32_t *ids, size_t n) noexcept


cdef extern from "poison.hpp" namespace "rkvisor" nogil:
    ctypedef struct Returned:
        unsigned char bytes[1024]
    void call_into_poison(void *function, unsigned char fill, Returned *out) noexcept


cdef extern from "<dlfcn.h>" nogil:
    void *dlsym(void *handle, const char *name) noexcept
