"""Brokers with echo peers behind them, rkvisord among them, all seen alike: an endpoint for clients and a pid."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from measure import native
from measure.rkvisord import LAUNCH, Rkvisord
from rkvisor.protocol import link

#: Names in tables, and the argument of launch/broker.py.
PLAIN = {
    "zmq.proxy": "proxy",
    "add_reader loop, only forwarding": "add_reader",
    "zmq.asyncio loop, only forwarding": "asyncio",
}
_ECHO_MODEL = """
[models.echo]
runtime = "sim"
path = "builtin:tiny"
spares = 0
workers = {peers}
max_queue = 10000
"""


@dataclass(frozen=True, slots=True)
class Broker:
    """endpoint: for clients.  pid: of the broker's process alone."""

    name: str
    endpoint: str
    pid: int


Start = Callable[[int, Sequence[int]], contextlib.AbstractContextManager[Broker]]


@contextlib.contextmanager
def pinned(cpus: Sequence[int]) -> Iterator[None]:
    """Run this process, and what it starts meanwhile, on *cpus* only; no limit where there are none."""
    before = os.sched_getaffinity(0)
    if cpus:
        os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def rkvisord(peers: int, cpus: Sequence[int]) -> Iterator[Broker]:
    """rkvisord with *peers* echo peers as its workers."""
    ready = link.Ready(
        family="F5", functions=[], can_force_tokens=True, default_param={}, param={"temperature": 0.0}, load_s=0.0
    )
    with tempfile.NamedTemporaryFile(prefix="ready") as file:
        file.write(link.encode_body(ready))
        file.flush()
        probe = ["--watch", "nothing", "--echo", str(native.echo_peer())]
        models = _ECHO_MODEL.format(peers=peers)
        with Rkvisord(models, probe=probe, cpus=cpus, environment={"ECHO_READY": file.name}) as server:
            yield Broker("rkvisord", server.endpoint, server.pid)


def plain(name: str) -> Start:
    """The start of one of ``PLAIN``."""

    @contextlib.contextmanager
    def start(peers: int, cpus: Sequence[int]) -> Iterator[Broker]:
        echo = str(native.echo_peer())
        with tempfile.TemporaryDirectory(prefix="rkb") as folder, contextlib.ExitStack() as stack, pinned(cpus):
            front, back = f"ipc://{Path(folder, 'front')}", f"ipc://{Path(folder, 'back')}"
            words = [sys.executable, "-P", str(LAUNCH / "broker.py"), PLAIN[name], front, back]
            broker = stack.enter_context(started(words))
            for _ in range(peers):
                stack.enter_context(started([echo, back]))
            yield Broker(name, front, broker.pid)

    return start


@contextlib.contextmanager
def started(words: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is killed at the end."""
    process = subprocess.Popen(words)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def everyone() -> dict[str, Start]:
    """All brokers, rkvisord first."""
    return {"rkvisord": rkvisord, **{name: plain(name) for name in PLAIN}}
