"""What a client gets for ``rkllm.run``: text and its end, and where a stream is refused."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from harness.rkvisord import Client, Rkvisord, RpcError
from harness.running import ENDLESS, abort, refusal, run, start_stream

pytestmark = pytest.mark.api

ENDING = """
name = "ending"
vocab_size = 1024
embedding_size = 64
context = 64
token_ms = 1.0
eos_after = 20
"""
MODELS = """
[models.demo]
runtime = "sim"
path = "builtin:tiny"
workers = 2
faults = true
[models.ending]
runtime = "sim"
path = "{folder}/ending.toml"
param = {{ max_context_len = 64 }}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Rkvisord]:
    with tempfile.TemporaryDirectory(prefix="rkv") as folder:
        (Path(folder) / "ending.toml").write_text(ENDING)
        with Rkvisord(MODELS.format(folder=folder)) as server:
            yield server


@pytest.fixture
def client(server: Rkvisord) -> Iterator[Client]:
    with server.client() as client:
        yield client


# Text and its end.


def test_the_texts_of_a_stream_concatenate_to_the_results(client: Client) -> None:
    tokens, result = client.stream(model="demo", prompt="hi there", max_new_tokens=60)
    assert [token["seq"] for token in tokens] == list(range(len(tokens)))
    assert "".join(token["text"] for token in tokens) == result["text"]
    ids = [one for token in tokens for one in token.get("token_ids", [token["token_id"]])]
    assert ids == result["token_ids"]
    assert len(ids) == 60


def test_a_character_of_several_tokens_travels_in_one_notification(client: Client) -> None:
    tokens, _ = client.stream(model="demo", prompt="hi there", max_new_tokens=200)
    several = [token for token in tokens if "token_ids" in token]
    assert several, "the text must hold such a character, or this test is none"
    for token in several:
        assert token["token_ids"][-1] == token["token_id"]
        assert len(token["text"]) == 1
    assert "\ufffd" not in "".join(token["text"] for token in tokens)


def test_the_same_request_gives_the_same_text_streamed_or_not(client: Client) -> None:
    _, streamed = client.stream(model="demo", prompt="again", max_new_tokens=30)
    plain = run(client, prompt="again", max_new_tokens=30)
    assert (plain["text"], plain["token_ids"]) == (streamed["text"], streamed["token_ids"])


def test_a_prompt_and_its_tokens_are_the_same_input(client: Client) -> None:
    prompt = run(client, prompt="once", max_new_tokens=3)
    by_text = run(client, prompt=prompt["text"])
    by_tokens = run(client, tokens=prompt["token_ids"])
    assert by_text["token_ids"] == by_tokens["token_ids"]
    assert by_text["perf"]["prefill_tokens"] == by_tokens["perf"]["prefill_tokens"] == 3


def test_an_empty_prompt_is_a_prompt(client: Client) -> None:
    assert len(run(client, prompt="")["token_ids"]) == 12


@pytest.mark.parametrize("limit", [1, 2, 40])
def test_it_ends_at_the_limit(client: Client, limit: int) -> None:
    result = run(client, prompt="count", max_new_tokens=limit)
    assert (len(result["token_ids"]), result["finish_reason"]) == (limit, "length")


def test_it_ends_where_the_model_does_and_where_the_context_does(client: Client) -> None:
    reasons = {}
    for word in "abcdefghij":
        result = run(client, model="ending", prompt=word, max_new_tokens=1000)
        reasons[result["finish_reason"]] = result
    assert set(reasons) == {"stop", "context"}
    full = reasons["context"]
    assert full["perf"]["prefill_tokens"] + len(full["token_ids"]) == 64


def test_a_prompt_longer_than_the_context_is_an_error_of_the_runtime(client: Client) -> None:
    error = refusal(client, model="ending", prompt="word " * 100)
    assert (error.code, error.name) == (-32603, "RKLLM_CONTEXT_ERROR")
    assert error.error["data"]["source"] == "RKLLM"
    assert "greater than max context" in " ".join(error.error["data"]["log"])


def test_a_stop_string_ends_the_text_before_it_wherever_the_tokens_cut_it(client: Client) -> None:
    calm = run(client, prompt="stop here", max_new_tokens=40)["text"]
    for start in range(3, 30, 4):
        stop = calm[start : start + 6]
        tokens, result = client.stream(model="demo", prompt="stop here", max_new_tokens=40, stop=[stop, "never there"])
        assert result["text"] == calm[: calm.index(stop)]
        assert "".join(token["text"] for token in tokens) == result["text"]
        assert result["finish_reason"] == "stop"
        assert len(result["token_ids"]) < 40


def test_a_stop_string_that_does_not_come_changes_nothing(client: Client) -> None:
    calm = run(client, prompt="no stop")
    assert run(client, prompt="no stop", stop=["\U0010ffff"])["text"] == calm["text"]


# Where a stream is refused.


@pytest.mark.parametrize("identifier", [b"null", None], ids=["id null", "no id"])
def test_a_stream_needs_an_id(client: Client, identifier: bytes | None) -> None:
    member = b"" if identifier is None else b'"id":%b,' % identifier
    params = json.dumps({**ENDLESS, "stream": True}).encode()
    client.send_raw(b'{"jsonrpc":"2.0",%b"method":"rkllm.run","params":%b}' % (member, params))
    if identifier is not None:
        error = client.receive()
        assert (error["id"], error["error"]["data"]["name"]) == (None, "CANNOT_STREAM")
    assert client.call("rkllm.is_running") == {"is_running": False}


def test_a_req_socket_cannot_stream(server: Rkvisord) -> None:
    with server.client(kind=zmq.REQ) as req:
        req.send("rkllm.run", {**ENDLESS, "stream": True})
        assert req.receive()["error"]["code"] == -32011
        assert len(run(req, prompt="x", max_new_tokens=2)["token_ids"]) == 2


def test_a_batch_cannot_stream(client: Client) -> None:
    request = {"jsonrpc": "2.0", "id": 1, "method": "rkllm.run", "params": {**ENDLESS, "stream": True}}
    client.send_raw(json.dumps([request, request | {"id": 2, "params": ENDLESS | {"max_new_tokens": 2}}]).encode())
    first, second = sorted(client.receive(), key=lambda answer: answer["id"])
    assert first["error"]["data"]["name"] == "CANNOT_STREAM"
    assert second["result"]["finish_reason"] == "length"


def test_an_id_streams_once_at_a_time_on_a_connection(server: Rkvisord, client: Client) -> None:
    start_stream(client, "twice")
    client.send("rkllm.run", {**ENDLESS, "stream": True}, "twice")
    with pytest.raises(RpcError, match="stream of it runs already") as caught:
        client.result("twice")
    assert caught.value.name == "CANNOT_STREAM"
    with server.client() as other:
        start_stream(other, "twice")
        assert abort(other, "twice")["finish_reason"] == "abort"
    assert client.call("rkllm.is_running", {"request": "twice"}) == {"is_running": True}
    abort(client, "twice")
    tokens, _ = client.stream(model="demo", prompt="x", max_new_tokens=2)
    assert len(tokens) == 2


@pytest.mark.validation
@pytest.mark.parametrize("method", ["rkllm.abort", "rkllm.pause", "rkllm.resume"])
@pytest.mark.parametrize("identifier", [{}, [1], True])
def test_what_can_be_no_id_names_no_request(client: Client, method: str, identifier: object) -> None:
    with pytest.raises(RpcError, match="a string, a number or null") as caught:
        client.call(method, {"request": identifier})
    assert caught.value.error["code"] == -32602
