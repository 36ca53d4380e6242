"""How long a load may take: whoever loads is watched, and waiting for one's turn is not loading (design §5)."""

import os
import signal
from pathlib import Path

import pytest

from harness import processes
from harness.places import ROOT
from harness.rkvisord import Rkvisord, RpcError

pytestmark = pytest.mark.resilience


def titles(server: Rkvisord) -> list[str]:
    """What the processes of rkvisord call themselves."""
    return sorted(processes.title(pid) for pid in processes.children(server.pid))


HANGING = """
[models.demo]
runtime = "sim"
path = "builtin:tiny"
faults = true
spares = 0
standby = 1
load_timeout_s = 3
"""


def test_a_standby_that_hangs_while_it_loads_is_replaced() -> None:
    with Rkvisord(HANGING) as server, server.client() as client:
        both = ["rkvisor: demo:0 [ready]", "rkvisor: demo:standby [ready]"]
        server.wait_until(lambda: titles(server) == both, "a worker and its standby")
        for fault in ("hang at=init", "exit at=prefill"):  # the next load hangs; the worker ends, so that one is due
            client.call("rkllm.run", {"model": "demo", "prompt": f"[[sim:{fault} times=1]]hi", "max_new_tokens": 2})
        server.wait_until(lambda: "rkvisor: demo:standby [loading]" in titles(server), "a standby that hangs")
        server.wait_until(lambda: titles(server) == both, "another standby")


SERIAL = """
[models.demo]
runtime = "sim"
path = "loading.toml"
workers = 3
spares = 0
serialise_init = true
load_timeout_s = 5
"""


def test_who_waits_for_the_load_of_others_is_not_late_itself(tmp_path: Path) -> None:
    (tmp_path / "loading.toml").write_text("vocab_size = 512\nembedding_size = 32\nload_ms = 2000\n")
    with Rkvisord(SERIAL, folder=tmp_path) as server:  # 3 × 2 s in turn: the last is up after 6 s and not late
        assert [worker["state"] for worker in server.workers()] == ["RUNNING"] * 3
        assert "ended with" not in server.log.read_text()


def test_standbys_that_fail_now_and_then_are_replaced_for_ever() -> None:
    """Only failures in a row, with no success between them, make rkvisord give up on its reserve."""
    both = ["rkvisor: demo:0 [ready]", "rkvisor: demo:standby [ready]"]
    with Rkvisord(HANGING) as server, server.client() as client:
        server.wait_until(lambda: titles(server) == both, "a worker and its standby")
        for number in range(4):
            marker = f"[[sim:exit at=init times=1 key={number}]]"
            client.call("rkllm.run", {"model": "demo", "prompt": f"{marker}hi", "max_new_tokens": 2})
            worker = server.workers()[0]["pid"]
            (standby,) = [pid for pid in processes.children(server.pid) if pid != worker]
            os.kill(standby, signal.SIGKILL)
            server.wait_until(lambda gone=standby: gone not in processes.children(server.pid), "the end of the standby")
            server.wait_until(lambda: titles(server) == both, f"another standby after {number} failures")


def test_a_spare_that_prepared_itself_tells_what_keeps_it_from_loading(tmp_path: Path) -> None:
    model = tmp_path / "mine.toml"
    model.write_text((ROOT / "etc" / "models" / "tiny.toml").read_text())
    text = f'[models.demo]\nruntime = "sim"\npath = "{model}"\nspares = 1\n'
    with Rkvisord(text) as server, server.client() as client:
        for _ in range(3):  # the spare that takes over has prepared itself
            before = server.workers()[0]["pid"]
            client.call("rkllm.run", {"model": "demo", "prompt": "x", "max_new_tokens": 1})
            os.kill(before, signal.SIGSEGV)
            server.wait_until(lambda: server.workers()[0]["pid"] not in (0, before))  # noqa: B023
            server.wait_until(lambda: server.workers()[0]["state"] == "RUNNING")
        model.unlink()
        os.kill(server.workers()[0]["pid"], signal.SIGSEGV)
        server.wait_until(lambda: server.workers()[0]["state"] == "FATAL")
        with pytest.raises(RpcError, match=f"cannot read {model}: No such file or directory"):
            client.call("rkllm.run", {"model": "demo", "prompt": "x"})
