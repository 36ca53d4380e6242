"""Clients that leave in the middle, and clients that do not read: their work ends, nobody else notices."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from harness.rkvisord import Client, Rkvisord
from harness.running import ENDLESS, run, start_stream

pytestmark = pytest.mark.resilience

MODELS = """
[models.demo]
runtime = "sim"
path = "builtin:tiny"
workers = 1
faults = true
[models.fast]
runtime = "sim"
path = "builtin:tiny"
param = { max_context_len = 16384 }
"""
LISTEN = """
clients = ["ipc://run/client.sock", "tcp://127.0.0.1:*"]
[limits]
outbox_bytes = 65536
"""
#: A stream of some megabytes: more than a pipe, its high-water mark and an outbox take together.
LONG = {"model": "fast", "prompt": "x", "max_new_tokens": 16000}


@pytest.fixture(scope="module")
def server() -> Iterator[Rkvisord]:
    with Rkvisord(MODELS, listen=LISTEN) as server:
        yield server


@pytest.fixture
def client(server: Rkvisord) -> Iterator[Client]:
    with server.client() as client:
        yield client


def is_idle(client: Client) -> bool:
    return not client.call("rkllm.is_running")["is_running"]


def test_the_stream_of_a_client_that_left_is_ended(server: Rkvisord, client: Client) -> None:
    with server.client() as gone:
        start_stream(gone)
    server.wait_until(lambda: is_idle(client), "the run was aborted")
    assert run(client, prompt="next")["finish_reason"] == "length"


def test_an_answer_that_nobody_waits_for_any_more_is_not_worked_out(server: Rkvisord, client: Client) -> None:
    with server.client() as gone:
        identifier = gone.send("rkllm.run", ENDLESS)
        assert gone.call("rkllm.is_running", {"request": identifier}) == {"is_running": True}
    server.wait_until(lambda: is_idle(client), "the run was aborted")


def test_what_a_client_that_left_had_waiting_is_taken_out_of_the_queue(server: Rkvisord, client: Client) -> None:
    start_stream(client, "busy")
    with server.client() as gone:
        for index in range(5):
            gone.send("rkllm.run", ENDLESS, index)
        assert gone.call("system.status")["models"][0]["queue"] == 5
    server.wait_until(lambda: client.call("system.status")["models"][0]["queue"] == 0, "the queue is empty")
    assert client.call("rkllm.is_running", {"request": "busy"}) == {"is_running": True}
    client.send("rkllm.abort", {"request": "busy"})
    client.result("busy")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_a_client_that_is_killed_is_gone_too(server: Rkvisord, client: Client, how: signal.Signals) -> None:
    code = """
import json, sys, zmq
socket = zmq.Context().socket(zmq.DEALER)
socket.connect(sys.argv[1])
socket.send(sys.argv[2].encode())
while True:
    print(socket.recv(), flush=True)
"""
    message = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "rkllm.run", "params": {**ENDLESS, "stream": True}})
    words = [sys.executable, "-P", "-c", code, server.endpoint, message]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert b"rkllm.token" in process.stdout.readline()
        process.send_signal(how)
    server.wait_until(lambda: is_idle(client), "the run was aborted")


def test_a_client_that_comes_back_at_once_is_another(server: Rkvisord, client: Client) -> None:
    for _ in range(20):
        with server.client() as gone:
            start_stream(gone, "same id")
    with server.client() as back:
        assert back.call("rkllm.is_running", {"request": "same id"}) == {"is_running": False}
        back.send("rkllm.run", {**ENDLESS, "max_new_tokens": 30, "stream": True}, "same id")
        first = back.receive()["params"]
        assert (first["request"], first["seq"]) == ("same id", 0)
        assert back.result("same id")["finish_reason"] == "length"


def deaf_client(server: Rkvisord) -> Client:
    """A client whose own buffers are as small as they can be."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    socket = context.socket(zmq.DEALER)
    client = Client(context, server.endpoint)
    client.socket.close()
    client.socket = socket
    for option in (zmq.RCVHWM, zmq.SNDHWM):
        socket.set(option, 1)
    socket.set(zmq.LINGER, 0)
    socket.connect(server.endpoint)
    return client


def rss_bytes(server: Rkvisord) -> int:
    return int(Path(f"/proc/{server.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_client_that_does_not_read_is_told_so_and_dropped(server: Rkvisord, client: Client) -> None:
    before = rss_bytes(server)
    with deaf_client(server) as deaf:
        deaf.send("rkllm.run", {**LONG, "stream": True}, "deaf")
        server.wait_until(lambda: not is_idle(client), "the stream runs")
        server.wait_until(lambda: is_idle(client), "the stream was ended")
        tokens = 0
        while "method" in (message := deaf.receive()):
            assert message["params"]["seq"] == tokens, "what it can still read has no gaps"
            tokens += 1
        assert message["id"] == "deaf"
        assert (message["error"]["code"], message["error"]["data"]["name"]) == (-32009, "SLOW_CLIENT")
        assert 0 < tokens < 16000
    assert rss_bytes(server) - before < 32 * 1024 * 1024


def test_a_client_that_was_dropped_is_turned_away_until_it_has_read_and_then_served(
    server: Rkvisord, client: Client
) -> None:
    with deaf_client(server) as deaf:
        deaf.send("rkllm.run", {**LONG, "stream": True}, "deaf")
        server.wait_until(lambda: not is_idle(client), "the stream runs")
        server.wait_until(lambda: is_idle(client), "the stream was ended")
        deaf.send("system.version", identifier="too early")
        deaf.send_raw(
            b'[{"jsonrpc":"2.0","method":"system.version","id":1},{"jsonrpc":"2.0","method":"system.version"}]'
        )
        answers = (message for message in iter(deaf.receive, None) if "method" not in message)
        first, second, (third,) = itertools.islice(answers, 3)
        assert [first["id"], second["id"], third["id"]] == ["deaf", "too early", 1]
        assert {one["error"]["data"]["name"] for one in (first, second, third)} == {"SLOW_CLIENT"}
        server.wait_until(lambda: is_served(deaf), "a client that has read is served again")


def test_all_that_a_client_that_does_not_read_is_owed_ends_with_slow_client_once(
    server: Rkvisord, client: Client
) -> None:
    """A batch array as one message, with the answers that it has; a call that waits for its turn."""
    runs: list[dict[str, object]] = [
        {"jsonrpc": "2.0", "id": "version", "method": "system.version"},
        {"jsonrpc": "2.0", "id": "run", "method": "rkllm.run", "params": ENDLESS},
        {"jsonrpc": "2.0", "method": "system.version"},
        {"jsonrpc": "2.0", "id": "waits", "method": "rkllm.run", "params": ENDLESS},
    ]
    with deaf_client(server) as deaf:
        deaf.send_raw(json.dumps(runs).encode())
        deaf.send("rkllm.get_kv_cache_size", {"model": "demo"}, "call")
        deaf.send("rkllm.run", {**LONG, "stream": True}, "deaf")
        server.wait_until(lambda: not is_idle(client), "they run")
        server.wait_until(lambda: is_idle(client), "they were ended")
        answers = (message for message in iter(deaf.receive, None) if "method" not in message)
        ends = list(itertools.islice(answers, 3))
        (batch,) = [one for one in ends if isinstance(one, list)]
        assert {one["id"]: "result" in one for one in batch} == {"version": True, "run": False, "waits": False}
        assert sorted(one["id"] for one in ends if one is not batch) == ["call", "deaf"]
        errors = [one["error"]["data"]["name"] for one in [*batch, *ends] if "error" in one]
        assert errors == ["SLOW_CLIENT"] * 4
        server.wait_until(lambda: is_served(deaf), "a client that has read is served again")


def is_served(client: Client) -> bool:
    client.send("system.version", identifier="served?")
    answer = client.receive()
    assert "result" in answer or answer["error"]["data"]["name"] == "SLOW_CLIENT"
    return "result" in answer


def test_a_client_that_asks_on_and_on_without_reading_fills_no_memory(server: Rkvisord, client: Client) -> None:
    client.call("rpc.discover")
    before = rss_bytes(server)
    with deaf_client(server) as deaf:
        for _ in range(3000):  # 120 MB of answers
            deaf.send("rpc.discover")
        client.call("system.version")
        assert rss_bytes(server) - before < 16 * 1024 * 1024


def test_others_are_served_while_a_client_does_not_read(server: Rkvisord, client: Client) -> None:
    with deaf_client(server) as deaf:
        deaf.send("rkllm.run", {**LONG, "stream": True}, "deaf")
        for index in range(20):
            tokens, result = client.stream(model="demo", prompt=f"other {index}", max_new_tokens=20)
            assert "".join(token["text"] for token in tokens) == result["text"]
