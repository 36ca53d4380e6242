"""How soon rkvisord acts on a death and tells of it, and how often a supervisor starts what cannot live."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

from measure import native, peers
from measure.record import Goal, Measurement
from measure.rkvisord import Rkvisord

MODEL = """
[models.demo]
runtime = "sim"
path = "builtin:tiny"
workers = 1
spares = 1
"""
DOOMED = """
[models.demo]
runtime = "sim"
path = "{model}"
library = "{library}"
abi = "F5"
workers = 1
spares = 1
"""
HOW = """
Reaction: kill(pid, SIGKILL) of the only worker while it streams a request with retry = "never"; until rkvisord's
Slot.on_exit ('death seen'), from there until the slot has left RUNNING ('state changed'), and from kill to the
WORKER_CRASHED error at the client ('client told'). Breaker: kill the worker under requests with retry = "never"
until one is refused with CIRCUIT_OPEN: how many failures it took, and how soon after the last of them the refusal came.
Crash loop: how
often a program is started that dies of SIGSEGV at once, in {seconds} s; rkvisord's dies in rkllm_init
(native/doomed_runtime.c), spares and all counted; supervisord's and circus's is native/doomed_child.c with their
default limits; gunicorn's worker dies while it loads the application. They run side by side.
"""
#: The goal is about this time; a quick run looks at less of it.
LOOP_S = 20.0


def measure(*, is_quick: bool) -> Measurement:
    """See ``HOW``."""
    seconds = 10.0 if is_quick else LOOP_S
    result = Measurement("reaction", "Reaction to a death; a crash loop", HOW.replace("{seconds}", f"{seconds:g}"))
    seen, changed, told = kill_running(20 if is_quick else 100)
    result.add("rkvisord", "ms", seen, "death seen")
    result.add("rkvisord", "ms", changed, "death seen → state changed")
    result.add("rkvisord", "ms", [b - a for a, b in zip(seen, told, strict=True)], "death seen → client told")
    result.add("rkvisord", "ms", told, "client told")
    for what in ("death seen → state changed", "death seen → client told"):
        found = result.find("rkvisord", what)
        assert found is not None
        result.goals.append(Goal(f"{what}, p99", found.p99, 5.0, "ms", "≤ 5 ms p99"))
    failures, refused = trip_breaker(2 if is_quick else 5)
    result.add("rkvisord", "failures", failures, "until the breaker opens")
    result.add("rkvisord", "ms", refused, "deciding failure → a request refused")
    result.goals.append(Goal("the breaker trips, slowest", max(refused), 50.0, "ms", "< 50 ms"))
    counts: dict[str, int] = {}
    loops = {
        "rkvisord": loop_rkvisord,
        "supervisord": loop_supervisord,
        "circus": loop_circus,
        "gunicorn": loop_gunicorn,
    }
    for prepare in (peers.install, native.doomed_child, native.doomed_runtime):
        prepare()  # once, before the threads
    threads = [
        threading.Thread(target=lambda n=name, f=loop: counts.update({n: f(seconds)})) for name, loop in loops.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in loops:
        if name in counts:
            result.add(name, f"starts in {seconds:g} s", [counts[name]], "crash loop")
    if "rkvisord" in counts:
        result.goals.append(Goal("starts of a model that dies in init", counts["rkvisord"], 6, "starts", "≤ 6 in 20 s"))
    return result


def kill_running(n: int) -> tuple[list[float], list[float], list[float]]:
    """Milliseconds, see ``HOW``."""
    seen, changed, told = [], [], []
    with Rkvisord(MODEL, probe=["--watch", "all"]) as server, server.client() as client:
        events = server.events
        pid = server.workers()[0]["pid"]
        for _ in range(n):
            events.wait("hello")
            client.call("rkllm.run", {"model": "demo", "prompt": "settle", "max_new_tokens": 1})
            time.sleep(0.05)
            events.clear()
            params = {"model": "demo", "prompt": "go on", "max_new_tokens": 2000, "retry": "never", "stream": True}
            client.send("rkllm.run", params)
            for _ in range(20):
                client.receive()
            begun = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            while "error" not in client.receive():
                pass
            told.append((time.monotonic() - begun) * 1000)
            death = events.wait("death", "demo:0")[0]
            seen.append((death - begun) * 1000)
            changed.append((events.wait("phase", "demo:0")[0] - death) * 1000)
            pid = int(events.wait("phase", "demo:0", "RUNNING")[1][3])
    return seen, changed, told


def trip_breaker(n: int) -> tuple[list[float], list[float]]:
    """Failures until a request is refused, and the milliseconds that the refusal took, with *n* daemons."""
    failures, refused = [], []
    for _ in range(n):
        with Rkvisord(MODEL, probe=["--watch", "all"]) as server, server.client() as client:
            count = 0
            begun = time.monotonic()
            while True:
                params = {
                    "model": "demo",
                    "prompt": f"{count}",
                    "max_new_tokens": 2000,
                    "retry": "never",
                    "stream": True,
                }
                client.send("rkllm.run", params)
                answer = client.receive()
                if "error" in answer and answer["error"]["data"]["name"] == "CIRCUIT_OPEN":
                    refused.append((time.monotonic() - begun) * 1000)
                    failures.append(float(count))
                    break
                os.kill(server.workers()[0]["pid"], signal.SIGKILL)
                while "error" not in client.receive():
                    pass
                begun = time.monotonic()
                count += 1
                if count > 20:
                    raise RuntimeError("the breaker does not open")
    return failures, refused


def loop_rkvisord(seconds: float) -> int:
    """Starts of processes."""
    with peers.folder() as where:
        (where / "model.toml").write_text("token_ms = 1.0\n")
        models = DOOMED.format(model=where / "model.toml", library=native.doomed_runtime())
        begun = time.monotonic()
        with Rkvisord(models, probe=["--watch", "all"], is_doomed=True) as server:
            time.sleep(max(0.0, seconds - (time.monotonic() - begun)))
            server.events.poll()
            if "SIGSEGV" not in server.log():
                raise RuntimeError("the doomed runtime does not come to die of SIGSEGV in rkllm_init")
            return sum(words[0] == "spawn" for _, words in server.events.waiting)


def count(words: list[str], where: Path, seconds: float) -> int:
    """Bytes in the file that the doomed children count themselves in."""
    with peers.running(words, where):
        time.sleep(seconds)
        file = where / "count"
        return file.stat().st_size if file.exists() else 0


def loop_supervisord(seconds: float) -> int:
    """Starts of the program."""
    with peers.folder() as where:
        return count(peers.supervisord(where, f"{native.doomed_child()} {where / 'count'}"), where, seconds)


def loop_circus(seconds: float) -> int:
    """Starts of the program."""
    with peers.folder() as where:
        return count(peers.circusd(where, f"{native.doomed_child()} {where / 'count'}"), where, seconds)


def loop_gunicorn(seconds: float) -> int:
    """Forks of the worker."""
    with peers.folder() as where:
        words = [*peers.gunicorn(where, "doomed")]
        words[-1:-1] = ["--env", f"BENCH_COUNT={where / 'count'}"]
        return count(words, where, seconds)
