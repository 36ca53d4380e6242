// rkllm_run_async, stopped by another thread, for runtime 1.2.x.  usage: stop_f4 MODEL
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <thread>

#include "rkllm_f4.h"

namespace {

std::mutex lock;
std::condition_variable changed;
int tokens = 0;
bool finished = false;
std::thread::id caller;

int on_result(RKLLMResult *, void *, LLMCallState state) {
    std::lock_guard<std::mutex> guard(lock);
    if (state == RKLLM_RUN_NORMAL || state == RKLLM_RUN_WAITING) tokens++;
    if (state == RKLLM_RUN_FINISH || state == RKLLM_RUN_ERROR) finished = true;
    caller = std::this_thread::get_id();
    changed.notify_all();
    return 0;
}

}  // namespace

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    LLMHandle handle = nullptr;
    RKLLMParam param = rkllm_createDefaultParam();
    param.model_path = argv[1];
    param.max_context_len = 2048;
    param.max_new_tokens = 1500;
    param.is_async = true;
    if (rkllm_init(&handle, &param, on_result) != 0) return 3;

    for (int round = 0; round < 3; round++) {
        tokens = 0;
        finished = false;
        {
            char prompt[] = "Tell me a very long story.";  // gone while the run goes on
            RKLLMInput input;
            RKLLMInferParam infer;
            std::memset(&input, 0, sizeof input);
            std::memset(&infer, 0, sizeof infer);
            input.input_type = RKLLM_INPUT_PROMPT;
            input.prompt_input = prompt;
            if (rkllm_clear_kv_cache(handle, 0, nullptr, nullptr) != 0) return 4;
            if (rkllm_run_async(handle, &input, &infer, nullptr) != 0) return 5;
            std::memset(prompt, 'x', sizeof prompt - 1);
        }
        std::thread stopper([handle] {
            std::unique_lock<std::mutex> guard(lock);
            changed.wait(guard, [] { return tokens >= 5 || finished; });
            guard.unlock();
            rkllm_abort(handle);
        });
        std::unique_lock<std::mutex> guard(lock);
        changed.wait(guard, [] { return finished; });
        guard.unlock();
        stopper.join();
        while (rkllm_is_running(handle) == 0) std::this_thread::yield();  // 0 means busy in this version
        std::printf("stopped: %d %s\n", tokens, caller == std::this_thread::get_id() ? "same" : "other");
    }
    return rkllm_destroy(handle);
}
