// From a user's turn to the text the model reads: templates, system prompt, tools, and the conversation so far.
#ifndef RKVISOR_LLAMA_CHAT_HPP
#define RKVISOR_LLAMA_CHAT_HPP

#include <optional>
#include <string>
#include <vector>

#include "llama.h"

namespace rkvisor {

struct Turn {
    std::string role;  // "user", "tool", …
    std::string content;
    bool is_thinking = false;
};

class Chat {
public:
    // Uses the template the model file carries; a model without one reads prompts as they are.
    explicit Chat(const llama_model *model);

    // Replaces the model's template; enable_thinking is then without effect.  Empty parts are allowed.
    void set_parts(const std::string &system, const std::string &prefix, const std::string &postfix);
    void restore_template() { parts_.reset(); }
    // `response_tag` marks the content of later "tool" turns.
    void set_tools(const std::string &system, const std::string &tools, const std::string &response_tag);

    // The text to append to the conversation for this turn, up to where the answer begins.
    std::string render(const Turn &turn) const;
    // The text that a conversation begins with, before any turn; may be empty.
    std::string opening() const;

    // Takes note of what the cache now holds: the rendered turn and the answer, bare and as its tokens spell it.
    void remember(const Turn &turn, const std::string &rendered, const std::string &answer, const std::string &spelled);
    // Content that came without a turn (tokens): later turns are appended behind it.
    void remember_raw(const std::string &spelled) { transcript_ += spelled; }
    // The cache holds only `kept` now.
    void forget(const std::string &kept = "");

private:
    struct Message {
        std::string role;
        std::string content;
    };
    struct Parts {
        std::string system, prefix, postfix;
    };

    std::string apply(const std::vector<Message> &messages, bool opens_answer) const;
    std::vector<Message> with_system(std::vector<Message> messages) const;
    Message message_of(const Turn &turn) const;

    std::string template_;  // empty: none
    std::optional<Parts> parts_;
    std::string system_;
    std::string response_tag_;
    std::vector<Message> messages_;
    std::string transcript_;
};

}  // namespace rkvisor

#endif
