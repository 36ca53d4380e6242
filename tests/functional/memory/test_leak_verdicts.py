"""Live: a simulator that leaks, and one that does not, and what rkvisord says of them (issue 5, requirements S1.43)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from harness.rkvisord import UNIT_S, Rkvisord

CONFIG = """
[memory]
interval_s = 0.5
request_interval_s = 0.05
[models.demo]
runtime = "sim"
path = "builtin:tiny"
faults = true
"""
#: How long a verdict may take on a machine that does other things, too.
PATIENCE_S = 90 * UNIT_S


def prompts(fault: str, every: int) -> Iterator[str]:
    """*fault* in every so many of them."""
    return (f"{fault}hello" if fault and number % every == 0 else "hello" for number in count())


def report(server: Rkvisord) -> Any:
    return server.call("memory.report", {"worker": "demo:0"})["workers"][0]


def judged(server: Rkvisord, fault: str, every: int, until: str, least: int) -> Any:
    """The report once the verdict is *until* and *least* requests were served; the last one where that never comes."""
    is_over = threading.Event()

    def ask() -> None:
        with server.client() as client:
            for prompt in prompts(fault, every):
                if is_over.is_set():
                    return
                client.call("rkllm.run", {"model": "demo", "prompt": prompt, "max_new_tokens": 2})
                time.sleep(0.002)

    thread = threading.Thread(target=ask)
    thread.start()
    until_s = time.monotonic() + PATIENCE_S
    try:
        while time.monotonic() < until_s:
            found = report(server)
            if found["verdict"] == until and found["requests"] >= least and (found["reasons"] or until == "clean"):
                break
            time.sleep(0.5)
        return found
    finally:
        is_over.set()
        thread.join(30)


@pytest.mark.parametrize(
    ("fault", "every", "series", "low", "high"),
    [
        ("[[sim:leak bytes=16384 where=heap]]", 1, "anon", 15_000, 18_500),
        ("[[sim:leak bytes=16384 where=mmap]]", 1, "anon", 15_000, 18_500),
        ("[[sim:leak bytes=16384 where=shmem]]", 1, "file", 15_000, 18_500),
        ("[[sim:leak bytes=16384 where=memfd]]", 1, "file", 15_000, 18_500),
        ("[[sim:fdleak]]", 10, "descriptors", 0.08, 0.12),
    ],
    ids=["heap", "mmap", "shmem", "memfd", "descriptors"],
)
def test_a_runtime_that_leaks_is_found_and_named(fault: str, every: int, series: str, low: float, high: float) -> None:
    with Rkvisord(CONFIG) as server:
        found = judged(server, fault, every, "leaking", 200)
    assert (found["verdict"], found["cause"]) == ("leaking", "runtime"), found
    one = next(one for one in found["series"] if one["name"] == series)
    assert one["verdict"] == "leaking"
    assert low <= one["bytes_per_request"] <= high


def test_a_runtime_that_does_not_leak_is_clean() -> None:
    with Rkvisord(CONFIG) as server:
        found = judged(server, "", 1, "clean", 1000)
        own = server.call("memory.report", {"worker": "rkvisord"})["workers"][0]
    assert found["verdict"] == "clean", found
    assert own["verdict"] in ("clean", "warming_up")
