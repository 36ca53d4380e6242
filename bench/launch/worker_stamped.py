"""The worker process, with one stamp a request: when it called rkllm_run, by CLOCK_MONOTONIC.

The stamps go to the file BENCH_STAMPS, a line "WORKER SECONDS" each.  Everything else is the worker's own.
"""

from __future__ import annotations

import os
import time
from typing import Any

from rkvisor.protocol.link import Run
from rkvisor.worker import model
from rkvisor.worker.main import main

_run = model.Model.run
_stamps = os.open(os.environ["BENCH_STAMPS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def run(self: model.Model, *given: Any, **named: Any) -> int:
    """Stamp, then run."""
    begun = time.monotonic()
    status = _run(self, *given, **named)
    worker = next(one.worker for one in given if isinstance(one, Run))
    os.write(_stamps, f"{worker} {begun:.7f}\n".encode())  # afterwards: nothing beside the run itself
    return status


model.Model.run = run  # type: ignore[method-assign]
raise SystemExit(main())
