"""The enums of the RKLLM ABI as clients see them (``rkllm.get_constants``): RKLLM 1.3.0's, by enum name; and the names
of RKLLMParam's members.

A test compares them with ``cython_ext/abi/layouts.json``; the supervisor must not import the binding.
"""

from rkvisor.protocol.run import SAMPLING

CONSTANTS: dict[str, dict[str, int]] = {
    "LLMCallState": {
        "RKLLM_RUN_NORMAL": 0,
        "RKLLM_RUN_WAITING": 1,
        "RKLLM_RUN_FINISH": 2,
        "RKLLM_RUN_ERROR": 3,
    },
    "RKLLMInputType": {
        "RKLLM_INPUT_PROMPT": 0,
        "RKLLM_INPUT_TOKEN": 1,
        "RKLLM_INPUT_EMBED": 2,
        "RKLLM_INPUT_MULTIMODAL": 3,
    },
    "RKLLMInferMode": {
        "RKLLM_INFER_GENERATE": 0,
        "RKLLM_INFER_GET_LAST_HIDDEN_LAYER": 1,
        "RKLLM_INFER_GET_LOGITS": 2,
    },
}

#: Members of RKLLMParam that are numbers, its extension's too, of all families: what a configured ``param`` may name.
PARAM_MEMBERS = (
    "max_context_len",
    "max_new_tokens",
    "n_keep",
    *SAMPLING,
    "skip_special_token",
    "ignore_eos_token",
    "is_async",
    "base_domain_id",
    "embed_flash",
    "enabled_cpus_num",
    "enabled_cpus_mask",
    "n_batch",
    "use_cross_attn",
)
