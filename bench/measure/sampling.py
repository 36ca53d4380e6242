"""What watching memory costs: rkvisord's thread for 16 workers, and a token's time in a large one that is looked at."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path

from measure import procfs
from measure.record import Goal, Measurement, percentile
from measure.rkvisord import Rkvisord

WORKERS = 16
SMALL = f"""
[models.demo]
runtime = "sim"
path = "builtin:tiny"
workers = {WORKERS}
spares = 0
"""
LARGE_MB, TOKEN_MS = 2048, 2.0
LARGE = """
[memory]
{often}
[models.large]
runtime = "sim"
path = "{path}"
spares = 0
"""
SIMULATED = f"""name = "large"
vocab_size = 1024
embedding_size = 64
context = 16384
token_ms = {TOKEN_MS}
resident_mb = {LARGE_MB}
"""
HOW = f"""
Cost: CPU time (schedstat) of the thread of rkvisord that samples, estimates and looks at mappings, with {WORKERS}
workers at the default rates, over {{seconds}} s: at rest, and while every worker answers requests of two tokens as fast
as four clients ask; each begins 20 s after the state did, because a young process is looked at more often.
Latency: from one token to the next at the client, of a simulated model of {LARGE_MB} MB resident memory at
{TOKEN_MS:.0f} ms a token, with a sample once an hour ("hardly"), and every 50 ms with a look at the mappings every
second, which is 100 and 300 times as often as by default ("often"). Two daemons, whose streams of 500 tokens take
turns. A look that is due while a stream runs reads /proc/PID/maps, never smaps.
"""


def thread_s(pid: int) -> float:
    """Seconds on a CPU of the thread that samples."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text().strip() == "rkvisor-memory":
            return int((task / "schedstat").read_text().split()[0]) / 1e9
    raise RuntimeError("cannot find the thread that samples")


def measure(*, is_quick: bool) -> Measurement:
    """See ``HOW``."""
    seconds = 10 if is_quick else 40
    result = Measurement(
        "sampling", f"Watching the memory of {WORKERS} workers", HOW.replace("{seconds}", str(seconds))
    )
    with Rkvisord(SMALL) as server:
        time.sleep(5 if is_quick else 20)
        rest = share(server.pid, seconds)
        result.add("rkvisord", "% of a CPU", [rest], "at rest")
        is_over = threading.Event()
        threads = [threading.Thread(target=ask, args=(server, is_over)) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(5 if is_quick else 20)
        busy = share(server.pid, seconds)
        is_over.set()
        for thread in threads:
            thread.join()
        result.add("rkvisord", "% of a CPU", [busy], "under load")
    gaps = gaps_ms(is_quick=is_quick)
    for name, values in gaps.items():
        result.add("one worker", "ms", values, f"from token to token, sampled {name}")
    result.goals += [
        Goal("sampling and estimating, 16 workers at rest", rest, 0.5, "%", "≤ 0.5 % of a core"),
        Goal("sampling and estimating, 16 workers under load", busy, 0.5, "%", "≤ 0.5 % of a core"),
    ]
    for words, share_of in (("p50", 0.5), ("p99", 0.99)):
        hardly, often = (percentile(gaps[name], share_of) for name in ("hardly", "often"))
        text = f"a token beside 2 GB, sampled often against hardly, {words}"
        result.goals.append(Goal(text, often / hardly, 1.05, "×", "not measurable (≤ 1.05 ×)"))
    return result


RATES = {
    "hardly": "interval_s = 3600\nrequest_interval_s = 3600\nlook_interval_s = 3600",
    "often": "interval_s = 0.05\nrequest_interval_s = 0.05\nlook_interval_s = 1.0",
}


def share(pid: int, seconds: float) -> float:
    """Of one core, percent."""
    before, begun = thread_s(pid), time.monotonic()
    time.sleep(seconds)
    return (thread_s(pid) - before) / (time.monotonic() - begun) * 100


def ask(server: Rkvisord, is_over: threading.Event) -> None:
    """One client."""
    with server.client() as client:
        while not is_over.is_set():
            client.call("rkllm.run", {"model": "demo", "prompt": "x", "max_new_tokens": 2})


def gaps_ms(*, is_quick: bool) -> dict[str, list[float]]:
    """Milliseconds from one token to the next, of two daemons whose streams take turns: what the machine does meanwhile
    strikes both alike."""
    tokens, turns = (500, 2) if is_quick else (500, 12)
    found: dict[str, list[float]] = {name: [] for name in RATES}
    with tempfile.TemporaryDirectory(prefix="rkb") as name, contextlib.ExitStack() as stack:
        model = Path(name) / "large.toml"
        model.write_text(SIMULATED)
        clients = {}
        for rate, often in RATES.items():
            server = stack.enter_context(Rkvisord(LARGE.format(path=model, often=often)))
            assert procfs.uss_mb(server.workers()[0]["pid"]) > LARGE_MB
            clients[rate] = stack.enter_context(server.client())
        for _ in range(turns):
            for rate, client in clients.items():
                params = {"model": "large", "prompt": "go on", "max_new_tokens": tokens, "temperature": 0.0}
                times, _ = client.stream(params)
                found[rate] += [(b - a) * 1000 for a, b in pairwise(times)]
    return found
