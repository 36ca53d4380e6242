"""The document of rpc.discover: well formed, complete, and of the same mind as the decoder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.json_schema import is_valid, resolve
from rkvisor.protocol.errors import CATALOGUE, InvalidParams
from rkvisor.protocol.methods import METHODS
from rkvisor.protocol.openrpc import document
from rkvisor.protocol.params import decode_params

DOCUMENT = json.loads(json.dumps(document("1.2.3")))
METHODS_BY_NAME = {method["name"]: method for method in DOCUMENT["methods"]}

#: Values at the edges of what any member takes.
EDGES: list[Any] = [
    *(None, True, False, -1, 0, 1, 2, 3, 9, 10, 16384, 16385, 2**31 - 1, 2**31, 86_400_000, 86_400_001, 2**70),
    *(-100.5, -100.0, -0.5, 0.0, 0.5, 1.0, 1.5, 100.0, 100.5, 1e300),
    *(
        "",
        "a",
        "auto",
        "never",
        "generate",
        "hidden",
        "user",
        "01ab",
        "x" * 256,
        "x" * 257,
        "é" * 256,
        "x" * 1024,
        "x" * 1025,
    ),
    *([], [0], [-1], [1.5], ["a"], [""], ["x" * 1025], ["a"] * 16, ["a"] * 17, [None], [[1]]),
    *({}, {"a": 1}),
]


def walk(value: Any) -> Iterator[Any]:
    yield value
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from walk(one)


def test_the_document_is_an_openrpc_document() -> None:
    assert set(DOCUMENT) == {"openrpc", "info", "methods", "components"}
    assert DOCUMENT["openrpc"].startswith("1.")
    assert (DOCUMENT["info"]["title"], DOCUMENT["info"]["version"]) == ("rkvisor", "1.2.3")


def test_the_document_is_made_once_however_often_clients_ask() -> None:
    assert document("1.2.3") is document("1.2.3")


def test_every_method_is_described_once_and_in_full() -> None:
    assert list(METHODS_BY_NAME) == list(METHODS)
    assert len(DOCUMENT["methods"]) == len(METHODS)
    for name, method in METHODS_BY_NAME.items():
        assert method["summary"]
        assert set(method["result"]) == {"name", "schema"}
        names = [param["name"] for param in method["params"]]
        assert names == list(METHODS[name].params.__struct_fields__), "the order is that of params by position"
        required = [param["required"] for param in method["params"]]
        assert required == sorted(required, reverse=True), "what is required stands first"


def test_every_reference_leads_somewhere() -> None:
    references = [value["$ref"] for value in walk(DOCUMENT) if isinstance(value, dict) and "$ref" in value]
    assert references
    for reference in references:
        assert resolve(reference, DOCUMENT) is not None


def test_every_error_of_the_catalogue_is_listed() -> None:
    listed = {name: error["code"] for name, error in DOCUMENT["components"]["errors"].items()}
    assert listed == {kind.name: kind.code for kind in CATALOGUE.values()}


def test_a_request_id_is_described_as_one() -> None:
    for name in ("rkllm.abort", "rkllm.is_running"):
        schema = next(param["schema"] for param in METHODS_BY_NAME[name]["params"] if param["name"] == "request")
        assert [is_valid(value, schema, DOCUMENT) for value in ("a", 1, 1.5, None, [], {}, True)] == [
            *[True] * 4,
            *[False] * 3,
        ]


def verdicts(name: str, params: dict[str, Any]) -> tuple[bool, bool]:
    """What schema and decoder think of *params* for the method."""
    described = METHODS_BY_NAME[name]["params"]
    schema = {
        "type": "object",
        "properties": {param["name"]: param["schema"] for param in described},
        "required": [param["name"] for param in described if param["required"]],
        "additionalProperties": False,
    }
    try:
        decode_params(METHODS[name].params, json.dumps(params).encode())
    except InvalidParams:
        return is_valid(params, schema, DOCUMENT), False
    return is_valid(params, schema, DOCUMENT), True


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=25)
@given(data=st.data())
def test_schema_and_decoder_agree_on_any_params(name: str, data: st.DataObject) -> None:
    fields = METHODS[name].params.__struct_fields__
    members = {}
    for field in data.draw(st.lists(st.sampled_from([*fields, "unknown"]), max_size=4, unique=True)):
        ids = [one for one in EDGES if not isinstance(one, bool | list | dict)]
        members[field] = data.draw(st.sampled_from(ids if field == "request" else EDGES))
    schema, decoder = verdicts(name, members)
    assert schema == decoder


@given(st.sampled_from(METHODS["rkllm.run"].params.__struct_fields__), st.sampled_from(EDGES))
@example("stop", ["x" * 1024] * 16)
@example("tokens", [2**31])
@settings(max_examples=300)
def test_schema_and_decoder_agree_on_every_member_of_a_run(field: str, value: Any) -> None:
    schema, decoder = verdicts("rkllm.run", {"model": "demo", field: value})
    assert schema == decoder
