"""A large tensor of a result on its way to the client, beside a bare pyzmq transfer of as many bytes."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import zmq

from measure import procfs
from measure.machine import ROOT
from measure.record import Goal, Measurement
from measure.rkvisord import PATIENCE_S, Rkvisord, request

ROWS, COLUMNS = 4096, 2048
SIZE = ROWS * COLUMNS * 4
HOW = f"""
The hidden states of {ROWS} tokens, {COLUMNS} float32 each ({SIZE >> 20} MiB), as an attachment of the answer of
rkllm.run, from the simulator over rkvisord to a pyzmq DEALER (recv_multipart with its defaults), over ipc. The
value is the client's time from the request to the whole answer less the time that the runtime itself took
(prefill_time_ms and generate_time_ms of the result, in which the callback copies the tensor): two hops, worker to
rkvisord to client. 'bare' is one hop: a ROUTER of another process answers a small request with as many bytes, with
pyzmq's defaults ('copy') and without copying at the sender ('share'). They take turns. Memory is rkvisord's
private pages, before the first and 0.5 s after the last.
"""
MODEL = f"""
[models.wide]
runtime = "sim"
path = "wide.toml"
workers = 1
param = {{ max_context_len = {ROWS} }}
"""
WIDE = f'name = "wide"\nvocab_size = 1024\nembedding_size = {COLUMNS}\n'
#: What rkvisord may have grown by afterwards, MB.
FLAT_MB = 8.0


@contextlib.contextmanager
def bare(context: zmq.Context[zmq.Socket[bytes]], how: str) -> Iterator[Callable[[], float]]:
    """A bare peer; called, it gives the milliseconds of one transfer."""
    with tempfile.TemporaryDirectory(prefix="rkb") as folder:
        endpoint = f"ipc://{folder}/bare.sock"
        program = ROOT / "bench" / "launch" / "bare_peer.py"
        process = subprocess.Popen([sys.executable, "-P", str(program), endpoint, str(SIZE), how])
        socket = context.socket(zmq.DEALER)
        socket.set(zmq.RCVTIMEO, int(PATIENCE_S * 1000))
        socket.connect(endpoint)

        def transfer() -> float:
            begun = time.perf_counter()
            socket.send(b"{}")
            answer = socket.recv_multipart()
            took_ms = (time.perf_counter() - begun) * 1000
            if len(answer[-1]) != SIZE:
                raise RuntimeError(f"the bare peer sent {len(answer[-1])} bytes")
            return took_ms

        try:
            transfer()
            yield transfer
        finally:
            socket.close(linger=0)
            process.kill()
            process.wait()


def ours(socket: zmq.Socket[bytes], number: int) -> float:
    """Milliseconds of one run's answer, without the runtime's."""
    params = {"model": "wide", "tokens": [5] * ROWS, "mode": "hidden"}
    message = request(number, "rkllm.run", params)
    begun = time.perf_counter()
    socket.send(message)
    body, *attachments = socket.recv_multipart()
    took_ms = (time.perf_counter() - begun) * 1000
    result = msgspec.json.decode(body).get("result")
    if result is None or [len(one) for one in attachments] != [SIZE]:
        raise RuntimeError(f"rkvisord answered {body[:300]!r}")
    return took_ms - float(result["perf"]["prefill_time_ms"]) - float(result["perf"]["generate_time_ms"])


def measure(*, is_quick: bool) -> Measurement:
    """See ``HOW``."""
    result = Measurement("tensors", f"A tensor of {SIZE >> 20} MiB from a worker to a client", HOW)
    n = 8 if is_quick else 40
    values: dict[str, list[float]] = {"rkvisord": [], "bare, copy": [], "bare, share": []}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(started())
        plain = {how: stack.enter_context(bare(server.context, how)) for how in ("copy", "share")}
        socket = server.context.socket(zmq.DEALER)
        socket.set(zmq.RCVTIMEO, int(PATIENCE_S * 1000))
        socket.connect(server.endpoint)
        ours(socket, 0)
        before_mb = procfs.uss_mb(server.pid)
        for i in range(n):
            values["rkvisord"].append(ours(socket, i + 1))
            for how, transfer in plain.items():
                values[f"bare, {how}"].append(transfer())
        time.sleep(0.5)
        grown_mb = procfs.uss_mb(server.pid) - before_mb
    series = {who: result.add(who, "ms", times) for who, times in values.items()}
    mine, copied, shared = series["rkvisord"], series["bare, copy"], series["bare, share"]
    if mine and copied and shared:
        result.ratios["rkvisord / bare, copy (p50)"] = mine.p50 / copied.p50
        result.ratios["rkvisord / bare, share (p50)"] = mine.p50 / shared.p50
        text = "≤ 2 × a bare transfer (half its throughput)"
        result.goals.append(Goal("time of the transfer, p50", mine.p50 / copied.p50, 2.0, "× bare", text))
    result.goals.append(Goal("rkvisord's memory afterwards", grown_mb, FLAT_MB, "MB", f"≤ {FLAT_MB:g} MB more"))
    return result


@contextlib.contextmanager
def started() -> Iterator[Rkvisord]:
    """rkvisord with the wide model."""
    server = Rkvisord(MODEL)
    (Path(server.folder) / "wide.toml").write_text(WIDE)
    with server:
        yield server
