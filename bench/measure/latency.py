"""What rkvisor adds to a token's time, with 100 streams on 100 workers of the simulator."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import zmq

from measure import procfs
from measure.record import Goal, Measurement
from measure.rkvisord import LAUNCH, Rkvisord, request

TOKEN_MS = 100
MODEL = """
[models.load]
runtime = "sim"
path = "{path}"
workers = {streams}
spares = 0
max_queue = 1000
param = {{ temperature = 0.0 }}
"""
SIMULATED = f"""name = "paced"
vocab_size = 1024
embedding_size = 64
context = 16384
token_ms = {TOKEN_MS}.0
"""
#: (seconds, monotonic; the message)
Arrival = tuple[float, bytes]
HOW = f"""
100 clients, each a connection of its own, stream from 100 workers of the simulator at {TOKEN_MS} ms a token (10
tokens/s, as 2B models give on an RK3588; 1000 tokens/s in all), begun evenly spread over one token's time, as
unrelated clients would. The simulator paces by absolute deadlines: token k of a run is due (k + 1) · token time
after prefill, which takes 0, so after rkllm_run was called. The worker stamps that call (launch/worker_stamped.py,
CLOCK_MONOTONIC, which all processes share), the client stamps each arrival. A value is arrival − due: it contains
the kernel's timer, the callback, the worker, rkvisord, the client's own reading and the few µs between the stamp
and the simulator's clock, so it can only be too high. 102 processes share the machine's cores.
"""


def measure(*, is_quick: bool) -> Measurement:
    """See ``HOW``."""
    streams, tokens = (40, 30) if is_quick else (100, 100)
    result = Measurement(
        "latency", f"Added token latency, {streams} streams on {streams} workers, {TOKEN_MS} ms a token", HOW
    )
    with tempfile.TemporaryDirectory(prefix="rkb") as name:
        folder = Path(name)
        (folder / "paced.toml").write_text(SIMULATED)
        models = MODEL.format(path=folder / "paced.toml", streams=streams)
        environment = {"BENCH_STAMPS": str(folder / "stamps")}
        probe = ["--watch", "nothing", "--worker", str(LAUNCH / "worker_stamped.py")]
        with Rkvisord(models, probe=probe, environment=environment) as server:
            before_s = procfs.cpu_s(server.pid)
            answers = run_streams(server, streams, tokens)
            cpu_us = (procfs.cpu_s(server.pid) - before_s) / (streams * tokens) * 1e6
        stamps = {worker: float(when) for worker, when in map(str.split, (folder / "stamps").read_text().splitlines())}
    values = added_ms(answers, stamps)
    ours = result.add("rkvisor", "ms", [value for stream in values for value in stream])
    result.add("rkvisor", "ms", [stream[0] for stream in values], "first token of a stream")
    result.add("rkvisord", "µs/token", [cpu_us], "CPU a token, real workers")
    if ours:
        result.goals.append(Goal("added latency, p50", ours.p50, 1.0, "ms", "≤ 1 ms p50"))
        result.goals.append(Goal("added latency, p99", ours.p99, 10.0, "ms", "≤ 10 ms p99"))
    return result


def run_streams(server: Rkvisord, streams: int, tokens: int) -> dict[str, list[Arrival]]:
    """What each worker's stream brought."""
    poller = zmq.Poller()
    sockets: dict[Any, list[Arrival]] = {}
    for _ in range(streams):
        socket = server.context.socket(zmq.DEALER)
        socket.connect(server.endpoint)
        poller.register(socket, zmq.POLLIN)
        sockets[socket] = []
        socket.send(request(0, "system.version", {}))
    for socket in sockets:
        socket.recv()  # connected, and known to rkvisord
    answers: dict[str, list[Arrival]] = {}
    waiting = list(sockets)
    begun = time.monotonic()
    while len(answers) < streams:
        due = begun + (streams - len(waiting)) * TOKEN_MS / 1000 / streams
        if waiting and time.monotonic() >= due:
            params = {"model": "load", "prompt": "go on", "max_new_tokens": tokens, "stream": True}
            waiting.pop().send(request(1, "rkllm.run", params))
            continue
        ready = poller.poll(max(0, int((due - time.monotonic()) * 1000)) if waiting else 30_000)
        if not ready and not waiting:
            raise TimeoutError(f"{streams - len(answers)} streams do not end")
        for socket, _ in ready:
            message = socket.recv()
            sockets[socket].append((time.monotonic(), message))
            if b'"rkllm.token"' not in message:
                answers[msgspec.json.decode(message)["result"]["worker"]] = sockets[socket][:-1]
    return answers


def added_ms(answers: dict[str, list[Arrival]], stamps: dict[str, float]) -> list[list[float]]:
    """Milliseconds that each token came after it was due, a list a stream.

    Tokens that became text together came together: the last of them counts.
    """
    values: list[list[float]] = []
    for worker, arrivals in answers.items():
        values.append([])
        tokens = 0
        for when, message in arrivals:
            params = msgspec.json.decode(message)["params"]
            tokens += len(params.get("token_ids", (0,)))
            values[-1].append((when - stamps[worker]) * 1000 - tokens * TOKEN_MS)
    return values
