/* From an RKLLMInput to the tokens that a run adds to the cache. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

/* Fault markers in token input, as where a program gives a prompt as tokens; they are taken out as from a text. */
static bool take_marker_tokens(sim_run *run, sim_tokens *list) {
    char piece[SIM_MAX_TEXT];
    size_t len = 0, n = 0;
    if (!sim_faults_enabled()) return true;
    for (size_t i = 0; i < list->len; i++) len += sim_token_bytes(list->at[i].id, piece);
    char *text = malloc(len + 1);
    if (!text) return sim_no_memory();
    len = 0;
    for (size_t i = 0; i < list->len; i++) len += sim_token_bytes(list->at[i].id, text + len);
    text[len] = 0;
    char *from = memmem(text, len, "[[sim:", 6), *to = from ? memmem(from, len - (size_t)(from - text), "]]", 2) : NULL;
    bool found = to != NULL, ok = true;
    if (found) {
        size_t first = (size_t)(from - text), last = (size_t)(to - text) + 2, at = 0;
        to[2] = 0;
        char *rest = sim_take_markers(from, &run->faults);
        for (size_t i = 0; i < list->len; i++) {
            sim_token token = list->at[i];
            size_t size = sim_token_bytes(token.id, piece);
            if (!size || at < first || at >= last) list->at[n++] = token;
            at += size;
        }
        list->len = n;
        ok = rest ? true : sim_no_memory();
        free(rest);
    }
    free(text);
    return ok && (!found || take_marker_tokens(run, list));
}

static bool read_ids(sim_run *run, const RKLLMTokenInput *input, sim_tokens *out) {
    if (sim_too_long(run, input->n_tokens)) return false;
    if (input->n_tokens && !input->input_ids) {
        sim_log('E', "input_ids is NULL");
        return false;
    }
    for (size_t i = 0; i < input->n_tokens; i++) {
        int32_t id = input->input_ids[i];
        if (id < 0 || id >= run->handle->model.vocab_size) {
            sim_log('E', "invalid token id %d at position %zu", id, i);
            return false;
        }
        if (!sim_push(out, id, 0)) return sim_no_memory();
    }
    return take_marker_tokens(run, out);
}

bool sim_embed(sim_run *run, sim_token *tokens, size_t n) {
#if SIM_HAS_PER_RUN
    const RKLLMCallback *hooks = &run->handle->hooks;
    size_t row = (size_t)run->handle->model.embedding_size * sizeof(float), plain = 0;
    if (!hooks->embed_callback || !n) return true;
    int32_t *ids = malloc(n * sizeof *ids);
    char *rows = calloc(n, row);
    bool ok = ids && rows;
    for (size_t i = 0; ok && i < n; i++)
        if (!tokens[i].fold) ids[plain++] = tokens[i].id;
    if (ok && plain && hooks->embed_callback(hooks->embed_userdata, ids, plain, rows, plain * row) != 0) {
        sim_log('E', "the embedding callback failed");
        ok = false;
    }
    for (size_t i = 0, at = 0; ok && i < n; i++)
        if (!tokens[i].fold) tokens[i].fold = sim_hash_bytes(rows + row * at++, row, 2);
    free(ids);
    free(rows);
    return ok;
#else
    (void)run, (void)tokens, (void)n;
    return true;
#endif
}

static const char *or_empty(const char *text) { return text ? text : ""; }

/* The system prompt and the tools come once, in front of a conversation. */
static bool read_system(sim_run *run, sim_lane *lane) {
    const sim_handle *h = run->handle;
    const char *system = h->template_set ? h->system_prompt : h->model.system_prompt;
    bool ok = sim_read_prompt(run, or_empty(h->tools_set ? h->system_prompt : system), &lane->fresh);
    if (ok && h->tools_set) ok = sim_read_prompt(run, h->tools, &lane->fresh);
    lane->n_system = lane->fresh.len;
    return ok;
}

/* What stands between the template and the prompt for the role; empty for the user's. */
static void describe_role(const sim_run *run, const RKLLMInput *input, char *out, size_t room) {
    *out = 0;
#if SIM_HAS_ROLES
    const char *role = or_empty(input->role), *reply = run->handle->tool_response;
    if (strcmp(role, "tool") == 0) snprintf(out, room, "%s", reply ? reply : "<tool_response>");
    else if (*role && strcmp(role, "user") != 0) snprintf(out, room, "%.64s: ", role);
#else
    (void)run, (void)input, (void)room;
#endif
}

static const char *describe_thinking(const sim_run *run, const RKLLMInput *input) {
#if SIM_HAS_ROLES
    if (input->enable_thinking && !run->handle->template_set) return or_empty(run->handle->model.thinking_prefix);
#else
    (void)run, (void)input;
#endif
    return "";
}

/* The text of one turn as the model sees it; NULL: no memory. */
static char *dress(const sim_run *run, const RKLLMInput *input, const char *prompt) {
    const sim_handle *h = run->handle;
    if (run->resumed) return sim_copy(prompt);
    char role[512], *text = NULL;
    describe_role(run, input, role, sizeof role);
    const char *prefix = h->template_set ? h->prompt_prefix : h->model.prompt_prefix;
    const char *postfix = h->template_set ? h->prompt_postfix : h->model.prompt_postfix;
    int n = asprintf(&text, "%s%s%s%s%s", or_empty(prefix), role, prompt, or_empty(postfix), describe_thinking(run, input));
    return n < 0 ? NULL : text;
}

static bool read_text(sim_run *run, sim_lane *lane, const sim_item *item, const RKLLMInput *input) {
    bool media = input->input_type == RKLLM_INPUT_MULTIMODAL;
    const char *given = media ? input->multimodal_input.prompt : input->prompt_input;
    if (!given) {
        sim_log('E', "prompt is NULL");
        return false;
    }
    if (sim_log_level() >= 2) sim_log('I', "prompt: %s", given);
    char *prompt = sim_take_markers(given, &run->faults);
    char *text = prompt ? dress(run, input, prompt) : NULL;
    bool ok = text ? true : sim_no_memory();
    if (ok && !run->resumed && item->kv.len == 0) ok = read_system(run, lane);
    if (ok) ok = media ? sim_read_media(run, input, text, &lane->fresh) : sim_read_prompt(run, text, &lane->fresh);
    free(prompt);
    free(text);
    return ok;
}

bool sim_read_input(sim_run *run, sim_lane *lane, sim_item *item, const RKLLMInput *input) {
    bool ok = false;
    switch (input->input_type) {
    case RKLLM_INPUT_PROMPT:
    case RKLLM_INPUT_MULTIMODAL: ok = read_text(run, lane, item, input); break;
    case RKLLM_INPUT_TOKEN: ok = read_ids(run, &input->token_input, &lane->fresh); break;
    case RKLLM_INPUT_EMBED:
        ok = sim_read_rows(run, input->embed_input.embed, input->embed_input.n_tokens, &lane->fresh);
        break;
    default: sim_log('E', "invalid input type %d", (int)input->input_type);
    }
    if (!ok || sim_too_long(run, lane->fresh.len)) return false;
    if (item->kv.len + lane->fresh.len > (size_t)run->handle->max_context) {
        sim_log('E', "the context is not enough! %zu cached, %zu new", item->kv.len, lane->fresh.len);
        return false;
    }
    return sim_embed(run, lane->fresh.at, lane->fresh.len);
}
