// A streaming chat on stdin, written for runtime 1.2.x.  usage: chat_f4 MODEL MAX_NEW_TOKENS
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "rkllm_f4.h"

namespace {

struct Answer {
    std::string text;
    int tokens = 0;
    bool finished = false, failed = false;
    RKLLMPerfStat perf = {};
};

int on_result(RKLLMResult *result, void *userdata, LLMCallState state) {
    auto *answer = static_cast<Answer *>(userdata);
    if (state == RKLLM_RUN_FINISH) {
        answer->finished = true;
        answer->perf = result->perf;
    } else if (state == RKLLM_RUN_ERROR) {
        answer->failed = true;
    } else {
        answer->tokens++;
        if (state == RKLLM_RUN_NORMAL) answer->text += result->text;
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
    param.max_new_tokens = std::atoi(argv[2]);
    param.max_context_len = 2048;
    param.top_k = 1;
    if (rkllm_init(&handle, &param, on_result) != 0) return 3;

    char line[1024];
    while (std::fgets(line, sizeof line, stdin)) {
        line[std::strcspn(line, "\n")] = 0;
        if (std::strcmp(line, "clear") == 0) {
            if (rkllm_clear_kv_cache(handle, 0, nullptr, nullptr) != 0) return 4;
            continue;
        }
        RKLLMInput input;
        std::memset(&input, 0, sizeof input);
        input.role = "user";
        input.input_type = RKLLM_INPUT_PROMPT;
        input.prompt_input = line;
        RKLLMInferParam infer;
        std::memset(&infer, 0, sizeof infer);
        infer.mode = RKLLM_INFER_GENERATE;
        infer.keep_history = 1;
        Answer answer;
        if (rkllm_run(handle, &input, &infer, &answer) != 0 || answer.failed || !answer.finished) return 5;
        int cached = 0;
        if (rkllm_get_kv_cache_size(handle, &cached) != 0) return 6;
        std::printf("robot: %s\n", one_line(answer.text).c_str());
        std::printf("count: %d prefill %d generated %d cached %d\n", answer.tokens, answer.perf.prefill_tokens,
                    answer.perf.generate_tokens, cached);
    }
    return rkllm_destroy(handle);
}
