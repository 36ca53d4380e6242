#include "chat.hpp"

#include "log.hpp"

namespace rkvisor {
namespace {

bool starts_with(const std::string &text, const std::string &head) { return text.compare(0, head.size(), head) == 0; }

// Models that think decide by an empty thought put in their mouth (Qwen3's template does it that way).
constexpr const char *kNoThought = "<think>\n\n</think>\n\n";

}  // namespace

Chat::Chat(const llama_model *model) {
    const char *own = llama_model_chat_template(model, nullptr);
    if (own == nullptr) return;
    template_ = own;
    const llama_chat_message probe{"user", "x"};
    if (llama_chat_apply_template(own, &probe, 1, true, nullptr, 0) < 0) {
        template_.clear();
        log_line(Level::warning,
                 "the model's chat template is of an unknown kind: prompts are sent as they are; set one with "
                 "rkllm_set_chat_template");
    }
}

void Chat::set_parts(const std::string &system, const std::string &prefix, const std::string &postfix) {
    parts_ = Parts{system, prefix, postfix};
}

void Chat::set_tools(const std::string &system, const std::string &tools, const std::string &response_tag) {
    system_ = system;
    if (!tools.empty()) {
        if (!system_.empty()) system_ += "\n\n";
        system_ +=
            "# Tools\n\nThese functions may be called to answer the user. Their signatures, as JSON:\n<tools>\n" +
            tools +
            "\n</tools>\n\nTo call one, write a JSON object with its name and arguments inside <tool_call></tool_call> "
            "tags:\n"
            "<tool_call>\n{\"name\": \"<function name>\", \"arguments\": {<arguments>}}\n</tool_call>";
    }
    response_tag_ = response_tag;
    // "tool_response" and "<tool_response>" name the same tag.
    if (response_tag_.size() > 2 && response_tag_.front() == '<' && response_tag_.back() == '>') {
        response_tag_ = response_tag_.substr(1, response_tag_.size() - 2);
    }
}

std::string Chat::apply(const std::vector<Message> &messages, bool opens_answer) const {
    std::vector<llama_chat_message> views;
    size_t bytes = 256;
    for (const Message &message : messages) {
        views.push_back({message.role.c_str(), message.content.c_str()});
        bytes += 2 * (message.role.size() + message.content.size()) + 64;
    }
    std::string text(bytes, '\0');
    const auto fill = [&] {
        return llama_chat_apply_template(template_.c_str(), views.data(), views.size(), opens_answer, text.data(),
                                         static_cast<int32_t>(text.size()));
    };
    int32_t size = fill();
    if (size > static_cast<int32_t>(text.size())) {
        text.resize(static_cast<size_t>(size));
        size = fill();
    }
    if (size < 0) refuse("the chat template cannot be applied");
    text.resize(static_cast<size_t>(size));
    return text;
}

std::vector<Chat::Message> Chat::with_system(std::vector<Message> messages) const {
    if (!system_.empty()) messages.insert(messages.begin(), {"system", system_});
    return messages;
}

Chat::Message Chat::message_of(const Turn &turn) const {
    if (turn.role != "tool" || response_tag_.empty()) return {turn.role, turn.content};
    return {"user", "<" + response_tag_ + ">\n" + turn.content + "\n</" + response_tag_ + ">"};
}

std::string Chat::opening() const {
    if (parts_) return parts_->system + (system_.empty() ? "" : system_);
    if (system_.empty()) return "";
    return template_.empty() ? system_ + "\n" : apply(with_system({}), false);
}

std::string Chat::render(const Turn &turn) const {
    const bool is_first = transcript_.empty();
    const Message message = message_of(turn);
    if (parts_) return (is_first ? opening() : "") + parts_->prefix + message.content + parts_->postfix;
    if (template_.empty()) return (is_first ? opening() : "") + message.content;
    std::vector<Message> messages = messages_;
    messages.push_back(message);
    std::string text = apply(with_system(messages), true);
    if (!turn.is_thinking && template_.find("enable_thinking") != std::string::npos) text += kNoThought;
    if (starts_with(text, transcript_)) return text.substr(transcript_.size());
    // The cache holds something no template would write (token input, an edited answer): the turn goes behind it.
    return apply({message}, true);
}

void Chat::remember(const Turn &turn, const std::string &rendered, const std::string &answer,
                    const std::string &spelled) {
    messages_.push_back(message_of(turn));
    messages_.push_back({"assistant", answer});
    transcript_ += rendered + spelled;
}

void Chat::forget(const std::string &kept) {
    messages_.clear();
    transcript_ = kept;
}

}  // namespace rkvisor
