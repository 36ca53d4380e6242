"""What rkvisord tells of itself: models, workers, memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from rkvisor.protocol.link import Ready
from rkvisor.protocol.methods import (
    ModelEntry,
    ModelInfo,
    ModelList,
    ModelState,
    ModelStatus,
    SystemStatus,
    WorkerStatus,
)
from rkvisor.supervisor.clock import Clock
from rkvisor.supervisor.requests.features import health
from rkvisor.supervisor.workers.lifecycle import Phase
from rkvisor.supervisor.workers.pool import Pool
from rkvisor.supervisor.workers.slot import Slot

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
#: The state of a model is the best of its workers' states, in this order.
_BEST_FIRST = (
    Phase.RUNNING,
    Phase.STARTING,
    Phase.BACKOFF,
    Phase.STOPPING,
    Phase.FATAL,
    Phase.EXITED,
    Phase.STOPPED,
)


#: Pings without an answer, after which what a worker said of itself counts as old (S4.9); one may be under way.
STALE = 2


def rss_bytes(pid: int) -> int:
    """Resident memory of *pid*, 0 where it is gone.  Costs some microseconds at any size."""
    if not pid:
        return 0
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return 0


def model_state(slots: list[Slot]) -> str:
    """The name of the best state among *slots*."""
    phases = {slot.phase for slot in slots}
    return next(phase for phase in _BEST_FIRST if phase in phases).name


def _ready(pool: Pool) -> Ready | None:
    """What a loaded process of *pool* said of its model, or None."""
    return next((s.process.ready for s in pool.slots if s.process is not None and s.process.ready), None)


class Status:
    """pools: by model name."""

    def __init__(self, clock: Clock, pools: dict[str, Pool]):
        self._clock = clock
        self._pools = pools
        self.troubles: Callable[[str], list[str]] = lambda model: []

    def system(self, node: str, epoch: str) -> SystemStatus:
        """The answer of ``system.status``."""
        models = [
            ModelStatus(
                name=name,
                state=model_state(pool.slots),
                queue=len(pool.dispatcher.queue),
                health=round(health(pool, self._clock.monotonic()), 3),
                degraded_by=pool.dispatcher.degraded_by or None,
                workers=[self._worker(slot) for slot in pool.slots],
            )
            for name, pool in self._pools.items()
        ]
        return SystemStatus(node=node, epoch=epoch, models=models)

    def _worker(self, slot: Slot) -> WorkerStatus:
        uptime_s = self._clock.monotonic() - slot.started_s if slot.process is not None else 0.0
        return WorkerStatus(
            name=slot.name,
            state=slot.phase.name,
            pid=slot.pid,
            uptime_s=round(uptime_s, 3),
            requests=slot.requests,
            rss_bytes=rss_bytes(slot.pid),
            is_stale=slot.process is not None and slot.process.unanswered >= STALE,
        )

    def models(self) -> ModelList:
        """The answer of ``model.list``."""
        entries = []
        for name, pool in self._pools.items():
            ready = _ready(pool)
            entries.append(
                ModelEntry(
                    name=name,
                    runtime=pool.section.runtime,
                    path=pool.section.path,
                    state=model_state(pool.slots),
                    family=ready.family if ready is not None else None,
                    runtime_version=ready.version if ready is not None else None,
                    workers=len(pool.slots),
                )
            )
        return ModelList(models=entries)

    def info(self, model: str) -> ModelInfo:
        """The answer of ``model.info``; what only a loaded process knows is empty without one."""
        pool = self._pools[model]
        ready = _ready(pool)
        return ModelInfo(
            name=model,
            runtime=pool.section.runtime,
            path=pool.section.path,
            state=model_state(pool.slots),
            family=ready.family if ready is not None else None,
            runtime_version=ready.version if ready is not None else None,
            functions=ready.functions if ready is not None else [],
            can_force_tokens=ready is not None and ready.can_force_tokens,
            tokenizer=ready.tokenizer if ready is not None else None,
            chat_template=ready.chat_template if ready is not None else None,
            param=ready.param if ready is not None else dict(pool.section.param),
            default_param=ready.default_param if ready is not None else {},
            troubles=self.troubles(model),
        )

    def state(self, model: str) -> ModelState:
        """The answer of ``model.load`` and ``model.unload``."""
        return ModelState(name=model, state=model_state(self._pools[model].slots))
