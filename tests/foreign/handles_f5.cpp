// Several handles, each used by a thread of its own, for runtime 1.3.0.  usage: handles_f5 MODEL HANDLES PROMPT
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "rkllm_f5.h"

namespace {

struct Seat {
    LLMHandle handle = nullptr;
    std::string text;
    int status = -1;
};

int on_result(RKLLMResult *result, void *userdata, LLMCallState state) {
    if (state == RKLLM_RUN_NORMAL) static_cast<Seat *>(userdata)->text += result->text;
    return 0;
}

void speak(Seat *seat, const char *prompt) {
    RKLLMInput input = {};
    input.input_type = RKLLM_INPUT_PROMPT;
    input.prompt_input = prompt;
    RKLLMInferParam infer = {};
    seat->status = rkllm_run(seat->handle, &input, &infer, nullptr);
}

}  // namespace

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    std::vector<Seat> seats(static_cast<size_t>(std::atoi(argv[2])));
    for (Seat &seat : seats) {
        RKLLMParam param = rkllm_createDefaultParam();
        param.model_path = argv[1];
        param.max_new_tokens = 16;
        param.top_k = 1;
        RKLLMCallback callback = {};
        callback.result_callback = on_result;
        callback.result_userdata = &seat;
        if (rkllm_init(&seat.handle, &param, &callback) != 0) return 3;
    }
    std::vector<std::thread> threads;
    for (Seat &seat : seats) threads.emplace_back(speak, &seat, argv[3]);
    for (std::thread &thread : threads) thread.join();
    for (Seat &seat : seats) {
        if (seat.status != 0 || rkllm_destroy(seat.handle) != 0) return 4;
        for (char &c : seat.text)
            if (c == '\n') c = ' ';
        std::printf("robot: %s\n", seat.text.c_str());
    }
    return 0;
}
