"""What is set up around the memory of a process when it becomes a worker: its limit, and the tracker of buffers."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

from rkvisor.protocol.link import Load


def log_path(load: Load) -> Path:
    """Of the tracker: one file a worker; a standby does not know yet which it will be, so its pid tells."""
    name = load.worker.replace(":", "-")
    return Path(load.state_dir) / f"memory_tracker-{name}{f'-{os.getpid()}' if 'standby' in name else ''}.log"


def bound(load: Load) -> None:
    """Limit this process and open its tracker, as *load* says.  What cannot be is told and left."""
    from rkvisor.cython_ext import _rkllm

    if load.memory_limit:
        # Private writable mappings count, touched or not; shared memory, files and NPU buffers do not.
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        limit = load.memory_limit if hard == resource.RLIM_INFINITY else min(load.memory_limit, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    if load.tracker:
        try:
            _rkllm.tracker_open(log_path(load))
        except OSError as error:
            print(f"rkvisor: no memory tracker: {error}", file=sys.stderr, flush=True)


def end_tracker() -> None:
    """The model is destroyed: what the tracker still has is a leak, told in its log and here."""
    from rkvisor.cython_ext import _rkllm

    leaks = _rkllm.tracker_close()
    if leaks:
        print(f"rkvisor: TOTAL LEAKS: {leaks} allocations, see the memory tracker's log", file=sys.stderr, flush=True)
