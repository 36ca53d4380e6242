// Proves an engine: one decode of a real model, in a process of its own, because an engine built for the wrong
// processor does not fail, it dies.  Usage: engine_proof MODEL.gguf; prints the token that follows "The capital of
// France is".
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "llama-cpp.h"

namespace {

void print_warnings(ggml_log_level level, const char *text, void *) {
    if (level >= GGML_LOG_LEVEL_WARN && level != GGML_LOG_LEVEL_CONT) std::fputs(text, stderr);
}

int fail(const char *what) {
    std::fprintf(stderr, "cannot %s\n", what);
    return 1;
}

}  // namespace

int main(int count, char **arguments) {
    if (count != 2) return fail("start without a model file");
    llama_log_set(print_warnings, nullptr);
    llama_backend_init();
    const llama_model_ptr model(llama_model_load_from_file(arguments[1], llama_model_default_params()));
    if (!model) return fail("load the model");
    llama_context_params params = llama_context_default_params();
    params.n_ctx = 256;
    params.n_threads = 2;
    params.n_threads_batch = 2;
    const llama_context_ptr context(llama_init_from_model(model.get(), params));
    if (!context) return fail("make a context");
    const llama_vocab *vocab = llama_model_get_vocab(model.get());
    const std::string prompt = "The capital of France is";
    std::vector<llama_token> tokens(prompt.size());
    const int32_t size = llama_tokenize(vocab, prompt.data(), static_cast<int32_t>(prompt.size()), tokens.data(),
                                        static_cast<int32_t>(tokens.size()), true, false);
    if (size <= 0 || llama_decode(context.get(), llama_batch_get_one(tokens.data(), size)) != 0) return fail("decode");
    const float *logits = llama_get_logits_ith(context.get(), -1);
    llama_token best = 0;
    for (llama_token token = 0; token < llama_vocab_n_tokens(vocab); ++token) {
        if (!std::isfinite(logits[token])) return fail("compute finite logits");
        if (logits[token] > logits[best]) best = token;
    }
    char piece[64] = {};
    llama_token_to_piece(vocab, best, piece, sizeof piece - 1, 0, false);
    // One token alone goes through other kernels than a batch does.
    if (llama_decode(context.get(), llama_batch_get_one(&best, 1)) != 0) return fail("decode a single token");
    std::printf("%s\n", piece);
    return 0;
}
