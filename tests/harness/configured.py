"""Models as a test configures them by calls: what both workers of one say, and what a family lacks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from harness.api import Api, floats, ints, ref
from harness.rkvisord import RpcError

K, V, MASK, POS = floats(*range(8)), floats(*range(8, 16)), floats(1, 1), ints(0, 1)
CROSS = {
    "encoder_k_cache": ref(0, 2, 4),
    "encoder_v_cache": ref(1, 2, 4),
    "encoder_mask": ref(2, 2),
    "encoder_pos": ref(3, 2, dtype="int32"),
    "num_tokens": 2,
}


def loaded(api: Api, name: str) -> Iterator[str]:
    assert api.call("model.load", {"model": name})["state"] == "RUNNING"
    yield name
    assert api.call("model.unload", {"model": name})["state"] == "STOPPED"


def both(api: Api, name: str, **params: Any) -> list[str]:
    """The texts of one run on each of the two workers: requests of one message are dispatched at once."""
    run = {"jsonrpc": "2.0", "method": "rkllm.run", "params": {"model": name, "prompt": " tell", **params}}
    api.send_raw(json.dumps([{**run, "id": i} for i in range(2)]).encode())
    answers, _ = api.receive()
    assert {one["result"]["worker"] for one in answers} == {f"{name}:0", f"{name}:1"}
    return [one["result"]["text"] for one in answers]


def same(api: Api, name: str, **params: Any) -> str:
    """The one text that both workers give."""
    first, second = both(api, name, **params)
    assert first == second
    return first


def error_of(api: Api, method: str, params: dict[str, Any], *attachments: bytes) -> RpcError:
    with pytest.raises(RpcError) as caught:
        api.call(method, params, *attachments)
    return caught.value


def lacks(api: Api, method: str, params: dict[str, Any], *attachments: bytes) -> bool:
    """Whether the family lacks *method*; then it must say so, and by name."""
    since = {"rkllm.set_chat_template": 3, "rkllm.clear_kv_cache": 3}.get(method, 4)
    if int(api.family[1]) >= since:
        return False
    error = error_of(api, method, params, *attachments)
    assert (error.code, error.name) == (-32012, "NOT_SUPPORTED")
    assert api.family.upper() in str(error)
    return True
