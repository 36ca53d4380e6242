"""Calls that make a process larger for good leave a mark in its life, so that what they take is no leak."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.rkvisord import Rkvisord, RpcError

CONFIG = """
[memory]
interval_s = 0.5
[models.demo]
runtime = "sim"
path = "builtin:tiny"
workers = 2
standby = 1
spares = 0
lora_dir = "lora"
prompt_cache_dir = "caches"
[models.large]
runtime = "sim"
path = "builtin:tiny"
workers = 1
spares = 0
prompt_cache_dir = "caches"
"""
#: Tokens of a prompt cache so large that it shows: 16 bytes of the file, and as many of the runtime's memory, each.
TOKENS = 500_000
MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def server() -> Iterator[Rkvisord]:
    with tempfile.TemporaryDirectory(prefix="rkvk") as name:
        folder = Path(name)
        for one in ("lora", "caches"):
            (folder / one).mkdir()
        (folder / "lora" / "poet.bin").write_bytes(b"poet")
        (folder / "caches" / "broken").write_bytes(b"broken")
        head = struct.pack("<16sQQ", b"rkvisor-simkv-1", TOKENS, 0)
        (folder / "caches" / "long").write_bytes(head + b"".join(struct.pack("<qQ", 7, n) for n in range(TOKENS)))
        with Rkvisord(CONFIG, folder=folder) as running:
            yield running


def lives(server: Rkvisord, model: str) -> dict[str, Any]:
    """The process of each worker of *model*, as the report has it."""
    rows = server.call("memory.report", {"points": 1000})["workers"]
    return {row["name"]: row["lives"][-1] for row in rows if row["name"].startswith(model)}


def kinds(life: Any) -> list[str]:
    return [mark["kind"] for mark in life["marks"]]


def test_a_lora_is_marked_in_every_process_that_loaded_it_when_it_did(server: Rkvisord) -> None:
    assert [kinds(life) for life in lives(server, "demo").values()] == [["loaded"]] * 2
    before = time.time()
    server.call("rkllm.load_lora", {"model": "demo", "path": "poet.bin", "name": "poet"})
    after = time.time()
    for life in lives(server, "demo").values():
        assert kinds(life) == ["loaded", "lora"]
        mark = life["marks"][1]
        assert mark["text"] == "rkllm.load_lora"
        assert before - 0.1 <= mark["time"] <= after + 0.1
    assert "lora" not in [kind for life in lives(server, "rkvisord").values() for kind in kinds(life)]
    assert "lora" not in [kind for life in lives(server, "large").values() for kind in kinds(life)]


def test_a_standby_that_takes_a_place_brings_its_mark_and_so_does_a_new_process(server: Rkvisord) -> None:
    replace(server)  # the standby takes the place
    replace(server)  # what was loaded in its stead does


def replace(server: Rkvisord) -> None:
    """Kill the process of "demo:0"; back when another one fills it and has a LoRA."""
    pid = lives(server, "demo")["demo:0"]["pid"]
    os.kill(pid, signal.SIGKILL)

    def is_configured() -> bool:
        life = lives(server, "demo").get("demo:0")
        return life is not None and life["pid"] != pid and kinds(life) == ["loaded", "lora"]

    server.wait_until(is_configured, "a process that has the LoRA")


def test_a_call_that_fails_leaves_no_mark(server: Rkvisord) -> None:
    with pytest.raises(RpcError):
        server.call("rkllm.load_prompt_cache", {"model": "large", "path": "broken"})
    assert [kinds(life) for life in lives(server, "large").values()] == [["loaded"]]


def test_what_a_prompt_cache_takes_is_a_step_with_its_name_and_no_leak(server: Rkvisord) -> None:
    work(server, 8)
    before = lives(server, "large")["large:0"]["points"]
    server.call("rkllm.load_prompt_cache", {"model": "large", "path": "long"})
    work(server, len(before) + 8)
    after = lives(server, "large")["large:0"]["points"]
    taken = after[-1][3] - before[-1][3]
    assert taken > 8 * MEGABYTE
    server.wait_until(lambda: has_step(server), "an estimate that has the step")
    row, anon = estimated(server)
    (step,) = [one for one in anon["steps"] if one["kind"] == "prompt_cache"]
    assert step["text"] == "rkllm.load_prompt_cache"
    assert step["bytes"] == pytest.approx(taken, rel=0.3)
    assert row["verdict"] in ("clean", "warming_up")


def work(server: Rkvisord, samples: int) -> None:
    """Ask "large" until there are so many samples of its process."""
    while len(lives(server, "large")["large:0"]["points"]) < samples:
        ask(server)


def ask(server: Rkvisord) -> None:
    """Some requests; behind so large a prompt cache there is no room in the context, but a request it is."""
    for _ in range(5):
        with contextlib.suppress(RpcError):
            server.call("rkllm.run", {"model": "large", "prompt": "hello", "max_new_tokens": 1})


def estimated(server: Rkvisord) -> tuple[Any, Any]:
    """The row of "large", and its anonymous memory."""
    (row,) = server.call("memory.report", {"worker": "large:0"})["workers"]
    return row, next(one for one in row["series"] if one["name"] == "anon")


def has_step(server: Rkvisord) -> bool:
    ask(server)
    return any(one["kind"] == "prompt_cache" for one in estimated(server)[1]["steps"])
