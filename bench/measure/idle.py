"""What it costs to sit there: CPU, wake-ups and memory of rkvisord, supervisord and circus with four children each."""

from __future__ import annotations

import contextlib
import sys
import time

from measure import peers, procfs
from measure.record import Goal, Measurement
from measure.rkvisord import LAUNCH, Rkvisord

CHILDREN = 4
MODEL = f"""
[models.demo]
runtime = "sim"
path = "builtin:tiny"
workers = {CHILDREN}
spares = 1
"""
HOW = f"""
rkvisord with {CHILDREN} workers of builtin:tiny and a blank spare, supervisord and circus with {CHILDREN} sleeping
children each, side by side, {{seconds}} s without a request, after 5 s of rest. CPU: time on a CPU of all threads
(schedstat). Wake-ups: voluntary context switches of all threads. A value is one second's. Memory: USS, the private
pages of smaps_rollup, of rkvisord before it served a request, of a worker after it served one; the simulator's own
part of it (its model in memory, its vocabulary) is well under 1 MB, so what is left is interpreter, imports and
ZeroMQ. MB are 10⁶ bytes.
"""


def measure(*, is_quick: bool) -> Measurement:
    """See ``HOW``."""
    seconds = 8 if is_quick else 20
    result = Measurement("idle", f"Idle, {CHILDREN} children", HOW.replace("{seconds}", str(seconds)))
    child = f"{sys.executable} -P {LAUNCH / 'ready_child.py'}"
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Rkvisord(MODEL))
        pids = {"rkvisord": server.pid}
        for name, words_for in (("supervisord", peers.supervisord), ("circus", peers.circusd)):
            where = stack.enter_context(peers.folder())
            process = stack.enter_context(peers.running(words_for(where, child, CHILDREN), where))
            pids[name] = process.pid
        time.sleep(5)
        pids["one worker"] = workers = server.workers()[0]["pid"]
        time.sleep(0.5)
        sample(result, pids, seconds)
        result.add("rkvisord", "MB", [procfs.uss_mb(pids["rkvisord"])], "USS")
        for name in ("supervisord", "circus"):
            result.add(name, "MB", [procfs.uss_mb(pids[name])], "USS")
        with server.client() as client:
            for _ in range(CHILDREN):
                client.call("rkllm.run", {"model": "demo", "prompt": "tell me a story", "max_new_tokens": 64})
        result.add("one worker", "MB", [procfs.uss_mb(workers)], "USS")
    judge(result)
    return result


def sample(result: Measurement, pids: dict[str, int], seconds: int) -> None:
    """Look once a second."""
    shares: dict[str, list[float]] = {name: [] for name in pids}
    wakes: dict[str, list[float]] = {name: [] for name in pids}

    def look() -> dict[str, tuple[float, float, int]]:
        return {name: (time.monotonic(), procfs.cpu_s(pid), procfs.wakeups(pid)) for name, pid in pids.items()}

    before = look()
    for _ in range(seconds):
        time.sleep(1)
        now = look()
        for name, (when, cpu_s, count) in now.items():
            took = when - before[name][0]
            shares[name].append((cpu_s - before[name][1]) / took * 100)
            wakes[name].append((count - before[name][2]) / took)
        before = now
    for name in pids:
        result.add(name, "% of a CPU", shares[name], "CPU")
    for name in pids:
        result.add(name, "1/s", wakes[name], "wake-ups")


def judge(result: Measurement) -> None:
    """Means of the whole time count: a supervisor that works every ten seconds must not look idle."""

    def mean(who: str, what: str) -> float:
        series = result.find(who, what)
        assert series is not None
        return sum(series.values) / len(series.values)

    result.goals += [
        Goal("idle CPU, mean", mean("rkvisord", "CPU"), 0.2, "%", "≤ 0.2 %"),
        Goal("wake-ups, mean", mean("rkvisord", "wake-ups"), 5, "1/s", "≤ 5/s"),
        Goal("USS of rkvisord", mean("rkvisord", "USS"), 35, "MB", "≤ 35 MB"),
        Goal("USS of a worker beyond its runtime", mean("one worker", "USS"), 30, "MB", "≤ 30 MB"),
    ]
    for peer in ("supervisord", "circus"):
        result.ratios[f"rkvisord / {peer} (USS)"] = mean("rkvisord", "USS") / mean(peer, "USS")
        result.remarks.append(
            f"mean CPU of {peer}: {mean(peer, 'CPU'):.3f} %, of rkvisord: {mean('rkvisord', 'CPU'):.3f} %"
        )
