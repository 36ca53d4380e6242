// A streaming chat on stdin, written for runtime 1.3.0.  usage: chat_f5 MODEL MAX_NEW_TOKENS
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "rkllm_f5.h"

namespace {

struct Answer {
    std::string text;
    int tokens = 0;
    bool finished = false, failed = false;
    RKLLMPerfStat perf = {};
};

Answer nobodys;  // result_userdata: must lose against the userdata of rkllm_run

int on_result(RKLLMResult *result, void *userdata, LLMCallState state) {
    auto *answer = static_cast<Answer *>(userdata);
    switch (state) {
    case RKLLM_RUN_NORMAL: answer->text += result->text; [[fallthrough]];
    case RKLLM_RUN_WAITING: answer->tokens++; break;
    case RKLLM_RUN_FINISH:
        answer->finished = true;
        answer->perf = result->perf;
        break;
    case RKLLM_RUN_ERROR: answer->failed = true; break;
    }
    return 0;
}

std::string one_line(std::string text) {
    for (char &c : text)
        if (c == '\n') c = ' ';
    return text;
}

}  // namespace

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    LLMHandle handle = nullptr;
    RKLLMParam param = rkllm_createDefaultParam();
    param.model_path = argv[1];
    param.max_context_len = 2048;
    RKLLMCallback callback = {};
    callback.result_callback = on_result;
    callback.result_userdata = &nobodys;
    if (rkllm_init(&handle, &param, &callback) != 0) return 3;

    RKLLMSamplingParam greedy = {};
    greedy.top_k = 1;
    greedy.top_p = 1;
    greedy.repeat_penalty = 1;
    char line[1024];
    while (std::fgets(line, sizeof line, stdin)) {
        line[std::strcspn(line, "\n")] = 0;
        if (std::strcmp(line, "clear") == 0) {
            if (rkllm_clear_kv_cache(handle, 0, nullptr, nullptr) != 0) return 4;
            continue;
        }
        RKLLMInput input = {};
        input.role = "user";
        input.input_type = RKLLM_INPUT_PROMPT;
        input.prompt_input = line;
        RKLLMInferParam infer = {};
        infer.mode = RKLLM_INFER_GENERATE;
        infer.keep_history = 1;
        infer.sampling_params = &greedy;
        infer.max_new_tokens = std::atoi(argv[2]);
        Answer answer;
        if (rkllm_run(handle, &input, &infer, &answer) != 0 || answer.failed || !answer.finished) return 5;
        int cached = 0;
        if (rkllm_get_kv_cache_size(handle, &cached) != 0) return 6;
        std::printf("robot: %s\n", one_line(answer.text).c_str());
        std::printf("count: %d prefill %d generated %d cached %d\n", answer.tokens, answer.perf.prefill_tokens,
                    answer.perf.generate_tokens, cached);
    }
    if (nobodys.tokens) return 7;
    return rkllm_destroy(handle);
}
