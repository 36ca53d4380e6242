#include "settings.hpp"

#include <sched.h>

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>

#include "log.hpp"

namespace rkvisor {
namespace {

constexpr int32_t kContextStep = 32;
constexpr int32_t kContextMost = 16384;
constexpr int32_t kDefaultThreads = 4;

// Cores this process may use; more threads than that would only wait for each other.
int32_t available_cores() {
    cpu_set_t cores;
    CPU_ZERO(&cores);
    if (sched_getaffinity(0, sizeof cores, &cores) != 0) return 1;
    const int count = CPU_COUNT(&cores);
    return count > 0 ? count : 1;
}

int32_t read_threads(const RKLLMExtendParam &extend) {
    const int32_t wanted = extend.enabled_cpus_num;
    if (wanted < 0) refuse("enabled_cpus_num[%d] must not be negative", wanted);
    // The mask names cores of the vendor's boards; here only its agreement with the count matters.
    const int named = __builtin_popcount(extend.enabled_cpus_mask);
    if (extend.enabled_cpus_mask != 0 && wanted != 0 && named != wanted) {
        refuse("Mismatch between enabled CPUs mask[0x%x] and enabled_cpus_num[%d]", extend.enabled_cpus_mask, wanted);
    }
    const int32_t threads = wanted != 0 ? wanted : named != 0 ? named : kDefaultThreads;
    return threads < available_cores() ? threads : available_cores();
}

void check_file(const std::string &path) {
    const std::unique_ptr<FILE, int (*)(FILE *)> file(std::fopen(path.c_str(), "rb"), &std::fclose);
    if (!file) refuse("cannot open model file %s: %s", path.c_str(), std::strerror(errno));
    char magic[4] = {};
    errno = 0;
    if (std::fread(magic, 1, sizeof magic, file.get()) != sizeof magic && errno != 0) {
        refuse("cannot read model file %s: %s", path.c_str(), std::strerror(errno));
    }
    if (std::memcmp(magic, "GGUF", sizeof magic) != 0) {
        refuse("invalid magic characters in model file %s: this runtime needs a GGUF file", path.c_str());
    }
}

}  // namespace

void check_sampling(const RKLLMSamplingParam &sampling) {
    const std::pair<const char *, float> numbers[] = {
        {"top_p", sampling.top_p},
        {"temperature", sampling.temperature},
        {"repeat_penalty", sampling.repeat_penalty},
        {"frequency_penalty", sampling.frequency_penalty},
        {"presence_penalty", sampling.presence_penalty},
        {"mirostat_tau", sampling.mirostat_tau},
        {"mirostat_eta", sampling.mirostat_eta},
    };
    for (const auto &[name, value] : numbers) {
        if (!std::isfinite(value)) refuse("%s must be a finite number", name);
    }
    if (sampling.mirostat < 0 || sampling.mirostat > 2) refuse("mirostat[%d] must be 0, 1 or 2", sampling.mirostat);
}

Settings read_settings(const RKLLMParam &param) {
    if (param.model_path == nullptr) refuse("model_path must not be NULL");
    Settings settings;
    settings.model_path = param.model_path;
    settings.context = param.max_context_len;
    if (settings.context <= 0 || settings.context % kContextStep != 0) {
        refuse("max_context[%d] must be a positive multiple of %d", settings.context, kContextStep);
    }
    if (settings.context > kContextMost) {
        refuse("max_context[%d] must be less than or equal to %d", settings.context, kContextMost);
    }
    if (param.n_keep >= settings.context) {
        refuse("The n_keep must be less than max_context: n_keep[%d], max_context[%d]", param.n_keep, settings.context);
    }
    settings.max_new_tokens = param.max_new_tokens > 0 ? param.max_new_tokens : 0;
    settings.sampling = {param.top_k,
                         param.top_p,
                         param.temperature,
                         param.repeat_penalty,
                         param.frequency_penalty,
                         param.presence_penalty,
                         param.mirostat,
                         param.mirostat_tau,
                         param.mirostat_eta};
    check_sampling(settings.sampling);
    settings.skip_special = param.skip_special_token;
    settings.ignore_end = param.ignore_eos_token;
    settings.is_async = param.is_async;
    settings.threads = read_threads(param.extend_param);
    if (param.extend_param.n_batch > 1) {
        refuse("n_batch[%d] must be 1: the CPU runtime runs one request at a time", param.extend_param.n_batch);
    }
    if (param.extend_param.use_cross_attn != 0) refuse("cross attention is not supported by the CPU runtime");
    check_file(settings.model_path);
    return settings;
}

RKLLMParam default_param() {
    RKLLMParam param{};
    param.max_context_len = 512;
    param.max_new_tokens = 512;
    param.top_k = 40;
    param.n_keep = 0;
    param.top_p = 0.9F;
    param.temperature = 0.8F;
    param.repeat_penalty = 1.1F;
    param.mirostat_tau = 5.0F;
    param.mirostat_eta = 0.1F;
    param.skip_special_token = true;
    param.extend_param.enabled_cpus_num = kDefaultThreads;
    param.extend_param.n_batch = 1;
    return param;
}

}  // namespace rkvisor
