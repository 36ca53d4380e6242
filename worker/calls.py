"""Calls that configure the loaded model or ask it something: from their params to the functions of the binding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rkvisor.cython_ext import _rkllm
from rkvisor.protocol import tensors
from rkvisor.protocol.calls import (
    CALLS,
    ClearKvCacheParams,
    GetKvCacheSizeParams,
    LoadLoraParams,
    LoadPromptCacheParams,
    ReleasePromptCacheParams,
    SetChatTemplateParams,
    SetCrossAttnParams,
    SetFunctionToolsParams,
)
from rkvisor.protocol.errors import InvalidParams
from rkvisor.protocol.params import Params, decode_params
from rkvisor.protocol.tensors import Array

if TYPE_CHECKING:
    from rkvisor.worker.model import Model


def perform(model: Model, name: str, raw_params: bytes, attachments: Sequence[bytes]) -> Any:
    """Do *name*; returns what the method answers for this worker.

    Raises the binding's errors and InvalidParams.
    """
    params: Params = decode_params(CALLS[name], raw_params)
    runtime = model.runtime
    match params:
        case LoadLoraParams():
            runtime.load_lora(params.path, params.name, params.scale)
        case LoadPromptCacheParams():
            model.load_prompt_cache(params.path)
        case ReleasePromptCacheParams():
            model.release_prompt_cache()
        case ClearKvCacheParams():
            _clear_kv_cache(runtime, params)
        case GetKvCacheSizeParams():
            return runtime.get_kv_cache_size()
        case SetChatTemplateParams():
            runtime.set_chat_template(params.system_prompt, params.prompt_prefix, params.prompt_postfix)
            model.prompts.set_parts(params.system_prompt, params.prompt_prefix, params.prompt_postfix)
        case SetFunctionToolsParams():
            runtime.set_function_tools(params.system_prompt, params.tools, params.tool_response)
            model.prompts.set_tools(params.system_prompt, params.tools)
        case SetCrossAttnParams():
            _set_cross_attention(model, params, attachments)
    return None


def _clear_kv_cache(runtime: _rkllm.Runtime, params: ClearKvCacheParams) -> None:
    try:
        runtime.clear_kv_cache(params.keep_system_prompt, params.start, params.end)
    except _rkllm.RkllmError:
        if params.start is None:
            raise
        text = "no request of this connection is paused; rkllm.pause one first"
        raise InvalidParams(f"cannot clear a range of the KV cache: {text}") from None


def _set_cross_attention(model: Model, params: SetCrossAttnParams, attachments: Sequence[bytes]) -> None:
    k = tensors.read(params.encoder_k_cache, attachments, "encoder_k_cache")
    v = tensors.read(params.encoder_v_cache, attachments, "encoder_v_cache")
    mask = tensors.read(params.encoder_mask, attachments, "encoder_mask")
    pos = tensors.read(params.encoder_pos, attachments, "encoder_pos", dtype="int32")
    for what, array in (("encoder_k_cache", k), ("encoder_v_cache", v)):
        _check_rows(what, array, params.num_tokens)
    for what, array in (("encoder_mask", mask), ("encoder_pos", pos)):
        size = len(array.data)
        if size != params.num_tokens:
            raise InvalidParams(f"cannot take {what}: it has {size} numbers, num_tokens is {params.num_tokens}")
    model.runtime.set_cross_attn_params(k.data, v.data, mask.data, pos.data, params.num_tokens)


def _check_rows(what: str, array: Array, num_tokens: int) -> None:
    if num_tokens not in array.shape:
        text = f"no dimension of its shape {list(array.shape)} is num_tokens, {num_tokens}"
        raise InvalidParams(f"cannot take {what}: {text}")
