"""Workers that get a new process though nothing failed: no request is lost (design §5, requirements S1.43, S3.10)."""

from __future__ import annotations

import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import zmq

from harness.rkvisord import PATIENCE_S, Rkvisord

FAST = "[memory]\ninterval_s = 0.2\nrequest_interval_s = 0.05\n"
MODEL = """
[models.demo]
runtime = "sim"
path = "builtin:tiny"
faults = true
recycle_jitter = 0.0
recycle_min_s = 0.0
"""


def crashes(server: Rkvisord) -> list[Any]:
    found: list[Any] = server.call("system.crashes")["crashes"]
    return found


def recycled(server: Rkvisord, worker: str = "demo:0") -> int:
    """How often *worker* was, as the log tells."""
    return server.log.read_text().count(f"{worker}: recycled, process")


class Load:
    """Context manager: so many clients that ask one short thing after another.  outcomes: of their requests."""

    def __init__(self, server: Rkvisord, clients: int = 4, prompt: str = "hello"):
        self._server = server
        self._params = {"model": "demo", "prompt": prompt, "max_new_tokens": 2, "temperature": 0.0}
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        self._is_over = threading.Event()
        self.outcomes: Counter[str] = Counter()

    def _ask(self) -> None:
        with self._server.client() as client:
            while not self._is_over.is_set():
                try:
                    result = client.call("rkllm.run", self._params)
                    self.outcomes[f"{result['finish_reason']} {result['resumed']}"] += 1
                except Exception as error:
                    self.outcomes[repr(error)] += 1
                    return

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)


@pytest.mark.parametrize("more", ["workers = 2\nspares = 1", "workers = 1\nspares = 0", "workers = 2\nstandby = 1"])
def test_workers_are_recycled_under_load_without_a_lost_request(more: str) -> None:
    with Rkvisord(f"{MODEL}max_requests = 40\n{more}\n") as server:
        pids = {worker["pid"] for worker in server.workers()}
        with Load(server) as load:
            server.wait_until(lambda: recycled(server) >= 3, "three recyclings")
        assert set(load.outcomes) == {"length 0"}
        assert crashes(server) == []
        server.wait_until(lambda: all(worker["state"] == "RUNNING" for worker in server.workers()))
        assert pids.isdisjoint(worker["pid"] for worker in server.workers())
        assert "circuit breaker" not in server.log.read_text()


def test_the_old_process_is_gone_after_it_was_recycled() -> None:
    with Rkvisord(f"{MODEL}max_requests = 1\n") as server:
        pid = server.workers()[0]["pid"]
        server.call("rkllm.run", {"model": "demo", "prompt": "x", "max_new_tokens": 1})
        server.wait_until(lambda: server.workers()[0]["pid"] not in (0, pid), "a new process")
        server.wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the end of the old one")


def test_a_request_at_hand_is_finished_by_the_old_process() -> None:
    """The limit is reached while a stream runs on the other worker: it goes on to its end, where it began."""
    with Rkvisord(f"{MODEL}max_requests = 3\nworkers = 1\n") as server, server.client() as client:
        for _ in range(2):
            client.call("rkllm.run", {"model": "demo", "prompt": "x", "max_new_tokens": 1})
        tokens, result = client.stream(model="demo", prompt="[[sim:slow ms=20]]long", max_new_tokens=30)
        assert len(tokens) > 10
        assert (result["finish_reason"], result["resumed"]) == ("length", 0)
        server.wait_until(lambda: recycled(server) == 1)


def test_memory_beyond_max_rss_recycles_a_worker() -> None:
    with Rkvisord(f'{FAST}{MODEL}workers = 1\nmax_rss = "60M"\n') as server:
        prompt = "[[sim:leak bytes=1000000 where=heap]]x"
        with Load(server, clients=2, prompt=prompt) as load:
            server.wait_until(lambda: recycled(server) >= 1, "a recycling")
        assert set(load.outcomes) == {"length 0"}
        assert "it holds" in server.log.read_text()
        assert crashes(server) == []


def test_a_leak_that_is_found_in_a_young_process_recycles_it_once_it_is_old_enough() -> None:
    """The verdict comes while recycle_min_s still forbids it, however slow the machine, and does not come again."""
    least = f"recycle_min_s = {1.1 * PATIENCE_S}"
    more = "workers = 1\nspares = 1\nrecycle_on_leak = true\n"
    with Rkvisord(f"{FAST}{MODEL.replace('recycle_min_s = 0.0', least)}{more}") as server:
        with Load(server, clients=1, prompt="[[sim:leak bytes=65536 where=heap]]x") as load:
            server.wait_until(lambda: "→ leaking" in server.log.read_text(), "a verdict")
            assert recycled(server) == 0
            server.wait_until(lambda: recycled(server) >= 1, "a recycling")
        assert set(load.outcomes) == {"length 0"}
        log = server.log.read_text()
        assert "is recycled: it leaks (recycle_on_leak)" in log
        assert crashes(server) == []

        def endings() -> list[str]:
            (row,) = server.call("memory.report", {"worker": "demo:0", "points": 2})["workers"]
            return [life["ending"] for life in row["lives"]]

        server.wait_until(lambda: endings()[0] == "recycled: it leaks (recycle_on_leak)", "the old process's ending")


def test_who_listens_hears_of_it() -> None:
    with Rkvisord(f"{MODEL}max_requests = 1\n") as server:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        events = context.socket(zmq.SUB)
        events.set(zmq.LINGER, 0)
        events.subscribe("worker.recycled")
        events.connect(f"ipc://{server.folder}/run/events.sock")
        server.wait_until(lambda: _is_subscribed(server, events), "an event")
        while events.poll(500):
            topic, body = events.recv_multipart()
            event = json.loads(body)
            assert topic == b"worker.recycled"
            assert event["worker"] == "demo:0"
            assert event["before"] != event["pid"]
            assert event["reason"].startswith("it served 1 requests")
        context.destroy(linger=0)


def _is_subscribed(server: Rkvisord, events: zmq.Socket[bytes]) -> bool:
    """A subscription takes a moment: ask until something is heard."""
    server.call("rkllm.run", {"model": "demo", "prompt": "x", "max_new_tokens": 1})
    return bool(events.poll(100))


def test_an_operator_who_stops_a_worker_while_it_is_recycled_has_it_stopped() -> None:
    with Rkvisord(f"{MODEL}max_requests = 1\nworkers = 1\n") as server:
        for _ in range(5):
            server.call("rkllm.run", {"model": "demo", "prompt": "x", "max_new_tokens": 1})
            server.admin_call("admin.stop", {"names": ["all"]})
            assert server.workers()[0]["state"] in ("STOPPED", "STOPPING")
            server.wait_until(lambda: server.workers()[0]["state"] == "STOPPED")
            server.admin_call("admin.start", {"names": ["all"]})
            server.wait_until(lambda: server.workers()[0]["state"] == "RUNNING")
        assert crashes(server) == []


@pytest.mark.parametrize("fault", ["segv", "exit", "abrt"])
def test_a_replacement_that_dies_is_no_failure_of_the_worker(fault: str) -> None:
    """It dies while it loads: the worker serves on with the process that it has, and gets a new one later."""
    with (
        Rkvisord(f"{MODEL}max_requests = 1\nspares = 0\nworkers = 1\n") as server,
        server.client() as client,
    ):
        ask = {"model": "demo", "prompt": f"[[sim:{fault} at=init times=1]]x", "max_new_tokens": 1}
        assert client.call("rkllm.run", ask)["text"]
        server.wait_until(lambda: "cannot be recycled now" in server.log.read_text(), "a replacement that died")
        server.wait_until(lambda: recycled(server) >= 1, "a process that loaded")
        assert client.call("rkllm.run", ask | {"prompt": "x"})["text"]
        assert [crash["worker"] for crash in crashes(server)] == ["demo:reserve"]
        log = server.log.read_text()
        assert "it is stopped first: the last replacement failed to load" in log
        assert "BACKOFF" not in log


@pytest.mark.parametrize("workers", [1, 2])
def test_without_room_for_two_the_old_process_ends_first_and_requests_wait(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine has no memory left, as far as this rkvisord can see; its one worker is down for a moment."""
    code = "import rkvisor.supervisor.memory.probe as probe\nprobe.available_bytes = lambda: 0\n"
    (tmp_path / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Rkvisord(f"{MODEL}max_requests = 40\nworkers = {workers}\n") as server:
        with Load(server) as load:
            server.wait_until(lambda: recycled(server) >= 2, "two recyclings")
        assert set(load.outcomes) == {"length 0"}
        log = server.log.read_text()
        assert "it is stopped first: no room for two" in log
        assert "loads first" not in log
        assert crashes(server) == []
