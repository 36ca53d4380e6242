// Prompts computed once and kept in a file.  The format is rkvisor's own, because libllama trusts the state it is
// given: a file cut short was seen to end the process, and one of another model to be taken.
#ifndef RKVISOR_LLAMA_PROMPT_CACHE_HPP
#define RKVISOR_LLAMA_PROMPT_CACHE_HPP

#include <string>

#include "engine.hpp"

namespace rkvisor {

struct PromptCache {
    std::vector<llama_token> tokens;
    std::vector<uint8_t> state;
};

// What the engine's cache holds now.  The file appears whole or not at all.  Throws Refused.
void write_prompt_cache(const Engine &engine, const std::string &path);

// Throws Refused for a file that is missing, damaged, or of another model.
PromptCache read_prompt_cache(const Engine &engine, const std::string &path, int32_t context);

}  // namespace rkvisor

#endif
