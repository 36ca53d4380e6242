"""What rkvisord keeps in memory of failures: reports, groups, charges, circuits, dead letters (requirement S2.4)."""

from __future__ import annotations

import os
import signal

from measure.machine import ROOT
from measure.record import Goal, Measurement
from measure.rkvisord import Client, Rkvisord

WORKERS = 4
MODEL = f"""
[models.demo]
runtime = "sim"
path = "builtin:tiny"
workers = {WORKERS}
spares = 2
faults = true
breaker_failures = 1000
startretries = 1000
"""
#: Everything that is about failures alone, below supervisor/.
PLACES = (
    "crashes",
    "requests/breaker",
    "requests/deadletters",
    "requests/degradation",
    "requests/faults",
    "requests/features",
    "requests/ladder",
    "requests/quarantine",
    "requests/recovery",
    "calls/owed",
    "workers/backoff",
    "workers/guard",
    "workers/intensity",
    "workers/watchdog",
)
HOW = f"""
tracemalloc in rkvisord, filtered to the modules that are about failures alone ({", ".join(PLACES)}):
what their lines allocated and nobody freed, after one death, and after {{deaths}} deaths of {WORKERS} workers by
SIGSEGV, each of another request, half of which run again and half of which become dead letters. The reports
themselves are in state.db.
"""


def measure(*, is_quick: bool) -> Measurement:
    """See ``HOW``."""
    deaths = 40 if is_quick else 150
    result = Measurement("bookkeeping", "Memory of error handling", HOW.replace("{deaths}", str(deaths)))
    # rkvisor is a namespace over the checkout, so that a line's file may have either path
    places = [str(top / "supervisor" / place) for top in (ROOT, ROOT / "build" / "ns" / "rkvisor") for place in PLACES]
    probe = ["--watch", "nothing", *(word for place in places for word in ("--trace", place))]
    with Rkvisord(MODEL, supervisor="fault_window_s = 0", probe=probe) as server, server.client() as client:
        fail(client, "first", times=1)
        first = traced_mb(server)
        died = 1
        while died < deaths:
            fail(client, f"once{died}", times=1)
            fail(client, f"poison{died}", times=2)
            died += 3
        after = traced_mb(server)
    result.add("rkvisord", "MB", [first], "after one death")
    result.add("rkvisord", "MB", [after], f"after {died} deaths")
    result.goals.append(Goal("Python objects of error handling", after, 1.0, "MB", "< 1 MB"))
    return result


def fail(client: Client, key: str, times: int) -> None:
    """A request of which so many processes die: it ends in its answer, or as POISON_REQUEST after the second."""
    prompt = f"[[sim:segv after=1 times={times} key={key}]]{key}"
    identifier = client.send("rkllm.run", {"model": "demo", "prompt": prompt, "max_new_tokens": 4})
    answer = client.receive()
    name = answer["error"]["data"]["name"] if "error" in answer else "an answer"
    if answer["id"] != identifier or name != ("an answer" if times == 1 else "POISON_REQUEST"):
        raise RuntimeError(f"cannot measure: {prompt} ended as {name}")


def traced_mb(server: Rkvisord) -> float:
    """MB (10⁶ bytes), now."""
    server.events.clear()
    os.kill(server.pid, signal.SIGRTMIN)
    return int(server.events.wait("traced")[1][1]) / 1e6
