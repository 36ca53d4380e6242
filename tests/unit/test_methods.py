"""Params of the methods: decoding is total, by name or by position, and says what is wrong and what would be right."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkvisor.protocol.errors import InvalidParams
from rkvisor.protocol.methods import METHODS, AbortParams, check_abort
from rkvisor.protocol.params import NoParams, Params, decode_params
from rkvisor.protocol.run import NOT_IN_DIGEST, SAMPLING, RunParams, check_run, is_greedy

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
kinds = st.sampled_from(sorted({method.params for method in METHODS.values()}, key=lambda kind: kind.__name__))


@given(kinds, st.data())
def test_any_params_are_decoded_or_refused(kind: type[Params], data: st.DataObject) -> None:
    named = st.dictionaries(st.sampled_from([*kind.__struct_fields__, "modle", ""]), values, max_size=4)
    raw = json.dumps(data.draw(named | st.lists(values, max_size=4))).encode()
    outcome = decode(raw, kind)
    assert outcome.startswith("cannot ") if isinstance(outcome, str) else isinstance(outcome, kind)


@given(kinds, st.binary(max_size=30), st.sampled_from([b"{", b"[", b'{"model":', b"[[", b""]))
def test_even_bytes_that_are_no_json_are_refused_in_good_order(kind: type[Params], tail: bytes, head: bytes) -> None:
    outcome = decode(head + tail, kind)
    assert isinstance(outcome, str | kind)


def test_nesting_beyond_the_decoders_depth_is_refused() -> None:
    for opening in (b"[", b'{"model":'):
        with pytest.raises(InvalidParams):
            decode_params(RunParams, opening * 100_000)


@given(st.integers(0, 3), st.text(min_size=1, max_size=5), st.text(max_size=5))
def test_params_by_position_are_params_by_name_in_the_order_of_the_fields(count: int, model: str, prompt: str) -> None:
    given_values: list[Any] = [model, prompt, None][:count]
    named = dict(zip(RunParams.__struct_fields__, given_values, strict=False))
    by_position, by_name = [decode(json.dumps(one).encode()) for one in (given_values, named)]
    assert by_position == by_name


def decode(raw: bytes, kind: type[Params] = RunParams) -> Any:
    try:
        return decode_params(kind, raw)
    except InvalidParams as error:
        return str(error)


@pytest.mark.parametrize(
    ("raw", "parts"),
    [
        (b'{"model":"demo","promt":"x"}', ["'promt'", "did you mean 'prompt'?"]),
        (b'{"model":"demo","zzzzzz":1}', ["'zzzzzz'", "known: model, prompt"]),
        (b'{"model":"demo","max_new_tokens":0}', ["max_new_tokens", ">= 1"]),
        (b'{"model":"demo","max_new_tokens":16385}', ["max_new_tokens", "<= 16384"]),
        (b'{"model":"demo","max_new_tokens":"9"}', ["max_new_tokens", "int", "str"]),
        (b'{"model":"demo","max_new_tokens":1.5}', ["max_new_tokens", "int", "float"]),
        (b'{"model":"demo","stop":[""]}', ["stop", "length >= 1"]),
        (b'{"model":"demo","tokens":[]}', ["tokens", "length >= 1"]),
        (b'{"model":"demo","tokens":[-1]}', ["tokens", ">= 0"]),
        (b'{"model":"demo","retry":"maybe"}', ["retry", "maybe"]),
        (b'{"model":"demo","priority":10}', ["priority", "<= 9"]),
        (b'{"prompt":"x"}', ["model"]),
        (b'{"model":""}', ["model", "length >= 1"]),
        (b'{"model":7}', ["model", "str"]),
        (b"[]", ["model"]),
        (b'["demo","x",null,"user",false,"generate",3,"four"]', ["top_k", "int", "str"]),
    ],
)
def test_a_refusal_names_the_member_and_what_was_expected(raw: bytes, parts: list[str]) -> None:
    message = decode(raw)
    assert isinstance(message, str)
    assert [part for part in parts if part not in message] == []


def test_too_many_params_by_position_are_refused_with_their_names() -> None:
    message = decode(b"[1]", NoParams)
    assert (message, decode(b"[1,2,3]", AbortParams)) == (
        "cannot take 1 params by position: the method takes none",
        "cannot take 3 params by position: the method takes 2: request, request_key",
    )


def run_params(**members: Any) -> RunParams:
    return RunParams(model="demo", **members)


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({}, "got none"),
        ({"prompt": "a", "tokens": [1]}, "got prompt and tokens"),
        ({"prompt": "a\0b"}, "U+0000"),
        ({"prompt": "a", "role": "us\0er"}, "U+0000"),
    ],
)
def test_what_types_cannot_say_is_checked_too(members: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidParams) as caught:
        check_run(run_params(**members))
    assert problem in caught.value.message


@pytest.mark.parametrize("members", [{"prompt": ""}, {"prompt": "a"}, {"tokens": [0]}])
def test_exactly_one_input_runs(members: dict[str, Any]) -> None:
    check_run(run_params(**members))


def test_an_abort_names_exactly_one_target() -> None:
    check_abort(decode(b'{"request":null}', AbortParams))
    check_abort(decode(b'{"request_key":"k"}', AbortParams))
    for raw in (b"{}", b'{"request":1,"request_key":"k"}'):
        with pytest.raises(InvalidParams, match="exactly one"):
            check_abort(decode(raw, AbortParams))


@pytest.mark.parametrize(
    ("members", "defaults", "expected"),
    [
        ({}, {}, False),
        ({"temperature": 0}, {}, True),
        ({"top_k": 1}, {}, True),
        ({}, {"temperature": 0.0}, True),
        ({}, {"top_k": 1}, True),
        ({"temperature": 0.5}, {"temperature": 0.0}, False),
        ({"temperature": 0.5, "top_k": 1}, {}, True),
        ({"temperature": 0, "top_k": 40}, {"temperature": 0.8}, True),
    ],
)
def test_greedy_is_what_leaves_nothing_to_chance(
    members: dict[str, Any], defaults: dict[str, Any], expected: bool
) -> None:
    assert is_greedy(run_params(prompt="x", **members), defaults) is expected


def test_the_members_named_elsewhere_exist() -> None:
    assert {*SAMPLING, *NOT_IN_DIGEST} <= set(RunParams.__struct_fields__)


def test_admin_methods_are_exactly_those_that_say_so_in_their_name() -> None:
    assert {name for name, method in METHODS.items() if method.admin} == {
        name for name in METHODS if name.startswith("admin.")
    }
