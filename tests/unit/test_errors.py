"""The catalogue of errors: pinned, readable back, in the words of the house."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkvisor.protocol import errors
from rkvisor.protocol.errors import CATALOGUE, RKLLM_CODES, InternalError, RkllmFailure, RkvisorError, from_object

GOLDEN = json.loads((Path(__file__).parent / "golden_errors.json").read_text())
kinds = st.sampled_from(sorted(CATALOGUE.values(), key=lambda kind: kind.name))
values = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.lists(st.integers(), max_size=3)
#: What a server may put beside the catalogue's own members.
extras = st.dictionaries(st.text(max_size=8), values, max_size=3).map(
    lambda data: {key: value for key, value in data.items() if key not in FIXED}
)
FIXED = {"name", "severity", "retryable", "retry_after_ms", "component", "timestamp", "source"}


def test_numbers_names_and_severities_are_those_of_the_golden_file() -> None:
    """A change of this file is a change of the interface: programs match on names and numbers."""
    table = {
        kind.name: {"code": kind.code, "severity": kind.severity, "retryable": kind.is_retryable, "base": base_of(kind)}
        for kind in CATALOGUE.values()
    }
    assert table == GOLDEN["errors"]
    assert {name: list(row) for name, row in RKLLM_CODES.items()} == GOLDEN["rkllm"]


def base_of(kind: type[RkvisorError]) -> str:
    return next(
        base.__name__ for base in kind.__mro__[1:] if base.__name__ in ("ClientError", "WorkerError", "SupervisorError")
    )


def test_every_number_and_name_is_given_once() -> None:
    assert len({kind.code for kind in CATALOGUE.values()}) == len(CATALOGUE)
    assert {kind.code for kind in CATALOGUE.values()} == {*range(-32018, -32000), -32700, *range(-32603, -32599)}


@pytest.mark.parametrize("kind", CATALOGUE.values(), ids=lambda kind: kind.name)
def test_severities_are_words_of_the_wire(kind: type[RkvisorError]) -> None:
    assert kind.severity in ("info", "warning", "error", "critical")


@given(kinds, st.text(), st.none() | st.integers(0, 10**6), st.text(max_size=8), extras)
def test_an_error_is_read_back_as_it_was_raised(
    kind: type[RkvisorError], message: str, retry_after_ms: int | None, component: str, data: dict[str, Any]
) -> None:
    error = kind(message, retry_after_ms=retry_after_ms, component=component)
    error.data = data
    read = from_object(json.loads(json.dumps(error.to_object(1234.56789))))
    assert type(read) is kind
    assert (read.message, str(read), read.retry_after_ms, read.component, read.data) == (
        message,
        message,
        retry_after_ms,
        component,
        data,
    )


def test_the_error_object_has_what_the_design_promises() -> None:
    error = errors.QueueFull("cannot queue", retry_after_ms=1000, component="demo", waiting=3)
    assert error.to_object(12.3456) == {
        "code": -32004,
        "message": "cannot queue",
        "data": {
            "name": "QUEUE_FULL",
            "severity": "warning",
            "retryable": True,
            "retry_after_ms": 1000,
            "component": "demo",
            "timestamp": 12.346,
            "waiting": 3,
        },
    }


@pytest.mark.parametrize("name", RKLLM_CODES)
def test_an_error_of_the_runtime_keeps_its_code_and_says_where_it_is_from(name: str) -> None:
    error = RkllmFailure(name, "what it said", component="demo:0", log=["E rkllm: no"])
    error.data["limit"] = 512
    shown = error.to_object(1.0)
    number, text = RKLLM_CODES[name]
    assert (shown["code"], shown["message"]) == (number, f"{text}: what it said")
    assert (shown["data"]["rkllm_code"], shown["data"]["source"], shown["data"]["log"]) == (
        name,
        "RKLLM",
        ["E rkllm: no"],
    )
    assert not shown["data"]["retryable"]
    read = from_object(json.loads(json.dumps(shown)))
    assert isinstance(read, RkllmFailure)
    assert read.to_object(1.0) == shown


def test_a_code_that_rkllm_does_not_have_is_internal() -> None:
    shown = RkllmFailure("RKLLM_NEW", component="demo:0").to_object(1.0)
    assert (shown["code"], shown["message"]) == (-32603, "Internal error")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=6), inner, max_size=2),
    max_leaves=4,
)
names = st.sampled_from(
    ["code", "message", "data", "name", "retry_after_ms", "component", "source", "log", "self", "rkllm_code"]
)
objects = st.dictionaries(names, anything | st.just("RKLLM") | st.dictionaries(names, anything | st.just("RKLLM")))


@given(objects)
def test_any_error_object_of_another_server_becomes_an_exception(error: dict[str, Any]) -> None:
    read = from_object(error)
    assert isinstance(read, RkvisorError)
    assert isinstance(read.to_object(0.0)["data"], dict)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": -32601, "message": "Method not found"}, errors.MethodNotFound),
        ({"code": -32601, "message": "x", "data": {"name": "QUEUE_FULL"}}, errors.QueueFull),
        ({"code": -32099, "message": "x", "data": "text"}, InternalError),
        ({}, InternalError),
    ],
)
def test_an_error_is_known_by_its_name_else_by_its_number(error: dict[str, Any], kind: type[RkvisorError]) -> None:
    assert type(from_object(error)) is kind
