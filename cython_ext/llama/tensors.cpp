// The two modes that deliver numbers instead of text.
#include "generation.hpp"
#include "log.hpp"

namespace rkvisor {

bool deliver_tensors(Handle &handle, const Request &request, Listener &listener, Stopwatch &stopwatch) {
    Engine &engine = handle.engine();
    handle.take_forced();  // nothing is generated in these modes
    const bool is_hidden = request.mode == RKLLM_INFER_GET_LAST_HIDDEN_LAYER;
    const auto width = static_cast<size_t>(is_hidden ? engine.embedding_size() : engine.vocabulary_size());
    const Outputs outputs = is_hidden ? Outputs::all_hidden : Outputs::all_logits;
    std::string rendered;
    std::vector<llama_token> tokens = request.tokens;
    if (request.type == RKLLM_INPUT_PROMPT) {
        rendered = handle.chat().render(request.turn);
        tokens = handle.tokenize(rendered, engine.cached().empty());
    }
    const bool is_embedded = request.type == RKLLM_INPUT_EMBED;
    const size_t size =
        is_embedded ? request.embeddings.size() / static_cast<size_t>(engine.embedding_size()) : tokens.size();
    if (size == 0) refuse("the input is empty");
    const auto most = static_cast<size_t>(handle.settings().context);
    if (engine.cached().size() + size > most) {
        refuse("the length of prompt is greater than max context: %zu tokens, max_context[%zu]",
               engine.cached().size() + size, most);
    }
    std::vector<float> rows;
    rows.reserve(size * width);
    const Engine::Sink sink = [&](const float *part, size_t n_rows) {
        rows.insert(rows.end(), part, part + n_rows * width);
    };
    stopwatch.start();
    const bool is_done = is_embedded ? engine.evaluate({nullptr, request.embeddings.data(), size}, outputs, sink)
                                     : handle.evaluate(tokens, outputs, sink);
    stopwatch.add_prefill(size);
    if (is_done) {
        if (is_hidden) {
            listener.hidden(rows.data(), engine.embedding_size(), static_cast<int>(size));
        } else {
            listener.logits(rows.data(), engine.vocabulary_size(), static_cast<int>(size));
        }
        if (request.keeps_history) {
            for (const llama_token token : request.tokens) rendered += engine.piece(token, true);
            handle.chat().remember_raw(rendered);
        }
    }
    return is_done;
}

}  // namespace rkvisor
