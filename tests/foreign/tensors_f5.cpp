// Hidden states and logits of a prompt, for runtime 1.3.0.  usage: tensors_f5 MODEL PROMPT
#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#include "rkllm_f5.h"

namespace {

struct Rows {
    std::vector<float> values;
    int rows = 0, width = 0;
};

int on_result(RKLLMResult *result, void *userdata, LLMCallState state) {
    auto *out = static_cast<Rows *>(userdata);
    if (state != RKLLM_RUN_NORMAL) return 0;
    const auto &hidden = result->last_hidden_layer;
    const auto &logits = result->logits;
    if (hidden.embd_size && hidden.num_tokens) {
        out->rows = hidden.num_tokens;
        out->width = hidden.embd_size;
        out->values.assign(hidden.hidden_states, hidden.hidden_states + size_t(out->rows) * out->width);
    } else if (logits.vocab_size && logits.num_tokens) {
        out->rows = logits.num_tokens;
        out->width = logits.vocab_size;
        out->values.assign(logits.logits, logits.logits + size_t(out->rows) * out->width);
    }
    return 2;  // the buffer may be released
}

bool show(LLMHandle handle, const char *prompt, RKLLMInferMode mode, const char *name) {
    RKLLMInput input;
    RKLLMInferParam infer;
    std::memset(&input, 0, sizeof input);
    std::memset(&infer, 0, sizeof infer);
    input.input_type = RKLLM_INPUT_PROMPT;
    input.prompt_input = prompt;
    infer.mode = mode;
    Rows out;
    rkllm_clear_kv_cache(handle, 0, nullptr, nullptr);
    if (rkllm_run(handle, &input, &infer, &out) != 0 || out.values.empty()) return false;
    const float *last = &out.values[size_t(out.rows - 1) * out.width];
    int best = 0;
    for (int i = 0; i < out.width; i++) {
        if (!std::isfinite(last[i])) return false;
        if (last[i] > last[best]) best = i;
    }
    std::printf("%s: %d x %d best %d\n", name, out.rows, out.width, best);
    return true;
}

}  // namespace

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    LLMHandle handle = nullptr;
    RKLLMParam param = rkllm_createDefaultParam();
    param.model_path = argv[1];
    RKLLMCallback callback = {};
    callback.result_callback = on_result;
    if (rkllm_init(&handle, &param, &callback) != 0) return 3;
    if (!show(handle, argv[2], RKLLM_INFER_GET_LAST_HIDDEN_LAYER, "hidden")) return 4;
    if (!show(handle, argv[2], RKLLM_INFER_GET_LOGITS, "logits")) return 5;
    return rkllm_destroy(handle);
}
