"""Calls that configure a model while requests run and workers die."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from harness import processes
from harness.api import Api
from harness.configured import error_of, same

pytestmark = pytest.mark.api


def begin(api: Api, name: str) -> int:
    """Start a run on a worker of *name*; back at its first token, which is 199 tokens from the end."""
    identifier = api.send("rkllm.run", {"model": name, "prompt": " tell", "stream": True, "retry": "never"})
    message, _ = api.receive()
    assert message["method"] == "rkllm.token"
    return identifier


def test_a_call_waits_for_the_request_that_runs_and_then_applies(api: Api, slow: str) -> None:
    plain = api.run(model=slow, prompt=" tell", max_new_tokens=3)["text"]
    running = begin(api, slow)
    call = api.send("rkllm.load_lora", {"model": slow, "path": "a.bin", "name": "late"})
    tokens = 0
    while tokens < 3:  # the run goes on, and the call does not come between
        message, _ = api.receive()
        assert message.get("method") == "rkllm.token", message
        tokens += 1
    api.send("rkllm.abort", {"request": running})
    seen: dict[int, Any] = {}
    while running not in seen or call not in seen:
        message, _ = api.receive()
        if "method" not in message:
            seen[message["id"]] = message
    assert list(seen).index(running) < list(seen).index(call)
    assert seen[running]["result"]["text"].startswith(plain)
    assert len(seen[call]["result"]["workers"]) == 2
    assert same(api, slow, lora="late", max_new_tokens=3) != plain


def test_a_worker_that_dies_during_a_call_owes_nothing_and_its_successor_has_it(api: Api, slow: str) -> None:
    running = begin(api, slow)
    busy = next(
        one["name"] for one in api.server.workers() if one["name"].startswith(slow) and processes.is_running(one["pid"])
    )
    call = api.send("rkllm.load_lora", {"model": slow, "path": "a.bin", "name": "dying"})
    idle = next(one for one in api.server.workers() if one["name"].startswith(slow) and one["name"] != busy)
    os.kill(idle["pid"], signal.SIGKILL)
    api.server.wait_until(lambda: is_replaced(api, idle), "the successor")
    api.send("rkllm.abort", {"request": running})
    assert busy in api.answer(call)["workers"]
    same(api, slow, lora="dying", max_new_tokens=3)


def is_replaced(api: Api, old: dict[str, Any]) -> bool:
    now = next(one for one in api.server.workers() if one["name"] == old["name"])
    return bool(now["state"] == "RUNNING" and now["pid"] != old["pid"])


def test_a_call_that_every_worker_dies_of_is_an_error_that_may_be_tried_again(api: Api, slow: str) -> None:
    runs = [api.send("rkllm.run", {"model": slow, "prompt": " tell", "retry": "never"}) for _ in range(2)]
    call = api.send("rkllm.load_lora", {"model": slow, "path": "a.bin", "name": "lost"})
    api.server.wait_until(lambda: api.server.call("rkllm.is_running", {"model": slow})["is_running"])
    api.replace(slow)
    seen: dict[int, Any] = {}
    while len(seen) < 3:
        message, _ = api.receive()
        seen[message["id"]] = message
    assert {seen[one]["error"]["data"]["name"] for one in (*runs, call)} == {"WORKER_CRASHED"}
    assert seen[call]["error"]["data"]["retryable"] is True
    assert error_of(api, "rkllm.run", {"model": slow, "prompt": "a", "lora": "lost"}).code == -32602
