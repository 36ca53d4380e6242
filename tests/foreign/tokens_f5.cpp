// Token input for runtime 1.3.0: prints the ids that follow.  usage: tokens_f5 MODEL MAX_NEW_TOKENS ID ...
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "rkllm_f5.h"

namespace {

int on_result(RKLLMResult *result, void *userdata, LLMCallState state) {
    if (state == RKLLM_RUN_NORMAL || state == RKLLM_RUN_WAITING)
        static_cast<std::vector<int32_t> *>(userdata)->push_back(result->token_id);
    return 0;
}

}  // namespace

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    std::vector<int32_t> ids, generated;
    for (int i = 3; i < argc; i++) ids.push_back(std::atoi(argv[i]));
    LLMHandle handle = nullptr;
    RKLLMParam param = rkllm_createDefaultParam();
    param.model_path = argv[1];
    param.max_new_tokens = std::atoi(argv[2]);
    param.top_k = 1;
    param.extend_param.enabled_cpus_num = 2;
    param.extend_param.enabled_cpus_mask = (1 << 0) | (1 << 1);
    RKLLMCallback callback = {};
    callback.result_callback = on_result;
    callback.result_userdata = &generated;
    if (rkllm_init(&handle, &param, &callback) != 0) return 3;
    RKLLMInput input = {};
    input.input_type = RKLLM_INPUT_TOKEN;
    input.token_input.input_ids = ids.data();
    input.token_input.n_tokens = ids.size();
    RKLLMInferParam infer = {};
    if (rkllm_run(handle, &input, &infer, nullptr) != 0) return 4;
    std::printf("ids:");
    for (int32_t id : generated) std::printf(" %d", id);
    std::printf("\n");
    return rkllm_destroy(handle);
}
