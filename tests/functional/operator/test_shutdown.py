"""rkvisord is told to stop while it works: who may finish does, and everybody is answered (design §8)."""

from __future__ import annotations

import os
import signal

import pytest

from harness import processes
from harness.rkvisord import Rkvisord, RpcError
from harness.running import ENDLESS, start_stream

pytestmark = pytest.mark.resilience
MODEL = '[models.demo]\nruntime = "sim"\npath = "builtin:tiny"\nworkers = 1\nfaults = true\nstopwaitsecs = {}\n'
SLOW = "[[sim:slow ms=50]]tell me"


def terminate(server: Rkvisord) -> None:
    os.kill(server.pid, signal.SIGTERM)
    server.wait_until(lambda: "may finish" in server.log.read_text(), "the beginning of the stop")


def is_all_gone(server: Rkvisord, pids: list[int]) -> bool:
    files = [one for one in (server.folder / "run").rglob("*") if one.is_socket()]
    return not files and all(processes.is_gone(pid) for pid in pids)


def test_what_runs_is_finished_and_what_comes_is_refused() -> None:
    with Rkvisord(MODEL.format(20)) as server, server.client() as client, server.client() as other:
        pids = processes.children(server.pid)
        running = start_stream(client, prompt=SLOW, max_new_tokens=80)
        terminate(server)
        with pytest.raises(RpcError) as refused:
            other.call("rkllm.run", {"model": "demo", "prompt": "too late", "max_new_tokens": 2})
        assert refused.value.name == "SHUTTING_DOWN"
        assert refused.value.error["data"]["retry_after_ms"] > 0
        result = client.result(running)
        assert (result["finish_reason"], len(result["token_ids"])) == ("length", 80)
        assert server.process is not None
        assert server.process.wait(30) == 0
        assert is_all_gone(server, pids)


def test_what_cannot_finish_in_time_is_told_so_with_what_came_until_then() -> None:
    with Rkvisord(MODEL.format(0.5)) as server, server.client() as client, server.client() as other:
        pids = processes.children(server.pid)
        running = client.send("rkllm.run", {**ENDLESS, "prompt": SLOW, "stream": True})
        server.wait_until(lambda: any(processes.is_running(pid) for pid in pids), "the first to run")
        waiting = other.send("rkllm.run", {"model": "demo", "prompt": "I wait", "max_new_tokens": 2})
        server.wait_until(lambda: server.call("system.status")["models"][0]["queue"] == 1, "one that waits")
        terminate(server)
        fragments = []
        while "method" in (message := client.receive()):
            fragments.append(message["params"]["text"])
        error = message["error"]
        assert (message["id"], error["data"]["name"]) == (running, "SHUTTING_DOWN")
        assert error["data"]["retry_after_ms"] > 0
        assert error["data"]["text"] == "".join(fragments)
        assert len(error["data"]["token_ids"]) >= len(fragments) > 0
        with pytest.raises(RpcError) as refused:
            other.result(waiting)
        assert (refused.value.name, refused.value.error["data"]["text"]) == ("SHUTTING_DOWN", "")
        assert server.process is not None
        assert server.process.wait(30) == 0
        assert is_all_gone(server, pids)
