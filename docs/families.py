"""The tables of docs/reference/families.md: what each ABI family can, from its layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wording import CannotGenerate, table

from rkvisor.protocol.methods import METHODS
from rkvisor.protocol.run import SAMPLING

_LAYOUTS = Path(__file__).resolve().parents[1] / "cython_ext" / "abi" / "layouts.json"
FAMILIES: dict[str, Any] = json.loads(_LAYOUTS.read_text(encoding="utf-8"))["families"]
#: An option of a run → the struct and the member of the ABI that carry it, or the enum and its constant.
OPTIONS: dict[str, tuple[str, str]] = {
    "`prompt`": ("RKLLMInputType", "RKLLM_INPUT_PROMPT"),
    "`tokens`": ("RKLLMInputType", "RKLLM_INPUT_TOKEN"),
    "`embed`": ("RKLLMInputType", "RKLLM_INPUT_EMBED"),
    "`multimodal` with `image`": ("RKLLMInputType", "RKLLM_INPUT_MULTIMODAL"),
    "`image`: `n_image` above 1": ("RKLLMMultiModalInput", "n_image"),
    "`image`: `width`, `height`": ("RKLLMMultiModalInput", "image_width"),
    "`image`: `start`, `end`, `content`": ("RKLLMMultiModalInput", "image_start"),
    "`multimodal` with `video`": ("RKLLMMultiModalInput", "video"),
    "`prompts`": ("RKLLMExtendParam", "n_batch"),
    "`role`": ("RKLLMInput", "role"),
    "`enable_thinking`": ("RKLLMInput", "enable_thinking"),
    '`mode` `"hidden"`': ("RKLLMInferMode", "RKLLM_INFER_GET_LAST_HIDDEN_LAYER"),
    '`mode` `"logits"`': ("RKLLMInferMode", "RKLLM_INFER_GET_LOGITS"),
    "`lora`": ("RKLLMInferParam", "lora_params"),
    "`prompt_cache`": ("RKLLMInferParam", "prompt_cache_params"),
    "`session`": ("RKLLMInferParam", "keep_history"),
    f"{', '.join(f'`{name}`' for name in SAMPLING)} other than the model's": ("RKLLMInferParam", "sampling_params"),
    "`max_new_tokens` above the model's": ("RKLLMInferParam", "max_new_tokens"),
    "`perf` of the result": ("RKLLMResult", "perf"),
}
#: Structs that an older family spells otherwise.
_OLD_NAMES = {"RKLLMMultiModalInput": "RKLLMMultiModelInput"}


def _names(family: dict[str, Any], where: str) -> set[str]:
    """The members of a struct or the constants of an enum, nested ones without what is before the dot."""
    if where in family["enums"]:
        return set(family["enums"][where])
    struct = family["structs"].get(where) or family["structs"].get(_OLD_NAMES.get(where, ""))
    return {field[3].rpartition(".")[2] for field in struct["fields"]} if struct else set()


def _rows(can: dict[str, set[str]]) -> str:
    for what, families in can.items():
        if not families:
            raise CannotGenerate(f"cannot find a family that has {what}")
    rows = [(what, *("yes" if name in families else "–" for name in FAMILIES)) for what, families in can.items()]
    return table(("", *FAMILIES), rows)


def versions() -> str:
    """The releases of each family."""
    return table(("family", "releases"), [(name, ", ".join(one["versions"])) for name, one in FAMILIES.items()])


def methods() -> str:
    """The methods that are functions of RKLLM."""
    every = {function for family in FAMILIES.values() for function in family["functions"]}
    served = [name for name in METHODS if name.replace(".", "_") in every]
    return _rows(
        {
            f"`{name}`": {key for key, one in FAMILIES.items() if name.replace(".", "_") in one["functions"]}
            for name in served
        }
    )


def options() -> str:
    """What a run may ask for, and what it may bring."""
    return _rows(
        {
            what: {key for key, one in FAMILIES.items() if name in _names(one, where)}
            for what, (where, name) in OPTIONS.items()
        }
    )


def param() -> str:
    """Members of ``param`` in the configuration: those of RKLLMParam, its extension flattened."""
    left_out = {"model_path", "extend_param", "reserved", "is_async"}
    known = {key: _names(one, "RKLLMParam") | _names(one, "RKLLMExtendParam") for key, one in FAMILIES.items()}
    ordered = dict.fromkeys(
        field[3]
        for one in FAMILIES.values()
        for struct in ("RKLLMParam", "RKLLMExtendParam")
        for field in one["structs"][struct]["fields"]
        if field[3] not in left_out
    )
    return _rows({f"`{name}`": {key for key, names in known.items() if name in names} for name in ordered})


BLOCKS = {
    "family_versions": versions,
    "family_methods": methods,
    "family_options": options,
    "family_param": param,
}
