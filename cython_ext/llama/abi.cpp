// The fifteen functions of the RKLLM F5 ABI, and rkvisor_force_tokens: checks for NULL, no exceptions, no decisions.
#include <cstdlib>
#include <mutex>

#include "failure.hpp"
#include "generation.hpp"
#include "registry.hpp"

#if !defined(RKVISOR_ENGINE_VERSION) || !defined(RKVISOR_STAMP)
#error "build with python -m rkvisor.cython_ext.build_llama, which defines both"
#endif

using namespace rkvisor;

namespace {

// Programs tell the ABI family of a runtime by this text in its file.
constexpr const char *kVersion = "RKLLM SDK (version: 1.3.0 | llama " RKVISOR_ENGINE_VERSION ")";

// build_llama looks for this in the file to see whether it is current.
__attribute__((used)) const char kStamp[] = RKVISOR_STAMP;

// Runs before the constructors of the libraries this one needs, because build_llama links it with -z initfirst: libgomp
// and ggml read their environment only once, when they are loaded.
__attribute__((constructor)) void prepare_process() {
    // On a fatal error ggml would fork a debugger for a backtrace; rkvisor makes its own crash report.
    setenv("GGML_NO_BACKTRACE", "1", 1);
    // libgomp's threads wait for each other by spinning some milliseconds at every barrier, which is ruinous as soon as
    // two processes share the cores: measured 2.2 tokens/s each instead of 31, two workers on two cores.
    if (getenv("OMP_WAIT_POLICY") == nullptr) setenv("GOMP_SPINCOUNT", "1000", 0);
}

void start_backend() {
    static std::once_flag once;
    std::call_once(once, [] {
        prepare_process();  // again: in a program linked against this library, libc replaces the environment after us
        llama_log_set(receive_engine_log, nullptr);
        ggml_set_abort_callback([](const char *message) { log_line(Level::error, "%s", message); });
        llama_backend_init();
    });
}

template <typename Action>
int status_of(Action action) noexcept {
    int status = 0;
    return contain([&] { status = action(); }) ? status : -1;
}

Handle &handle_of(LLMHandle handle) { return find_handle(handle); }

const char *text_or_empty(const char *text) { return text != nullptr ? text : ""; }

Request request_of(Handle &handle, const RKLLMInput *input, const RKLLMInferParam *param, void *userdata) {
    const Engine &engine = handle.engine();
    Request request = read_request(handle.settings(), input, param, engine.vocabulary_size(), engine.embedding_size());
    request.userdata = userdata;
    return request;
}

}  // namespace

RKLLMParam rkllm_createDefaultParam(void) { return default_param(); }

int rkllm_init(LLMHandle *handle, RKLLMParam *param, RKLLMCallback *callback) {
    return status_of([&] {
        if (handle == nullptr || param == nullptr || callback == nullptr)
            refuse("handle, param and callback must not be NULL");
        *handle = nullptr;
        if (callback->result_callback == nullptr) refuse("result_callback must not be NULL");
        start_backend();
        log_line(Level::info, "%s", kVersion);
        auto made = std::make_unique<Handle>(read_settings(*param), *callback);
        enlist(made.get());
        // After the load: what is registered last runs first, and ggml makes statics while it loads a model.
        static std::once_flag once;
        std::call_once(once, stop_all_at_exit);
        *handle = made.release();
        return 0;
    });
}

int rkllm_destroy(LLMHandle handle) {
    return status_of([&] {
        Handle &target = handle_of(handle);
        target.stop();
        if (!delist(&target)) return -1;  // another thread was faster
        delete &target;
        return 0;
    });
}

int rkllm_run(LLMHandle handle, RKLLMInput *rkllm_input, RKLLMInferParam *rkllm_infer_params, void *userdata) {
    return status_of([&] {
        Handle &target = handle_of(handle);
        Request request = request_of(target, rkllm_input, rkllm_infer_params, userdata);
        if (!target.settings().is_async) return target.run(std::move(request));
        target.run_async(std::move(request));
        return 0;
    });
}

int rkllm_run_async(LLMHandle handle, RKLLMInput *rkllm_input, RKLLMInferParam *rkllm_infer_params, void *userdata) {
    return status_of([&] {
        Handle &target = handle_of(handle);
        target.run_async(request_of(target, rkllm_input, rkllm_infer_params, userdata));
        return 0;
    });
}

int rkllm_abort(LLMHandle handle) {
    return status_of([&] {
        handle_of(handle).abort();
        return 0;
    });
}

int rkllm_is_running(LLMHandle handle) {
    return status_of([&] { return handle_of(handle).is_running() ? 1 : 0; });
}

int rkllm_load_lora(LLMHandle handle, RKLLMLoraAdapter *lora_adapter) {
    return status_of([&] {
        Handle &target = handle_of(handle);
        if (lora_adapter == nullptr) refuse("lora_adapter must not be NULL");
        target.load_lora(*lora_adapter);
        return 0;
    });
}

int rkllm_load_prompt_cache(LLMHandle handle, const char *prompt_cache_path) {
    return status_of([&] {
        Handle &target = handle_of(handle);
        if (prompt_cache_path == nullptr) refuse("prompt_cache_path must not be NULL");
        target.load_prompt_cache(prompt_cache_path);
        return 0;
    });
}

int rkllm_release_prompt_cache(LLMHandle handle) {
    return status_of([&] {
        handle_of(handle).release_prompt_cache();
        return 0;
    });
}

int rkllm_clear_kv_cache(LLMHandle handle, int keep_system_prompt, int *start_pos, int *end_pos) {
    return status_of([&] {
        Handle &target = handle_of(handle);
        if ((start_pos == nullptr) != (end_pos == nullptr))
            refuse("start_pos and end_pos must both be given or both be NULL");
        if (start_pos != nullptr) {
            target.clear_range(*start_pos, *end_pos);
        } else {
            target.clear_cache(keep_system_prompt != 0);
        }
        return 0;
    });
}

int rkllm_get_kv_cache_size(LLMHandle handle, int *cache_sizes) {
    return status_of([&] {
        Handle &target = handle_of(handle);
        if (cache_sizes == nullptr) refuse("cache_sizes must not be NULL");
        *cache_sizes = target.engine().cached_size();
        return 0;
    });
}

int rkllm_set_chat_template(LLMHandle handle, const char *system_prompt, const char *prompt_prefix,
                            const char *prompt_postfix) {
    return status_of([&] {
        handle_of(handle).change_chat([&](Chat &chat) {
            if (system_prompt == nullptr && prompt_prefix == nullptr && prompt_postfix == nullptr) {
                chat.restore_template();
            } else {
                chat.set_parts(text_or_empty(system_prompt), text_or_empty(prompt_prefix),
                               text_or_empty(prompt_postfix));
            }
        });
        return 0;
    });
}

int rkllm_set_function_tools(LLMHandle handle, const char *system_prompt, const char *tools,
                             const char *tool_response_str) {
    return status_of([&] {
        Handle &target = handle_of(handle);
        if (tools == nullptr) refuse("tools must not be NULL");
        target.change_chat(
            [&](Chat &chat) { chat.set_tools(text_or_empty(system_prompt), tools, text_or_empty(tool_response_str)); });
        return 0;
    });
}

int rkllm_set_cross_attn_params(LLMHandle handle, RKLLMCrossAttnParam *) {
    return status_of([&]() -> int {
        handle_of(handle);
        refuse("cross attention is not supported by the CPU runtime");
    });
}

int rkvisor_force_tokens(LLMHandle handle, const int32_t *ids, size_t n) {
    return status_of([&] {
        handle_of(handle).force_tokens(ids, n);
        return 0;
    });
}
