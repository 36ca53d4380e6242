"""rkvisord with probes, for measurements only: ``rkvisord_probed.py FD [OPTIONS] -- ARGUMENTS OF RKVISORD``.

Nothing of rkvisord is replaced on the way of a request.  What happens when is written to FD, a line per event: seconds
of CLOCK_MONOTONIC, then ``spawn PID``, ``hello PID``, ``ready PID``, ``death NAME PID`` or ``phase NAME PHASE PID``.

--watch nothing: tell only of ``spawn``, so that nothing at all stands beside the way of a request.
--echo PROGRAM: start it in place of ``python -m rkvisor.worker``, with the same arguments.
--worker SCRIPT: start this Python script in its place.
--trace FOLDER: tell ``traced BYTES`` at each SIGRTMIN: what Python objects hold that lines of FOLDER (or a file; said
more than once) allocated and nobody freed, by tracemalloc.
"""

from __future__ import annotations

import argparse
import gc
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

from rkvisor.supervisor import daemon
from rkvisor.supervisor.workers import processes
from rkvisor.supervisor.workers.fleet import Fleet
from rkvisor.supervisor.workers.pool import Pool
from rkvisor.supervisor.workers.slot import Slot

WORKER = "rkvisor.worker"


def tell(fd: int) -> Callable[..., None]:
    """A function that writes one event."""

    def write(*words: object) -> None:
        os.write(fd, f"{time.monotonic():.6f} {' '.join(map(str, words))}\n".encode())

    return write


def substitute(replacement: list[str], event: Callable[..., None]) -> None:
    """Let processes.py start *replacement* (nothing: what it wants) and tell of each start."""

    class Popen(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, words: list[str], *rest: Any, **named: Any):
            if replacement:
                words = [*replacement, *words[words.index(WORKER) + 1 :]]
            super().__init__(words, *rest, **named)
            event("spawn", self.pid)

    class Module:
        """The subprocess module as processes.py sees it."""

        def __getattr__(self, name: str) -> Any:
            return Popen if name == "Popen" else getattr(subprocess, name)

    processes.subprocess = Module()  # type: ignore[assignment]


def watch(event: Callable[..., None]) -> None:
    """Tell of deaths, state changes and of blank processes that are up."""
    on_exit, on_phase, on_control = Slot.on_exit, Pool.on_phase, Fleet._on_control

    def told_exit(self: Any, process: Any, exit_: Any) -> None:
        event("death", self.name, process.pid)
        on_exit(self, process, exit_)

    def told_phase(self: Any, slot: Any, before: Any) -> None:
        event("phase", slot.name, slot.phase.name, slot.pid)
        on_phase(self, slot, before)

    def told_control(self: Any, process: Any, header: Any, parts: Any) -> None:
        had = process.has_hello, process.ready
        on_control(self, process, header, parts)
        if process.has_hello and not had[0]:
            event("hello", process.pid)
        if process.ready is not None and had[1] is None:
            event("ready", process.pid)

    Slot.on_exit = told_exit  # type: ignore[method-assign]
    Pool.on_phase = told_phase  # type: ignore[method-assign]
    Fleet._on_control = told_control  # type: ignore[method-assign]


def trace(places: list[str], event: Callable[..., None]) -> None:
    """Count what lines of *places* allocate, from now on."""
    patterns = [tracemalloc.Filter(True, f"{place}*") for place in places]

    def count(*_: object) -> None:
        gc.collect()
        found = tracemalloc.take_snapshot().filter_traces(patterns).traces
        event("traced", sum(one.size for one in found))

    tracemalloc.start()
    signal.signal(signal.SIGRTMIN, count)


def main() -> int:
    """Take the options, then be rkvisord."""
    parser = argparse.ArgumentParser()
    parser.add_argument("fd", type=int)
    parser.add_argument("--watch", choices=("all", "nothing"), default="all")
    parser.add_argument("--echo")
    parser.add_argument("--worker")
    parser.add_argument("--trace", action="append", default=[])
    split = sys.argv.index("--")
    args = parser.parse_args(sys.argv[1:split])
    event = tell(args.fd)
    os.set_inheritable(args.fd, False)
    substitute([args.echo] if args.echo else [sys.executable, "-P", args.worker] if args.worker else [], event)
    if args.watch == "all":
        watch(event)
    if args.trace:
        trace(args.trace, event)
    return daemon.main(sys.argv[split + 1 :])


if __name__ == "__main__":
    sys.exit(main())
