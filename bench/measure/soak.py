"""Whether rkvisord stays as small as it is while it serves, and what it says of itself."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from measure.record import Goal, Measurement
from measure.rkvisord import Rkvisord

CLIENTS, WORKERS, TOKENS = 4, 2, 2
#: Served before it counts: caches, pools and the memory of answered requests are full then.
WARM_UP = 10_000
MODEL = f"""
[models.demo]
runtime = "sim"
path = "builtin:tiny"
workers = {WORKERS}
spares = 1
"""
HOW = f"""
{CLIENTS} clients ask {WORKERS} workers for {TOKENS} tokens, one request after another, {{requests}} requests after
{WARM_UP} that do not count. Resident memory of rkvisord (VmRSS), 1 s after the last answer, before and after; what its
own report (memory.report) says of rkvisord then; and the growth of the larger worker.
"""


def measure(*, is_quick: bool) -> Measurement:
    """See ``HOW``."""
    requests = 5_000 if is_quick else 100_000
    result = Measurement("soak", f"{requests} requests", HOW.replace("{requests}", str(requests)))
    with Rkvisord(MODEL) as server:
        pids = [worker["pid"] for worker in server.workers()]
        serve(server, WARM_UP)
        before, ours = rss_mb(server.pid), [rss_mb(pid) for pid in pids]
        begun = time.monotonic()
        serve(server, requests)
        took_s = time.monotonic() - begun
        after = rss_mb(server.pid)
        grown = max(rss_mb(pid) - one for pid, one in zip(pids, ours, strict=True))
        with server.client() as client:
            (report,) = client.call("memory.report", {"worker": "rkvisord"})["workers"]
    result.add("rkvisord", "MB", [before], "before")
    result.add("rkvisord", "MB", [after], "after")
    result.add("one worker", "MB", [grown], "growth")
    result.remarks += [
        f"rkvisord says of itself: {report['verdict']}",
        f"{requests / took_s:.0f} requests a second, clients, workers and rkvisord on the same cores",
    ]
    result.goals += [
        Goal(f"growth of rkvisord over {requests} requests", after - before, 2.0, "MB", "flat (≤ 2 MB)"),
        Goal("it says that it leaks", float(report["verdict"] == "leaking"), 0.0, "", "no"),
    ]
    return result


def serve(server: Rkvisord, requests: int) -> None:
    """So many, by all clients together."""
    threads = [threading.Thread(target=ask, args=(server, requests // CLIENTS)) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    time.sleep(1)


def ask(server: Rkvisord, requests: int) -> None:
    """One client."""
    with server.client() as client:
        for number in range(requests):
            client.call("rkllm.run", {"model": "demo", "prompt": f"number {number}", "max_new_tokens": TOKENS})


def rss_mb(pid: int) -> float:
    """MB (10⁶ bytes)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"cannot read the memory of process {pid}")
