"""One payload has one digest, however it is written; whatever changes the answer changes it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkvisor.protocol.params import decode_params
from rkvisor.protocol.run import NOT_IN_DIGEST, RunParams
from rkvisor.supervisor.requests.digest import digest_of


def digest(params: Any, *attachments: bytes) -> bytes:
    return digest_of(decode_params(RunParams, json.dumps(params).encode()), attachments)


PLAIN = {"model": "demo", "prompt": "hi"}


@pytest.mark.parametrize(
    "same",
    [
        ["demo", "hi"],
        {"prompt": "hi", "model": "demo"},
        {**PLAIN, "role": "user", "mode": "generate", "stop": [], "retry": "auto", "max_new_tokens": None},
        ["demo", "hi", None, "user", False],
        {**PLAIN, "stream": True},
        {**PLAIN, "deadline_ms": 5, "priority": 9, "request_key": "k"},
    ],
)
def test_the_same_payload_has_the_same_digest_however_it_is_written(same: Any) -> None:
    assert digest(same) == digest(PLAIN)


def test_a_number_is_the_same_with_and_without_a_point() -> None:
    assert digest({**PLAIN, "temperature": 1}) == digest({**PLAIN, "temperature": 1.0})


@pytest.mark.parametrize(
    "other",
    [
        {**PLAIN, "prompt": "ho"},
        {**PLAIN, "model": "other"},
        {**PLAIN, "max_new_tokens": 5},
        {**PLAIN, "temperature": 0.5},
        {**PLAIN, "stop": ["x"]},
        {**PLAIN, "retry": "never"},
        {**PLAIN, "session": "s"},
        {"model": "demo", "prompts": ["hi"]},
        {"model": "demo", "tokens": [1]},
    ],
)
def test_what_changes_the_answer_changes_the_digest(other: Any) -> None:
    assert digest(other) != digest(PLAIN)


def test_attachments_count_by_content_and_order() -> None:
    embed = {"model": "demo", "embed": {"attachment": 0, "shape": [1, 1]}}
    assert digest(embed, b"a") == digest(embed, b"a") != digest(embed, b"b")
    assert digest(embed, b"a", b"b") != digest(embed, b"b", b"a") != digest(embed, b"ab")


values = {
    "prompt": st.text(max_size=5),
    "max_new_tokens": st.integers(1, 9),
    "temperature": st.sampled_from([0, 0.5, 1.0]),
    "stop": st.lists(st.text(min_size=1, max_size=2), max_size=2),
    "stream": st.booleans(),
    "priority": st.integers(0, 9),
}


@given(st.fixed_dictionaries({}, optional=values), st.fixed_dictionaries({}, optional=values))
def test_digests_are_equal_only_if_all_that_counts_is(one: dict[str, Any], two: dict[str, Any]) -> None:
    def counted(given: dict[str, Any]) -> dict[str, Any]:
        whole = {"prompt": None, "max_new_tokens": None, "temperature": None, "stop": [], **given}
        return {name: value for name, value in whole.items() if name not in NOT_IN_DIGEST}

    equal = digest({"model": "m", **one}) == digest({"model": "m", **two})
    assert equal == (counted(one) == counted(two))
