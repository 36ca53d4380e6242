#include "prompt_cache.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>

#include "log.hpp"

namespace rkvisor {
namespace {

constexpr uint64_t kBasis = 0xcbf29ce484222325ULL;

// 64-bit FNV-1a: against damage and mix-ups, not against forgers.
uint64_t hash_of(const void *data, size_t size, uint64_t hash = kBasis) {
    const auto *bytes = static_cast<const unsigned char *>(data);
    for (size_t at = 0; at < size; ++at) hash = (hash ^ bytes[at]) * 0x100000001b3ULL;
    return hash;
}

struct Head {
    char magic[8];
    uint64_t model;  // fingerprint of model and engine
    uint64_t n_tokens;
    uint64_t n_state;   // bytes
    uint64_t checksum;  // over tokens and state
};
constexpr char kMagic[8] = {'R', 'K', 'V', 'C', 'A', 'C', 'H', '1'};

// Everything the model file says about itself, and the engine, whose state is of no use to another.
uint64_t fingerprint(const llama_model *model) {
    uint64_t hash = hash_of(RKVISOR_ENGINE_BUILD, sizeof RKVISOR_ENGINE_BUILD);
    const uint64_t sizes[] = {llama_model_size(model), llama_model_n_params(model)};
    hash = hash_of(sizes, sizeof sizes, hash);
    char text[4096];
    for (int32_t at = 0; at < llama_model_meta_count(model); ++at) {
        llama_model_meta_key_by_index(model, at, text, sizeof text);
        hash = hash_of(text, std::strlen(text), hash);
        llama_model_meta_val_str_by_index(model, at, text, sizeof text);
        hash = hash_of(text, std::strlen(text), hash);
    }
    return hash;
}

size_t bytes_of(const std::vector<llama_token> &tokens) { return tokens.size() * sizeof(llama_token); }

uint64_t checksum_of(const PromptCache &cache) {
    return hash_of(cache.state.data(), cache.state.size(), hash_of(cache.tokens.data(), bytes_of(cache.tokens)));
}

bool write_all(const std::string &path, const Head &head, const PromptCache &cache) {
    const std::unique_ptr<FILE, int (*)(FILE *)> file(std::fopen(path.c_str(), "wb"), &std::fclose);
    return file && std::fwrite(&head, sizeof head, 1, file.get()) == 1 &&
           std::fwrite(cache.tokens.data(), 1, bytes_of(cache.tokens), file.get()) == bytes_of(cache.tokens) &&
           std::fwrite(cache.state.data(), 1, cache.state.size(), file.get()) == cache.state.size() &&
           std::fflush(file.get()) == 0 && fsync(fileno(file.get())) == 0;
}

}  // namespace

void write_prompt_cache(const Engine &engine, const std::string &path) {
    const PromptCache cache{engine.cached(), engine.save_state()};
    Head head{};
    std::memcpy(head.magic, kMagic, sizeof kMagic);
    head.model = fingerprint(engine.model());
    head.n_tokens = cache.tokens.size();
    head.n_state = cache.state.size();
    head.checksum = checksum_of(cache);
    // Several processes may save to one path at a time.
    const std::string draft = path + "." + std::to_string(getpid()) + ".tmp";
    if (write_all(draft, head, cache) && std::rename(draft.c_str(), path.c_str()) == 0) return;
    const int reason = errno;
    std::remove(draft.c_str());
    refuse("cannot save prompt cache %s: %s", path.c_str(), std::strerror(reason));
}

PromptCache read_prompt_cache(const Engine &engine, const std::string &path, int32_t context) {
    std::ifstream file(path, std::ios::binary);
    if (!file) refuse("cannot open prompt cache %s: %s", path.c_str(), std::strerror(errno));
    file.seekg(0, std::ios::end);
    const auto size = static_cast<uint64_t>(file.tellg());
    file.seekg(0);
    Head head{};
    file.read(reinterpret_cast<char *>(&head), sizeof head);
    if (!file || std::memcmp(head.magic, kMagic, sizeof kMagic) != 0) {
        refuse("invalid magic characters in prompt cache %s", path.c_str());
    }
    if (head.model != fingerprint(engine.model())) {
        refuse("cannot use prompt cache %s: it is of another model or engine", path.c_str());
    }
    if (head.n_tokens > static_cast<uint64_t>(context)) {
        refuse("the length of prompt cache %s is greater than max context: %llu tokens, max_context[%d]", path.c_str(),
               static_cast<unsigned long long>(head.n_tokens), context);
    }
    // Nothing the head says is believed before the file's own size bears it out.
    const uint64_t tokens_size = head.n_tokens * sizeof(llama_token);
    PromptCache cache;
    if (head.n_state <= size && sizeof head + tokens_size + head.n_state == size) {
        cache.tokens.resize(head.n_tokens);
        cache.state.resize(head.n_state);
        file.read(reinterpret_cast<char *>(cache.tokens.data()), static_cast<std::streamsize>(tokens_size));
        file.read(reinterpret_cast<char *>(cache.state.data()), static_cast<std::streamsize>(head.n_state));
        if (file && checksum_of(cache) == head.checksum) return cache;
    }
    refuse("cannot use prompt cache %s: it is damaged", path.c_str());
}

}  // namespace rkvisor
