"""Calls that configure a model: their params decode or are refused, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkvisor.protocol.calls import CALLS, ClearKvCacheParams, check_call, kept_as
from rkvisor.protocol.errors import InvalidParams
from rkvisor.protocol.params import Params, decode_params

USUAL: dict[str, dict[str, Any]] = {
    "rkllm.load_lora": {"path": "a.bin", "name": "x", "scale": 0.5},
    "rkllm.load_prompt_cache": {"path": "a.bin"},
    "rkllm.release_prompt_cache": {},
    "rkllm.clear_kv_cache": {"keep_system_prompt": True, "start": [0], "end": [4], "request": 7},
    "rkllm.get_kv_cache_size": {},
    "rkllm.set_chat_template": {"system_prompt": "s", "prompt_prefix": "p", "prompt_postfix": "q"},
    "rkllm.set_function_tools": {"system_prompt": "s", "tools": "[]", "tool_response": "t"},
    "rkllm.set_cross_attn_params": {
        "encoder_k_cache": {"attachment": 0, "shape": [1]},
        "encoder_v_cache": [[1.0]],
        "encoder_mask": [[1.0]],
        "encoder_pos": [[0]],
        "num_tokens": 1,
    },
}
calls = st.sampled_from(sorted(CALLS))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


def decoded(name: str, params: Any) -> Params | str:
    try:
        found: Params = decode_params(CALLS[name], json.dumps(params).encode())
        check_call(found)
    except InvalidParams as error:
        return str(error)
    return found


@pytest.mark.parametrize("name", CALLS)
def test_the_usual_params_are_taken_by_name_and_by_position(name: str) -> None:
    named = {"model": "demo", **USUAL[name]}
    found = decoded(name, named)
    assert isinstance(found, CALLS[name])
    assert list(named) == list(CALLS[name].__struct_fields__), "the test names every member"
    assert decoded(name, list(named.values())) == found


@given(calls, st.data())
def test_one_changed_member_is_taken_or_refused_and_named(name: str, data: st.DataObject) -> None:
    params = {"model": "demo", **USUAL[name]}
    member = data.draw(st.sampled_from([*params, "modell"]))
    params[member] = data.draw(json_values)
    found = decoded(name, params)
    if isinstance(found, str):
        assert found.startswith("cannot ")
        assert member in found
    else:
        assert member in CALLS[name].__struct_fields__


@given(calls, st.data())
def test_a_nul_in_any_text_is_refused(name: str, data: st.DataObject) -> None:
    params = {"model": "demo", **USUAL[name]}
    member = data.draw(st.sampled_from([key for key, value in params.items() if isinstance(value, str)]))
    params[member] = data.draw(st.text(max_size=3)) + "\0" + data.draw(st.text(max_size=3))
    assert "U+0000" in str(decoded(name, params))


positions = st.none() | st.lists(st.integers(-1, 16385), max_size=3)


@given(positions, positions)
def test_ranges_to_clear_have_as_many_beginnings_as_ends(start: list[int] | None, end: list[int] | None) -> None:
    found = decoded("rkllm.clear_kv_cache", {"model": "demo", "start": start, "end": end})
    pairs = (start is None) == (end is None) and len(start or ()) == len(end or ())
    fits = all(one is None or (one and all(0 <= at <= 16384 for at in one)) for one in (start, end))
    assert isinstance(found, ClearKvCacheParams) == bool(pairs and fits), found


def test_what_is_kept_for_new_workers_is_what_lasts() -> None:
    kept = {name: kept_as(name, decoded(name, {"model": "m", **USUAL[name]})) for name in CALLS}  # type: ignore[arg-type]
    assert {name for name, key in kept.items() if key is None} == {
        "rkllm.release_prompt_cache",
        "rkllm.clear_kv_cache",
        "rkllm.get_kv_cache_size",
    }
    assert kept["rkllm.load_lora"] == ("rkllm.load_lora", "x")
    assert kept["rkllm.set_chat_template"] == ("rkllm.set_chat_template", "")
