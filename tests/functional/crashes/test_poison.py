"""Requests that end every process that runs them, and requests that must not be run twice."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from harness import processes
from harness.rkvisord import Client, Rkvisord, RpcError
from harness.running import ENDLESS, run, start_stream

pytestmark = pytest.mark.resilience

MODELS = """
[models.demo]
runtime = "sim"
path = "builtin:tiny"
workers = 2
spares = 2
faults = true
param = { temperature = 0.0 }
"""


@pytest.fixture
def server() -> Iterator[Rkvisord]:
    with Rkvisord(MODELS) as server:
        yield server


@pytest.fixture
def client(server: Rkvisord) -> Iterator[Client]:
    with server.client() as client:
        yield client


def error_of(client: Client, **params: Any) -> dict[str, Any]:
    with pytest.raises(RpcError) as caught:
        run(client, **params)
    return caught.value.error


def pids(server: Rkvisord) -> set[int]:
    return {worker["pid"] for worker in server.workers()}


def test_a_request_that_killed_two_processes_is_poison_and_kept_out(server: Rkvisord, client: Client) -> None:
    poison = {"prompt": "[[sim:segv after=3 times=100 key=poison]]die", "max_new_tokens": 10}
    error = error_of(client, **poison)
    assert (error["code"], error["data"]["name"], error["data"]["retryable"]) == (-32002, "POISON_REQUEST", False)
    assert len(error["data"]["token_ids"]) == 3
    server.wait_until(lambda: all(worker["state"] == "RUNNING" for worker in server.workers()))
    alive = pids(server)
    with server.client() as other:
        for disguise in ({}, {"priority": 9}, {"deadline_ms": 5000}, {"request_key": "k"}):
            again = error_of(other, **poison, **disguise)
            assert (again["data"]["name"], "kept out" in again["message"]) == ("POISON_REQUEST", True)
    assert pids(server) == alive, "it was refused without being run"
    assert run(client, prompt="die", max_new_tokens=10)["finish_reason"] == "length"


def test_one_death_makes_no_poison(client: Client) -> None:
    calm = run(client, prompt="live")
    stormy = run(client, prompt="[[sim:segv after=3 times=1 key=once]]live")
    assert (stormy["text"], stormy["resumed"]) == (calm["text"], 1)
    assert run(client, prompt="[[sim:segv after=3 times=1 key=once]]live")["text"] == calm["text"]


def test_a_poisonous_payload_is_let_in_again_when_its_time_is_up() -> None:
    with Rkvisord(MODELS, supervisor="poison_ttl_s = 0") as server, server.client() as client:
        poison = {"prompt": "[[sim:segv after=3 times=2 key=twice]]die", "max_new_tokens": 10}
        assert error_of(client, **poison)["data"]["name"] == "POISON_REQUEST"
        assert run(client, **poison)["finish_reason"] == "length"


def test_a_request_that_may_not_be_repeated_ends_with_its_process(server: Rkvisord, client: Client) -> None:
    error = error_of(client, prompt="[[sim:slow ms=50]][[sim:segv after=3 times=1 key=never]]x", retry="never")
    assert (error["code"], error["data"]["name"], error["data"]["retryable"]) == (-32001, "WORKER_CRASHED", True)
    assert 1 <= len(error["data"]["token_ids"]) <= 3, "the last tokens of a dying process may not arrive"
    assert error["data"]["text"]
    assert "SIGSEGV" in error["message"]


def test_a_request_that_may_not_be_repeated_is_not_even_before_its_first_token(client: Client) -> None:
    error = error_of(client, prompt="[[sim:abrt at=prefill times=1 key=early]]x", retry="never")
    assert (error["data"]["name"], error["data"]["text"]) == ("WORKER_CRASHED", "")


def test_a_sampled_stream_cannot_go_on_where_tokens_cannot_be_forced() -> None:
    sampled = MODELS.replace("temperature = 0.0", "temperature = 0.8") + "\n"
    sampled = sampled.replace("faults = true", "faults = true\nforce_tokens = false")
    with Rkvisord(sampled) as server, server.client() as client:
        error = error_of(client, prompt="[[sim:slow ms=50]][[sim:segv after=4 times=1 key=sampled]]x")
        assert error["data"]["name"] == "WORKER_CRASHED"
        assert 1 <= len(error["data"]["token_ids"]) <= 4, "the last tokens of a dying process may not arrive"
        early = run(client, prompt="[[sim:segv at=prefill times=1 key=before]]x")
        assert (early["resumed"], early["resume"]) == (1, None)


def test_an_error_of_the_runtime_is_not_retried(server: Rkvisord, client: Client) -> None:
    alive = pids(server)
    for kind in ("error", "errcb"):
        error = error_of(client, prompt=f"[[sim:{kind} after=2 times=1 key={kind}]]x")
        assert (error["code"], error["data"]["source"], error["data"]["retryable"]) == (-32603, "RKLLM", False)
        assert error["data"]["rkllm_code"] == "RKLLM_DEVICE_ERROR"
        assert error["data"]["log"]
    assert pids(server) == alive


def test_an_innocent_request_is_not_charged_for_workers_that_die_together(server: Rkvisord, client: Client) -> None:
    with server.client() as other:
        prompts = {"one": client, "two": other}
        calm = {name: run(client, prompt=name, max_new_tokens=300)["text"] for name in prompts}
        for name, who in prompts.items():
            start_stream(who, name, model="demo", prompt=f"[[sim:slow ms=4]]{name}", max_new_tokens=300)
        for pid in pids(server):
            os.kill(pid, signal.SIGKILL)
        for name, who in prompts.items():
            result = who.result(name)
            assert (result["text"], result["resumed"]) == (calm[name], 1)


def test_a_death_while_aborting_is_an_abort(client: Client) -> None:
    identifier = start_stream(client, "dying", **{**ENDLESS, "prompt": "[[sim:segv after=400]][[sim:slow ms=2]]x"})
    client.send("rkllm.abort", {"request": identifier})
    assert client.result(identifier)["finish_reason"] == "abort"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT])
def test_a_signal_from_outside_is_charged_to_no_request(
    server: Rkvisord, client: Client, number: signal.Signals
) -> None:
    asked = {"prompt": "[[sim:slow ms=30]]tell me", "max_new_tokens": 60}
    plain = run(client, **asked)["text"]
    identifier = client.send("rkllm.run", {"model": "demo", **asked, "stream": True})
    for _ in range(3):  # one more than makes a request poison
        while "seq" not in client.receive().get("params", {}):
            pass
        worker = next(one for one in server.workers() if processes.is_running(one["pid"]))
        os.kill(worker["pid"], number)
        server.wait_until(lambda pid=worker["pid"]: pid not in pids(server), "another process")  # type: ignore[misc]
    result = client.result(identifier)
    assert (result["text"], result["resumed"]) == (plain, 3)
