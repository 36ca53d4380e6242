"""What comes from the server, decoded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkvisor.client.errors import UnreadableReply
from rkvisor.client.replies import Note, Progress, Reply, Token, decode_result, parse
from rkvisor.protocol.jsonrpc import token_notification
from rkvisor.protocol.link import encode_fragment
from rkvisor.protocol.methods import RunResult


def test_a_result_keeps_its_json_text() -> None:
    assert parse(b'{"jsonrpc":"2.0","id":7,"result":{"a":1.0}}') == Reply(b"7", result=b'{"a":1.0}')
    assert parse(b'{"jsonrpc":"2.0","id":7,"result":null}') == Reply(b"7", result=b"null")


def test_an_error_wins_over_a_result() -> None:
    assert parse(b'{"id":null,"error":{"code":1},"result":2}') == Reply(b"null", error={"code": 1})


@given(st.integers(0, 2**31 - 1), st.text(max_size=8), st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=4))
def test_a_token_is_read_as_the_worker_wrote_it(seq: int, text: str, ids: list[int]) -> None:
    note = parse(token_notification(b'"a"', encode_fragment(seq, text, tuple(ids))))
    assert note == Note(b'"a"', Token(seq=seq, text=text, token_id=ids[-1], token_ids=tuple(ids)))


def test_progress_is_read_with_and_without_a_position() -> None:
    body = b'{"method":"rkvisor.progress","params":{"request":3,"phase":"prefill"%b}}'
    assert parse(body % b"") == Note(b"3", Progress(phase="prefill"))
    assert parse(body % b',"queue_position":4,"more":1') == Note(b"3", Progress(phase="prefill", queue_position=4))


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xff",
        b"[]",
        b"3",
        b"{}",
        b"[" * 5000,
        b'{"id":1}',
        b'{"result":1}',
        b'{"method":"rkllm.token"}',
        b'{"method":"rkllm.token","params":{"request":1,"seq":"x","text":"","token_id":1}}',
        b'{"method":"something.new","params":{}}',
    ],
)
def test_what_is_no_message_is_nothing(frame: bytes) -> None:
    assert parse(frame) is None


@given(st.binary())
def test_reading_never_raises(frame: bytes) -> None:
    parse(frame)


def test_a_result_of_another_shape_is_an_error_that_names_the_method() -> None:
    with pytest.raises(UnreadableReply, match=r"cannot read the result of rkllm\.run: .*text"):
        decode_result(RunResult, "rkllm.run", b"{}")
