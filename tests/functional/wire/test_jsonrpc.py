"""JSON-RPC 2.0 over the real socket: the specification's examples, vectors of our own, frames and limits."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from harness.rkvisord import Client, Rkvisord
from rkvisor.protocol.limits import MAX_ATTACHMENTS, MAX_JSON_BYTES
from rkvisor.protocol.methods import METHODS

pytestmark = pytest.mark.validation

VECTORS = [
    (f"{file}: {vector['name']}", vector)
    for file in ("specification", "own")
    for vector in json.loads((Path(__file__).parent / "vectors" / f"{file}.json").read_text())
]
#: A REQ socket that sends a notification waits for ever: its own rules forbid another send.
CASES = [
    pytest.param(vector, kind, id=f"{name}-{'DEALER' if kind == zmq.DEALER else 'REQ'}")
    for name, vector in VECTORS
    for kind in (zmq.DEALER, zmq.REQ)
    if kind == zmq.DEALER or vector["answer"] is not None
]
IS_RUNNING = b'{"jsonrpc":"2.0","method":"rkllm.is_running","id":1}'


@pytest.fixture(scope="module")
def server() -> Iterator[Rkvisord]:
    with Rkvisord(supervisor="log_level = 'info'") as server:
        yield server


@pytest.fixture
def client(server: Rkvisord) -> Iterator[Client]:
    with server.client() as client:
        yield client


def message_of(vector: dict[str, Any]) -> bytes:
    raw = bytes.fromhex(vector["send_hex"]) if "send_hex" in vector else vector["send"].encode()
    return raw * int(vector.get("repeat", 1))


def matches(expected: Any, actual: Any) -> bool:
    """Whether *actual* has at least what *expected* names; the answers of a batch may come in any order."""
    if isinstance(expected, dict):
        return isinstance(actual, dict) and all(
            key in actual and matches(value, actual[key]) for key, value in expected.items()
        )
    if isinstance(expected, list):
        if not isinstance(actual, list) or len(actual) != len(expected):
            return False
        left = list(actual)
        for one in expected:
            found = next((other for other in left if matches(one, other)), None)
            if found is None:
                return False
            left.remove(found)
        return True
    return bool(expected == actual and isinstance(expected, bool) == isinstance(actual, bool))


def check_shape(answer: Any) -> None:
    """*answer* is a response object of the specification, or an array of such."""
    for one in answer if isinstance(answer, list) else [answer]:
        assert one["jsonrpc"] == "2.0"
        assert set(one) in ({"jsonrpc", "id", "result"}, {"jsonrpc", "id", "error"})
        if "error" in one:
            assert set(one["error"]) == {"code", "message", "data"}
            assert isinstance(one["error"]["code"], int)
            assert {"name", "severity", "retryable", "retry_after_ms", "component", "timestamp"} <= set(
                one["error"]["data"]
            )


def assert_silent(client: Client) -> None:
    """Nothing came before the answer to another request."""
    client.send_raw(b'{"jsonrpc":"2.0","method":"system.version","id":"sentinel"}')
    assert client.receive()["id"] == "sentinel"


@pytest.mark.parametrize(("vector", "kind"), CASES)
def test_a_message_gets_the_answer_of_the_specification(server: Rkvisord, vector: dict[str, Any], kind: int) -> None:
    with server.client(kind=kind) as client:
        client.send_raw(message_of(vector))
        if vector["answer"] is None:
            assert_silent(client)
            return
        (frame,) = client.receive_raw()
        answer = json.loads(frame)
        check_shape(answer)
        if "id_text" in vector:
            assert b'"id":%b,' % vector["id_text"].encode() in frame
        assert matches(vector["answer"], answer), frame


def test_a_dealer_that_speaks_like_a_req_is_answered_like_one(client: Client) -> None:
    client.send_raw(b"", IS_RUNNING)
    delimiter, body = client.receive_raw()
    assert (delimiter, json.loads(body)["result"]) == (b"", {"is_running": False})


@pytest.mark.parametrize("frames", [[b""], [b"", b""]], ids=["one empty frame", "delimiter and empty frame"])
def test_an_empty_message_is_a_parse_error(client: Client, frames: list[bytes]) -> None:
    client.send_raw(*frames)
    assert json.loads(client.receive_raw()[-1])["error"]["code"] == -32700


@pytest.mark.parametrize(("count", "code"), [(1, -32602), (MAX_ATTACHMENTS, -32602), (MAX_ATTACHMENTS + 1, -32017)])
def test_frames_that_no_param_refers_to_are_refused(client: Client, count: int, code: int) -> None:
    client.send_raw(IS_RUNNING, *[b"x"] * count)
    error = client.receive()["error"]
    assert (error["code"], str(count) in error["message"]) == (code, True)


def test_json_beyond_its_limit_is_refused_by_name(client: Client) -> None:
    client.send_raw(IS_RUNNING + b" " * MAX_JSON_BYTES)
    error = client.receive()["error"]
    assert (error["code"], error["data"]["name"]) == (-32017, "TOO_LARGE")
    assert_silent(client)


def test_a_frame_beyond_the_limit_costs_its_sender_the_connection_and_nobody_else() -> None:
    with Rkvisord(listen="[limits]\nmessage_bytes = 65536", supervisor="") as small, small.client() as other:
        other.call("system.version")
        with small.client() as hog:
            monitor = hog.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
            hog.send_raw(b"[" + b" " * 70_000 + b"]")
            assert monitor.poll(10_000), "the connection was not cut"
            hog.socket.disable_monitor()
            monitor.close()
            assert hog.call("rkllm.is_running") == {"is_running": False}, "it reconnects as somebody new"
        assert other.call("rkllm.is_running") == {"is_running": False}


@pytest.mark.timeout(60)
def test_a_hostile_message_does_not_hold_the_others_up(server: Rkvisord, client: Client) -> None:
    with server.client() as hostile:
        hostile.send_raw(b"[" * 65 + b'"' + b'\\"' * 1_000_000)
        assert hostile.receive()["error"]["code"] == -32700
    assert client.call("rkllm.is_running") == {"is_running": False}


def test_answers_of_a_batch_come_together_when_the_last_is_there(client: Client) -> None:
    run = {"jsonrpc": "2.0", "method": "rkllm.run", "params": {"model": "demo", "prompt": "x", "max_new_tokens": 30}}
    batch = [run | {"id": "run"}, {"jsonrpc": "2.0", "method": "rkllm.is_running", "id": "look"}, run]
    client.send_raw(json.dumps(batch).encode())
    answers = {one["id"]: one["result"] for one in client.receive()}
    assert answers["look"] == {"is_running": True}
    assert len(answers["run"]["token_ids"]) == 30
    assert set(answers) == {"look", "run"}


def test_every_method_of_the_document_is_served(server: Rkvisord) -> None:
    for endpoint, is_admin in ((server.endpoint, False), (server.admin, True)):
        with server.client(endpoint) as client:
            document = client.call("rpc.discover")
            assert [method["name"] for method in document["methods"]] == list(METHODS)
            for method in document["methods"]:
                if method["name"] == "admin.shutdown":
                    continue
                client.send(method["name"], identifier=method["name"])
                answer = client.receive()
                check_shape(answer)
                assert answer["id"] == method["name"]
                code = answer.get("error", {}).get("code")
                assert code not in (-32601, -32603), answer
                assert (code == -32014) == (method["x-admin"] and not is_admin)


#: Values at the edges of what any param takes.
EDGES: list[Any] = [
    *(None, True, -1, 0, 1, 2, 10, 16384, 2**31, 2**70, -0.5, 0.5, 1e300, "", "a", "demo", "auto", "x" * 300),
    *("/etc/passwd", "../x", [], [0], [-1], ["a"], [[1]], [{"role": "user", "content": "x"}]),
    *({}, {"a": 1}, {"attachment": 0}, {"image": None}, {"prompt": "x"}),
]
#: They would end what the other requests need.
FATAL = {"model.unload", "admin.shutdown", "admin.stop"}


def test_any_request_is_answered_exactly_once_and_never_by_a_fault_of_ours(server: Rkvisord, client: Client) -> None:
    chance = random.Random(7)
    waiting = {}
    for number in range(400):
        name = chance.choice([name for name in METHODS if name not in FATAL])
        fields = METHODS[name].params.__struct_fields__
        params = {field: chance.choice(EDGES) for field in chance.sample(fields, min(len(fields), chance.randrange(4)))}
        params |= {"model": "demo"} if "model" in fields and chance.random() < 0.7 else {}
        params.pop("stream", None)
        waiting[client.send(name, list(params.values()) if chance.random() < 0.1 else params, number)] = name, params
        if number % 10 == 0:
            collect(client, waiting, at_most=number // 2)
    collect(client, waiting, at_most=0)
    assert_silent(client)
    assert {worker["state"] for worker in server.workers()} == {"RUNNING"}


def collect(client: Client, waiting: dict[Any, Any], at_most: int) -> None:
    """Take answers until no more than *at_most* requests wait."""
    while len(waiting) > at_most:
        answer = client.receive()
        check_shape(answer)
        request = waiting.pop(answer["id"])
        assert answer.get("error", {}).get("code") not in (-32603, -32001), (request, answer)
