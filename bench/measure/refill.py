"""SIGSEGV of an idle worker until its slot is filled again; the same for a child of each peer."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

from measure import peers
from measure.record import Goal, Measurement
from measure.rkvisord import LAUNCH, Rkvisord

MODEL = """
[models.demo]
runtime = "sim"
path = "builtin:tiny"
workers = 1
spares = {spares}
standby = {standby}
"""
HOW = """
From just before kill(pid, SIGSEGV) of an idle worker to the moment rkvisord enters RUNNING for its slot, which is
when it has READY of the next process: taken inside rkvisord by launch/rkvisord_probed.py, which wraps Slot.on_exit
and Pool.on_phase with a look at CLOCK_MONOTONIC, shared by all processes. 'death seen': until Slot.on_exit. Before
each kill the worker answered a request (it has settled), and the blank spare has said HELLO; the model loads in 0
(builtin:tiny). 'from a standby': with a hot standby in place of the spare, which has sent READY long before, so it
is the time to see the death and promote. The worker's crash handler writes its backtrace as always. Peers: from
kill(pid, SIGSEGV) of the only child until the next says that it is up (a datagram). supervisord: autorestart,
startsecs 0, checks once a second; circus: default check_delay; both are killed at random moments of their period,
and run side by side. gunicorn: a sync worker, forked from the master, until post_worker_init. pidfd: a bare Python
loop on a pidfd with posix_spawn. Children of supervisord, circus and pidfd are launch/ready_child.py: an
interpreter with few imports.
"""


def measure(*, is_quick: bool) -> Measurement:
    """See ``HOW``."""
    result = Measurement("refill", "SIGSEGV of an idle worker → its slot refilled", HOW)
    n = 12 if is_quick else 60
    seen, filled = crash_workers(n, standby=0)
    ours = result.add("rkvisord", "ms", filled)
    result.add("rkvisord", "ms", seen, "death seen")
    result.add("rkvisord", "ms", crash_workers(n // 2, standby=1)[1], "from a standby")
    python = sys.executable
    child = f"{python} -P {LAUNCH / 'ready_child.py'}"
    result.add("gunicorn, sync worker", "ms", crash_gunicorn(8 if is_quick else 30))
    result.add("pidfd and posix_spawn", "ms", crash_pidfd(child, 8 if is_quick else 30))
    slow: dict[str, list[float]] = {}
    threads = [
        threading.Thread(target=lambda: slow.update(supervisord=crash_supervisord(child, 3 if is_quick else 15))),
        threading.Thread(target=lambda: slow.update(circus=crash_circus(child, 2 if is_quick else 8))),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, values in slow.items():
        result.add(name, "ms", values)
    if ours:
        result.goals.append(Goal("slot refilled, p50", ours.p50, 6.0, "ms", "≤ 6 ms p50"))
        for other in result.series[3:]:
            result.ratios[f"rkvisord / {other.who} (p50)"] = ours.p50 / other.p50
    return result


def crash_workers(n: int, *, standby: int) -> tuple[list[float], list[float]]:
    """Milliseconds until the death was seen, and until the slot was filled, of *n* crashes."""
    seen, filled = [], []
    reserve_is_up = "ready" if standby else "hello"
    with (
        Rkvisord(MODEL.format(spares=1 - standby, standby=standby), probe=["--watch", "all"]) as server,
        server.client() as client,
    ):
        events = server.events
        pid = server.workers()[0]["pid"]
        events.wait(reserve_is_up, str(pid))
        for _ in range(n):
            events.wait(reserve_is_up)  # of the one that was started when the slot was filled
            client.call("rkllm.run", {"model": "demo", "prompt": "settle", "max_new_tokens": 1})
            time.sleep(0.05)
            events.clear()
            begun = time.monotonic()
            os.kill(pid, signal.SIGSEGV)
            seen.append((events.wait("death", "demo:0")[0] - begun) * 1000)
            when, words = events.wait("phase", "demo:0", "RUNNING")
            filled.append((when - begun) * 1000)
            pid = int(words[3])
            if not standby:
                events.wait("ready", str(pid))
    return seen, filled


def crash_children(ready: peers.Ready, n: int, *, pause_s: float, is_random: bool = False) -> list[float]:
    """Milliseconds from the kill of the child that said it is up to the word of the next, *n* times."""
    values = []
    pid, _ = ready.wait()
    for i in range(n):
        time.sleep(pause_s + (i * 0.618 % 1 if is_random else 0))  # the golden ratio spreads the moments evenly
        begun = time.monotonic()
        os.kill(pid, signal.SIGSEGV)
        pid, when = ready.wait()
        values.append((when - begun) * 1000)
    return values


def crash_supervisord(child: str, n: int) -> list[float]:
    """See ``HOW``."""
    with peers.folder() as where, contextlib.closing(peers.Ready(where)) as ready:
        words = peers.supervisord(where, f"{child} {ready.path}", startsecs="0")
        with peers.running(words, where):
            return crash_children(ready, n, pause_s=0.3, is_random=True)


def crash_circus(child: str, n: int) -> list[float]:
    """See ``HOW``."""
    with peers.folder() as where, contextlib.closing(peers.Ready(where)) as ready:
        words = peers.circusd(where, f"{child} {ready.path}")
        with peers.running(words, where):
            return crash_children(ready, n, pause_s=0.3, is_random=True)


def crash_gunicorn(n: int) -> list[float]:
    """See ``HOW``."""
    with peers.folder() as where, contextlib.closing(peers.Ready(where)) as ready:
        words = peers.gunicorn(where, "serving", ready=ready.path)
        with peers.running(words, where):
            return crash_children(ready, n, pause_s=0.05)


def crash_pidfd(child: str, n: int) -> list[float]:
    """See ``HOW``."""
    with peers.folder() as where, contextlib.closing(peers.Ready(where)) as ready:
        words = [sys.executable, "-P", str(LAUNCH / "pidfd_loop.py"), *child.split(), str(ready.path)]
        with running_group(words, where):
            return crash_children(ready, n, pause_s=0.05)


@contextlib.contextmanager
def running_group(words: list[str], where: Path):  # type: ignore[no-untyped-def]
    """``peers.running`` for a program that does not end its child: that is ended too."""
    from measure.procfs import children

    with peers.running(words, where) as process:
        yield process
        orphans = children(process.pid)
        process.kill()
        for orphan in orphans:
            os.kill(orphan, signal.SIGKILL)
