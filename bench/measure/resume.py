"""SIGSEGV in mid-stream until the next token is at the client: from a hot standby, and from a blank spare."""

from __future__ import annotations

import itertools

from measure.record import Goal, Measurement
from measure.rkvisord import Client, Rkvisord

MODEL = """
[models.demo]
runtime = "sim"
path = "builtin:tiny"
workers = 1
faults = true
param = {{ temperature = 0.0 }}
spares = {spares}
standby = {standby}
"""
TOKENS = 48
HOW = f"""
A client streams {TOKENS} tokens of builtin:tiny (1 ms a token, greedy). A fault marker lets the runtime write to a
bad address between two tokens: a real SIGSEGV inside rkllm_run, at a place that differs from cut to cut. The value
is the time between the last token that the client got before the crash and the next: it contains the token's own 1
ms and any token that died on its way, so it is an upper bound of SIGSEGV → next token. The answer goes on by forced
tokens, which the simulator takes at 0 ms each, and model load and prefill are 0 too: it is the time of rkvisord,
the worker and the kernel. One worker; each cut is made when the standby has sent READY (or the spare HELLO). A text
that differs from the undisturbed run's would be an error.
"""


def measure(*, is_quick: bool) -> Measurement:
    """See ``HOW``."""
    result = Measurement("resume", "SIGSEGV in mid-stream → next token at the client", HOW)
    n = 15 if is_quick else 120
    standby = result.add("hot standby", "ms", cut_streams(n, standby=1))
    result.add("blank spare", "ms", cut_streams(n, standby=0))
    if standby:
        result.goals.append(Goal("hot standby, p50", standby.p50, 20.0, "ms", "≤ 20 ms p50"))
        result.goals.append(Goal("hot standby, p99", standby.p99, 100.0, "ms", "≤ 100 ms p99"))
    return result


def cut_streams(n: int, *, standby: int) -> list[float]:
    """The pauses of *n* streams, milliseconds."""
    values = []
    models = MODEL.format(spares=1 - standby, standby=standby)
    with Rkvisord(models, probe=["--watch", "all"]) as server, server.client() as client:
        calm = stream(client, "", 0)[1]
        reserve_is_up = "ready" if standby else "hello"
        server.events.wait(reserve_is_up, str(server.workers()[0]["pid"]))
        server.events.wait(reserve_is_up)  # the worker itself came first
        for i in range(n):
            cut = 6 + i * 7 % (TOKENS - 12)
            server.events.clear()
            pause_ms, text = stream(client, f"[[sim:segv after={cut} times=1 key=cut{i}]]", 1)
            if text != calm:
                raise RuntimeError(f"the stream that was cut after {cut} tokens says something else")
            values.append(pause_ms)
            server.events.wait(reserve_is_up)  # of the reserve that follows
    return values


def stream(client: Client, marker: str, resumed: int) -> tuple[float, str]:
    """The longest pause between two tokens, ms, and the text.  resumed: how often it must have been."""
    prompt = f"{marker}tell me a story"
    times, response = client.stream({"model": "demo", "prompt": prompt, "max_new_tokens": TOKENS})
    result = response.get("result", {})
    if result.get("resumed") != resumed:
        raise RuntimeError(f"expected {resumed} resumes: {response}")
    return max(after - before for before, after in itertools.pairwise(times)) * 1000, result["text"]
