"""The calls that configure a model's workers or ask them something: their params and results.

A call without a session configures the model: every worker of it, those that start later too; see
``supervisor/calls/setup.py``.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from rkvisor.protocol.errors import InvalidParams
from rkvisor.protocol.limits import MAX_CONTEXT
from rkvisor.protocol.params import Params, RawId
from rkvisor.protocol.tensors import Tensor

ModelName = Annotated[str, Meta(min_length=1, description="name of a configured model")]
Path = Annotated[str, Meta(min_length=1, max_length=4096, description="below the directory configured for it")]
Text = Annotated[str, Meta(max_length=1_000_000)]
Positions = Annotated[list[Annotated[int, Meta(ge=0, le=MAX_CONTEXT)]], Meta(min_length=1, max_length=100)]


class LoadLoraParams(Params, frozen=True):
    """One adapter.  name: by which ``rkllm.run`` selects it."""

    model: ModelName
    path: Path
    name: Annotated[str, Meta(min_length=1, max_length=256)]
    scale: Annotated[float, Meta(ge=-100, le=100)] = 1.0


class LoadPromptCacheParams(Params, frozen=True):
    """A file that ``rkllm.run`` wrote with ``prompt_cache``.  It replaces the one that was loaded before."""

    model: ModelName
    path: Path


class ReleasePromptCacheParams(Params, frozen=True):
    """Forget the prompt cache of the model."""

    model: ModelName


class ClearKvCacheParams(Params, frozen=True):
    """start, end: positions [start, end) of each of the n_batch items, in the client's paused requests (F4 and F5).

    request: only in this one, by its id.
    """

    model: ModelName
    keep_system_prompt: bool = False
    start: Positions | None = None
    end: Positions | None = None
    request: RawId | msgspec.UnsetType = msgspec.UNSET


class GetKvCacheSizeParams(Params, frozen=True):
    """Of every worker of the model."""

    model: ModelName


class SetChatTemplateParams(Params, frozen=True):
    """It replaces the model's own template, and switches thinking off (RKLLM's rule)."""

    model: ModelName
    system_prompt: Text = ""
    prompt_prefix: Text = ""
    prompt_postfix: Text = ""


class SetFunctionToolsParams(Params, frozen=True):
    """tools: JSON text.  tool_response: the mark that introduces a tool's reply."""

    model: ModelName
    system_prompt: Text = ""
    tools: Text = ""
    tool_response: Text = ""


class SetCrossAttnParams(Params, frozen=True):
    """The encoder's caches, float32, and positions, int32; see RKLLMCrossAttnParam."""

    model: ModelName
    encoder_k_cache: Tensor
    encoder_v_cache: Tensor
    encoder_mask: Tensor
    encoder_pos: Tensor
    num_tokens: Annotated[int, Meta(ge=1, le=MAX_CONTEXT)]


class CallResult(msgspec.Struct, kw_only=True):
    """workers: those that did it."""

    workers: list[str]


class KvCacheSizes(msgspec.Struct, kw_only=True):
    """workers: tokens in the cache of each, one number for each of the n_batch items.

    stale: workers that do not answer now, most often because they run a request; their numbers are what they said last.
    """

    workers: dict[str, list[int]]
    stale: list[str] = []


def kept_as(name: str, params: Params) -> tuple[str, str] | None:
    """Under which a call is kept: a later one with the same key replaces it.  None: it is not kept."""
    if isinstance(params, (ClearKvCacheParams, GetKvCacheSizeParams, ReleasePromptCacheParams)):
        return None
    return name, params.name if isinstance(params, LoadLoraParams) else ""


def check_call(params: Params) -> None:
    """What the types cannot say.  Raises InvalidParams."""
    for name in params.__struct_fields__:
        value = getattr(params, name)
        if isinstance(value, str) and "\0" in value:
            raise InvalidParams(f"cannot pass a {name} with U+0000: the runtime reads it as the end of the text")
    if isinstance(params, ClearKvCacheParams):
        if (params.start is None) != (params.end is None):
            raise InvalidParams("cannot clear a range of the KV cache without both start and end")
        if params.start is not None and params.end is not None and len(params.start) != len(params.end):
            text = f"start has {len(params.start)} positions, end has {len(params.end)}"
            raise InvalidParams(f"cannot clear ranges of the KV cache: {text}")
        if params.start is None and params.request is not msgspec.UNSET:
            raise InvalidParams("cannot clear the KV cache of one request as a whole: name start and end")


#: What makes a process take the last call back that it did; rkvisord's own, no client's.
UNDO = "rkvisor.undo"

#: name of the method → its params, in the RKLLM API's terms.
CALLS: dict[str, type[Params]] = {
    "rkllm.load_lora": LoadLoraParams,
    "rkllm.load_prompt_cache": LoadPromptCacheParams,
    "rkllm.release_prompt_cache": ReleasePromptCacheParams,
    "rkllm.clear_kv_cache": ClearKvCacheParams,
    "rkllm.get_kv_cache_size": GetKvCacheSizeParams,
    "rkllm.set_chat_template": SetChatTemplateParams,
    "rkllm.set_function_tools": SetFunctionToolsParams,
    "rkllm.set_cross_attn_params": SetCrossAttnParams,
}
