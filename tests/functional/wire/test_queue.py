"""Who is served when: priorities, turns between connections, and what happens when a queue or a share is full."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import zmq

from harness.rkvisord import Client, Rkvisord, RpcError
from harness.running import abort, run, start_stream

pytestmark = pytest.mark.api

MODELS = """
[models.demo]
runtime = "sim"
path = "builtin:tiny"
workers = 1
faults = true
max_queue = 6
"""
SHORT = {"model": "demo", "prompt": "x", "max_new_tokens": 3}


@pytest.fixture(scope="module")
def server() -> Iterator[Rkvisord]:
    with Rkvisord(MODELS) as server:
        yield server


@pytest.fixture
def busy(server: Rkvisord) -> Iterator[Client]:
    """The one worker is busy until ``abort(busy, "busy")``."""
    with server.client() as client:
        start_stream(client, "busy")
        yield client
        server.wait_until(lambda: not client.call("rkllm.is_running")["is_running"], "the queue is empty again")


def queued(client: Client, identifier: str, **params: object) -> None:
    """Send a short run; it is queued when this returns."""
    client.send("rkllm.run", {**SHORT, **params}, identifier)
    assert client.call("rkllm.is_running", {"request": identifier}) == {"is_running": True}


def order(count: int, *clients: Client) -> list[str]:
    """The ids of the next *count* answers, in the order in which they come, whoever gets them."""
    poller = zmq.Poller()
    by_socket = {client.socket: client for client in clients}
    for socket in by_socket:
        poller.register(socket, zmq.POLLIN)
    ids: list[str] = []
    while len(ids) < count:
        for socket, _ in poller.poll(30_000):
            message = by_socket[socket].receive()
            ids += [message["id"]] if "result" in message else []
    return ids


def test_higher_priorities_are_served_first_and_equals_in_order(server: Rkvisord, busy: Client) -> None:
    with server.client() as client:
        for identifier, priority in (("low", 0), ("default", 5), ("second", 5), ("high", 9), ("middle", 7)):
            queued(client, identifier, priority=priority)
        abort(busy, "busy")
        assert order(5, client) == ["high", "middle", "default", "second", "low"]


def test_the_priority_of_a_request_that_says_none_is_5(server: Rkvisord, busy: Client) -> None:
    with server.client() as client:
        for identifier, members in (("4", {"priority": 4}), ("none", {}), ("6", {"priority": 6})):
            queued(client, identifier, **members)
        abort(busy, "busy")
        assert order(3, client) == ["6", "none", "4"]


def test_connections_take_turns(server: Rkvisord, busy: Client) -> None:
    with server.client() as hog, server.client() as guest:
        for index in range(4):
            queued(hog, f"hog {index}")
        queued(guest, "guest")
        abort(busy, "busy")
        assert order(5, hog, guest) == ["hog 0", "guest", "hog 1", "hog 2", "hog 3"]


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(server: Rkvisord, busy: Client) -> None:
    with server.client() as client, server.client() as late:
        for index in range(6):
            queued(client, f"waiting {index}")
        assert client.call("system.status")["models"][0]["queue"] == 6
        with pytest.raises(RpcError) as caught:
            run(late, prompt="late")
        error = caught.value.error
        assert (error["code"], error["data"]["name"], error["data"]["retryable"]) == (-32004, "QUEUE_FULL", True)
        assert error["data"]["retry_after_ms"] > 0
        assert "6" in error["message"]
        abort(busy, "busy")
        assert order(6, client) == [f"waiting {index}" for index in range(6)]
        assert run(late, prompt="late")["finish_reason"] == "length"


def test_a_connection_has_a_bounded_number_of_requests_in_flight() -> None:
    small = Rkvisord(MODELS, listen="[limits]\nin_flight = 2")
    with small, small.client() as client, small.client() as other:
        start_stream(client, "busy")
        queued(client, "second")
        with pytest.raises(RpcError) as caught:
            run(client, prompt="third")
        assert (caught.value.code, caught.value.name) == (-32005, "RATE_LIMITED")
        assert caught.value.error["data"]["retry_after_ms"] > 0
        queued(other, "theirs")
        abort(client, "busy")
        assert sorted(order(2, client, other)) == ["second", "theirs"]
        assert run(client, prompt="third")["finish_reason"] == "length"
