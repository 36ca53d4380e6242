// One loaded runtime: dlopen, the table of its functions, and calls that take F5 structs whatever its family.
//
// A library is never closed: its threads may outlive every object that used it.
#ifndef RKVISOR_LIBRARY_HPP
#define RKVISOR_LIBRARY_HPP

#include <dlfcn.h>

#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "buffers.hpp"
#include "families.hpp"

namespace rkvisor {

// Receives each result as F5's, an array of them when n_batch > 1.  Returns what LLMResultCallback of F5 returns.
using Sink = int (*)(f5::RKLLMResult *result, void *userdata, int state);
inline Sink sink = nullptr;  // set once, before the first init

using force_tokens_fn = int (*)(void *handle, const int32_t *ids, size_t n);

// X(name without rkllm_, first family that has it).  The signatures of all but the first four and clear_kv_cache are
// the same in every family that has the function.
#define RKVISOR_FUNCTIONS(X)                                                                                    \
    X(createDefaultParam, 1) X(init, 1) X(run, 1) X(run_async, 1) X(clear_kv_cache, 2)                          \
    X(load_lora, 1) X(load_prompt_cache, 1) X(release_prompt_cache, 1) X(destroy, 1) X(abort, 1)                \
    X(is_running, 1) X(set_chat_template, 2) X(get_kv_cache_size, 4) X(set_function_tools, 4)                   \
    X(set_cross_attn_params, 4)

#define RKVISOR_FUNCTION_INDEX(name, first) AT_##name,
enum FunctionIndex { RKVISOR_FUNCTIONS(RKVISOR_FUNCTION_INDEX) FUNCTION_COUNT };
#undef RKVISOR_FUNCTION_INDEX

// Inputs and parameters of a run in the runtime's own family.
struct Prepared {
    void *inputs;
    void *infer;
};

class Library {
  public:
    virtual ~Library() = default;

    // handle of a loaded library whose family is 1…5 → its adapter; NULL for another family or when memory is short.
    static Library *adapt(void *dl, int family);

    bool has(int index) const { return table_[index] != nullptr; }

    virtual Param default_param() const = 0;
    virtual int init(void **handle, const Param &param, const f5::RKLLMCallback &callback) = 0;
    // n inputs and infer, narrowed to the family in memory of `buffers`; both NULL when memory is short.
    virtual Prepared prepare(f5::RKLLMInput *inputs, size_t n, f5::RKLLMInferParam *infer, Buffers &buffers) const = 0;
    virtual int run(void *handle, Prepared what, void *userdata) const = 0;
    virtual int run_async(void *handle, Prepared what, void *userdata) const = 0;
    virtual int clear_kv_cache(void *handle, int keep_system_prompt, int *start, int *end) const = 0;

    int load_lora(void *handle, f5::RKLLMLoraAdapter *adapter) const {
        return at<f5::rkllm_load_lora_fn>(AT_load_lora)(handle, adapter);
    }
    int load_prompt_cache(void *handle, const char *path) const {
        return at<f5::rkllm_load_prompt_cache_fn>(AT_load_prompt_cache)(handle, path);
    }
    int release_prompt_cache(void *handle) const {
        return at<f5::rkllm_release_prompt_cache_fn>(AT_release_prompt_cache)(handle);
    }
    int destroy(void *handle) const { return at<f5::rkllm_destroy_fn>(AT_destroy)(handle); }
    int abort(void *handle) const { return at<f5::rkllm_abort_fn>(AT_abort)(handle); }
    int is_running(void *handle) const { return at<f5::rkllm_is_running_fn>(AT_is_running)(handle); }
    int set_chat_template(void *handle, const char *system, const char *prefix, const char *postfix) const {
        return at<f5::rkllm_set_chat_template_fn>(AT_set_chat_template)(handle, system, prefix, postfix);
    }
    int get_kv_cache_size(void *handle, int *sizes) const {
        return at<f5::rkllm_get_kv_cache_size_fn>(AT_get_kv_cache_size)(handle, sizes);
    }
    int set_function_tools(void *handle, const char *system, const char *tools, const char *response) const {
        return at<f5::rkllm_set_function_tools_fn>(AT_set_function_tools)(handle, system, tools, response);
    }
    int set_cross_attn_params(void *handle, f5::RKLLMCrossAttnParam *params) const {
        return at<f5::rkllm_set_cross_attn_params_fn>(AT_set_cross_attn_params)(handle, params);
    }
    int force_tokens(void *handle, const int32_t *ids, size_t n) const { return force_tokens_(handle, ids, n); }
    bool can_force_tokens() const { return force_tokens_ != nullptr; }
    void hide_force_tokens() { force_tokens_ = nullptr; }

  protected:
    template <class Function> Function at(int index) const { return reinterpret_cast<Function>(table_[index]); }

    void *table_[FUNCTION_COUNT] = {};
    force_tokens_fn force_tokens_ = nullptr;
};

#define RKVISOR_FUNCTION_NAME(name, first) "rkllm_" #name,
inline const char *function_name(int index) {
    static const char *const names[] = {RKVISOR_FUNCTIONS(RKVISOR_FUNCTION_NAME)};
    return names[index];
}
#undef RKVISOR_FUNCTION_NAME

#define RKVISOR_FUNCTION_FIRST(name, first) first,
inline int function_first(int index) {
    static const int families[] = {RKVISOR_FUNCTIONS(RKVISOR_FUNCTION_FIRST)};
    return families[index];
}
#undef RKVISOR_FUNCTION_FIRST

// path → a handle of dlopen, or NULL with the loader's words in `error`.
inline void *open_library(const char *path, std::string &error) {
    void *dl = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (dl == nullptr) error = dlerror();
    return dl;
}

#define RKVISOR_FAMILY(number, space)                                                                           \
    struct F##number {                                                                                          \
        using Param = space::RKLLMParam;                                                                        \
        using Input = space::RKLLMInput;                                                                        \
        using Infer = space::RKLLMInferParam;                                                                   \
        using Result = space::RKLLMResult;                                                                      \
        using State = space::LLMCallState;                                                                      \
        using Callback = space::LLMResultCallback;                                                              \
        using init_fn = space::rkllm_init_fn;                                                                   \
        using run_fn = space::rkllm_run_fn;                                                                     \
        static constexpr int NUMBER = number;                                                                   \
    };
RKVISOR_FAMILY(1, f1)
RKVISOR_FAMILY(3, f3)
RKVISOR_FAMILY(4, f4)
RKVISOR_FAMILY(5, f5)
#undef RKVISOR_FAMILY

// The callbacks that a library of the family gets.  F1 and F3 ignore what the sink returns.
template <class F> void on_result_void(typename F::Result *result, void *userdata, typename F::State state) {
    if (result == nullptr) {
        sink(nullptr, userdata, state);
        return;
    }
    f5::RKLLMResult wide = widen_result(*result);
    int neutral = state;
    if constexpr (F::NUMBER == 1) {
        // F1 announces the hidden layer by a state of its own; in others its pointer has no meaning.
        if (state == f1::RKLLM_RUN_GET_LAST_HIDDEN_LAYER) neutral = f5::RKLLM_RUN_NORMAL;
        else wide.last_hidden_layer = {};
    }
    sink(&wide, userdata, neutral);
}
template <class F> int on_result_int(typename F::Result *result, void *userdata, typename F::State state) {
    return sink(reinterpret_cast<f5::RKLLMResult *>(result), userdata, state);
}

template <class F> class Adapter final : public Library {
  public:
    Param default_param() const override { return widen(native_default().param); }

    int init(void **handle, const Param &param, const f5::RKLLMCallback &callback) override {
        // Starts from the library's own struct, so that reserved bytes and unknown defaults keep its values.
        param_ = native_default();
        narrow(param_.param, param);
        auto call = at<typename F::init_fn>(AT_init);
        if constexpr (F::NUMBER == 5) {
            callback_ = callback;
            callback_.result_callback = on_result_int<F>;
            return call(handle, &param_.param, &callback_);
        } else if constexpr (F::NUMBER == 4) {
            return call(handle, &param_.param, on_result_int<F>);
        } else {
            return call(handle, &param_.param, on_result_void<F>);
        }
    }

    Prepared prepare(f5::RKLLMInput *inputs, size_t n, f5::RKLLMInferParam *infer, Buffers &buffers) const override {
        if constexpr (F::NUMBER == 5) {
            (void)n, (void)buffers;
            return {inputs, infer};
        } else {
            auto *narrowed = buffers.take<typename F::Input>(n, RKVISOR_SITE("prepare inputs"));
            auto *parameters = buffers.take<typename F::Infer>(1, RKVISOR_SITE("prepare parameters"));
            if (narrowed == nullptr || parameters == nullptr) return {nullptr, nullptr};
            for (size_t i = 0; i < n; ++i) narrowed[i] = narrow_input<typename F::Input>(inputs[i]);
            *parameters = narrow_infer<typename F::Infer>(*infer);
            return {narrowed, parameters};
        }
    }

    int run(void *handle, Prepared what, void *userdata) const override {
        return start(AT_run, handle, what, userdata);
    }
    int run_async(void *handle, Prepared what, void *userdata) const override {
        return start(AT_run_async, handle, what, userdata);
    }

    int clear_kv_cache(void *handle, int keep_system_prompt, int *start, int *end) const override {
        if constexpr (F::NUMBER >= 4) {
            return at<f5::rkllm_clear_kv_cache_fn>(AT_clear_kv_cache)(handle, keep_system_prompt, start, end);
        } else {
            (void)start, (void)end;
            return at<f3::rkllm_clear_kv_cache_fn>(AT_clear_kv_cache)(handle, keep_system_prompt);
        }
    }

  private:
    // RKLLMParam with room behind it: a library whose family was forced may have a longer one.  Both are returned
    // through a hidden pointer, so that the function does not notice, and what it wrote there it finds again in init.
    struct Roomy {
        typename F::Param param;
        unsigned char more[512];
    };

    Roomy native_default() const { return at<Roomy (*)()>(AT_createDefaultParam)(); }

    int start(int index, void *handle, Prepared what, void *userdata) const {
        return at<typename F::run_fn>(index)(handle, static_cast<typename F::Input *>(what.inputs),
                                             static_cast<typename F::Infer *>(what.infer), userdata);
    }

    // Members, because a runtime may keep the pointers that init got.
    Roomy param_ = {};
    f5::RKLLMCallback callback_ = {};
};

inline Library *Library::adapt(void *dl, int family) {
    Library *library = nullptr;
    switch (family) {
    case 1: library = new (std::nothrow) Adapter<F1>; break;
    case 2:
    case 3: library = new (std::nothrow) Adapter<F3>; break;
    case 4: library = new (std::nothrow) Adapter<F4>; break;
    case 5: library = new (std::nothrow) Adapter<F5>; break;
    default: break;
    }
    if (library == nullptr) return nullptr;
    for (int i = 0; i < FUNCTION_COUNT; ++i)
        if (family >= function_first(i)) library->table_[i] = dlsym(dl, function_name(i));
    library->force_tokens_ = reinterpret_cast<force_tokens_fn>(dlsym(dl, "rkvisor_force_tokens"));
    return library;
}

}  // namespace rkvisor

#endif
