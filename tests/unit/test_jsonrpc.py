"""Envelopes: reading is total, ids are echoed byte for byte, and broken JSON is told from a wrong request."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rkvisor.protocol import jsonrpc
from rkvisor.protocol.errors import InvalidRequest, ParseError, TooLarge
from rkvisor.protocol.jsonrpc import Invalid, Request, parse
from rkvisor.protocol.limits import MAX_BATCH, MAX_DEPTH, MAX_ID_BYTES, MAX_JSON_BYTES

texts = st.text(max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
ids = st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
params = st.lists(values, max_size=3) | st.dictionaries(texts, values, max_size=3)
requests = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0"), "method": texts}, optional={"id": ids, "params": params, "more": values}
)
messages = st.builds(
    lambda value, is_plain, indent: json.dumps(value, ensure_ascii=is_plain, indent=indent).encode(),
    requests | st.lists(requests, max_size=3) | values,
    st.booleans(),
    st.sampled_from([None, 1]),
)
mutations = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 3), st.binary(max_size=3)), max_size=3)


def mutate(message: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    """Replace a few bytes at a few places."""
    for place, size, new in changes:
        at = place % (len(message) + 1)
        message = message[:at] + new + message[at + size :]
    return message


class NotJson(ValueError):
    pass


def refuse(constant: str) -> Any:
    raise NotJson(constant)


def read(message: bytes) -> Any:
    """The standard library's opinion of *message*, without its extensions to JSON.  Raises ValueError."""
    return json.loads(message.decode(), parse_constant=refuse)


def has_lone_surrogate(value: Any) -> bool:
    return "\\ud" in json.dumps(value) and any(
        0xD800 <= ord(char) < 0xE000 for char in json.dumps(value, ensure_ascii=False)
    )


def check(one: Request | Invalid, value: Any) -> None:
    """*one* is what should come of the JSON value *value*."""
    if isinstance(one, Invalid):
        answer = json.loads(jsonrpc.error_response(one.id, jsonrpc.encode(one.error.to_object(1.0))))
        assert answer["jsonrpc"] == "2.0"
        assert answer["error"]["message"].startswith("cannot ")
        assert one.error.code == -32600
        is_request = isinstance(value, dict) and value.get("jsonrpc") == "2.0" and isinstance(value.get("method"), str)
        if is_request and isinstance(value.get("params", []), list | dict):
            assert isinstance(value["id"], bool | list | dict) or len(json.dumps(value["id"])) > 30
        return
    assert isinstance(value, dict)
    assert value["jsonrpc"] == "2.0"
    assert one.method == value["method"]
    assert json.loads(one.params) == value.get("params", {})
    assert ("id" in value) == (one.id is not None)
    if one.id is not None:
        assert json.loads(one.id) == value["id"]
        assert not isinstance(value["id"], bool)
        assert json.loads(jsonrpc.response(one.id, b"null")) == {"jsonrpc": "2.0", "id": value["id"], "result": None}


def check_message(message: bytes) -> None:
    parsed = parse(message)
    try:
        value = read(message)
    except (ValueError, RecursionError):
        assert isinstance(parsed, Invalid)
        assert (parsed.id, type(parsed.error)) == (b"null", ParseError)
        return
    if has_lone_surrogate(value):
        assert isinstance(parsed, Invalid)
        return
    if isinstance(value, list) and value:
        assert isinstance(parsed, list)
        assert len(parsed) == len(value)
        for one, element in zip(parsed, value, strict=True):
            check(one, element)
    else:
        assert not isinstance(parsed, list)
        check(parsed, value)


@given(messages)
def test_every_json_text_is_read_as_what_it_says(message: bytes) -> None:
    check_message(message)


@settings(max_examples=400)
@given(messages, mutations)
def test_a_message_with_a_few_bytes_changed_is_read_or_refused_like_any_other(
    message: bytes, changes: list[tuple[int, int, bytes]]
) -> None:
    check_message(mutate(message, changes))


@given(st.binary(max_size=200))
@example(b"")
@example(b"\x00")
@example(b"\xef\xbb\xbf{}")
@example(b"[1e400]")
@example(b"1e400")
@example(b'{"jsonrpc":1e400}')
@example(b'{"jsonrpc":"2.0","method":"m","id":1e400}')
@example(b'["\\ud800"]')
def test_any_bytes_are_read_or_refused(message: bytes) -> None:
    check_message(message)


def request(identifier: bytes, more: bytes = b"") -> bytes:
    return b'{"jsonrpc":"2.0","method":"m","id":%b%b}' % (identifier, more)


@pytest.mark.parametrize(
    "identifier",
    [
        b"1",
        b"0",
        b"-1",
        b"-0",
        b"1.0",
        b"1e5",
        b"1E+5",
        b"1e400",
        b"0.1000",
        b"1180591620717411303424",
        b"9" * 256,
        b'""',
        b'"a\\"b\\\\c\\/d\\u0041\\n"',
        b'"\\ud83d\\ude00"',
        '"größe"'.encode(),
        b'"\\u0000"',
        b'"%b"' % (b"x" * 254),
        b"null",
    ],
)
def test_an_id_is_echoed_as_it_was_written(identifier: bytes) -> None:
    parsed = parse(request(b"  " + identifier + b"\n"))
    assert isinstance(parsed, Request)
    assert parsed.id == identifier


@pytest.mark.parametrize(
    "identifier", [b"true", b"false", b"[]", b"{}", b"[1]", b'{"a":1}', b"9" * 257, b'"%b"' % (b"x" * 255)]
)
def test_an_id_that_is_none_is_refused_under_null(identifier: bytes) -> None:
    parsed = parse(request(identifier))
    assert isinstance(parsed, Invalid)
    assert (parsed.id, type(parsed.error)) == (b"null", InvalidRequest)
    assert "id" in parsed.error.message


@pytest.mark.parametrize(
    "identifier", [b"01", b"+1", b".5", b"1.", b"NaN", b"Infinity", b"'a'", b'"\\ud800"', b'"a\tb"', b"nul"]
)
def test_an_id_that_is_no_json_makes_the_message_none(identifier: bytes) -> None:
    parsed = parse(request(identifier))
    assert isinstance(parsed, Invalid)
    assert isinstance(parsed.error, ParseError)


@pytest.mark.parametrize(
    ("message", "identifier"),
    [
        (b'{"jsonrpc":"1.0","method":"m","id":7}', b"7"),
        (b'{"method":"m","id":7}', b"7"),
        (b'{"jsonrpc":2.0,"method":"m","id":7}', b"7"),
        (b'{"jsonrpc":"2.0","method":5,"id":"x"}', b'"x"'),
        (b'{"jsonrpc":"2.0","id":7}', b"7"),
        (b'{"jsonrpc":"2.0","method":"m","params":"s","id":7}', b"7"),
        (b'{"jsonrpc":"2.0","method":"m","params":null,"id":7}', b"7"),
        (b'{"jsonrpc":"2.0","method":"m","params":3}', b"null"),
        (b"{}", b"null"),
        (b"3", b"null"),
        (b'"text"', b"null"),
        (b"null", b"null"),
        (b"[]", b"null"),
    ],
)
def test_a_wrong_request_is_refused_under_its_own_id_where_it_has_one(message: bytes, identifier: bytes) -> None:
    parsed = parse(message)
    assert isinstance(parsed, Invalid)
    assert (parsed.id, type(parsed.error)) == (identifier, InvalidRequest)


def test_only_an_absent_id_makes_a_notification() -> None:
    absent, null = parse(b'{"jsonrpc":"2.0","method":"m"}'), parse(request(b"null"))
    assert isinstance(absent, Request)
    assert isinstance(null, Request)
    assert (absent.id, null.id) == (None, b"null")


def test_the_last_of_duplicate_members_counts() -> None:
    parsed = parse(b'{"jsonrpc":"2.0","id":1,"method":"a","id":2,"method":"b"}')
    assert isinstance(parsed, Request)
    assert (parsed.method, parsed.id) == ("b", b"2")


def test_absent_params_are_no_params() -> None:
    parsed = parse(request(b"1"))
    assert isinstance(parsed, Request)
    assert parsed.params == b"{}"


def test_a_batch_is_bounded() -> None:
    full = parse(b"[" + b",".join([request(b"1")] * MAX_BATCH) + b"]")
    assert isinstance(full, list)
    assert len(full) == MAX_BATCH
    over = parse(b"[" + b",".join([request(b"1")] * (MAX_BATCH + 1)) + b"]")
    assert isinstance(over, Invalid)
    assert isinstance(over.error, InvalidRequest)
    assert str(MAX_BATCH) in over.error.message


def test_one_broken_element_breaks_the_whole_batch() -> None:
    parsed = parse(b"[%b, {]" % request(b"1"))
    assert isinstance(parsed, Invalid)
    assert isinstance(parsed.error, ParseError)


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_nesting_is_bounded(opening: bytes, closing: bytes) -> None:
    inner = MAX_DEPTH - 1  # the request's own braces are a level
    at_limit = request(b"1", b',"more":[[],{}],"params":%b0%b' % (opening * inner, closing * inner))
    assert isinstance(parse(at_limit), Request)
    beyond = parse(request(b"1", b',"params":%b0%b' % (opening * (inner + 1), closing * (inner + 1))))
    assert isinstance(beyond, Invalid)
    assert isinstance(beyond.error, ParseError)
    assert str(MAX_DEPTH) in beyond.error.message
    assert isinstance(parse(opening * 1_000_000), Invalid)


@pytest.mark.parametrize("text", ['["{' * 1000, '["{' * 1000 + '\\"', "\\", '\\"', '"\\\\', "\\[\\"])
def test_brackets_inside_strings_do_not_nest(text: str) -> None:
    params = json.dumps([text, "[" * 100, text, "{" * 100]).encode()
    assert isinstance(parse(request(b"1", b',"params":%b' % params)), Request)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("tail", [b'\\"', b'"', b"\\", b'"[', b'\\"{'])
def test_reading_takes_time_in_proportion_to_the_message(tail: bytes) -> None:
    """Megabytes of quotes in an unterminated string: read with backtracking, this takes hours."""
    message = b"[" * (MAX_DEPTH + 1) + b'"' + tail * 1_000_000
    assert isinstance(parse(message), Invalid)


def test_the_size_of_the_json_is_bounded() -> None:
    padding = b" " * (MAX_JSON_BYTES - len(request(b"1")))
    assert isinstance(parse(request(b"1") + padding), Request)
    over = parse(request(b"1") + padding + b" ")
    assert isinstance(over, Invalid)
    assert isinstance(over.error, TooLarge)
    assert str(MAX_JSON_BYTES) in over.error.message


@pytest.mark.parametrize("bad", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\xc0\xaf"])
def test_invalid_utf8_anywhere_is_no_json(bad: bytes) -> None:
    for message in (request(b'"%b"' % bad), request(b"1", b',"params":["%b"]' % bad), request(b"1") + bad, bad):
        parsed = parse(message)
        assert isinstance(parsed, Invalid)
        assert isinstance(parsed.error, ParseError)
        assert "UTF-8" in parsed.error.message


@given(texts, params)
def test_a_notification_of_the_server_is_a_notification(method: str, members: Any) -> None:
    body = json.dumps(members).encode()
    name = "m" + "".join(char for char in method if char.isalnum() and char.isascii())
    message = json.loads(jsonrpc.notification(name, body))
    assert message == {"jsonrpc": "2.0", "method": name, "params": members}


def test_ids_are_bounded_where_the_design_says() -> None:
    assert MAX_ID_BYTES == 256
