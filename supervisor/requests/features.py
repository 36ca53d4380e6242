"""Looks at the health of the models and acts on it: tells who is degraded, and lets dispatchers know.

Policy: ``degradation.py``.  Nothing runs here for a configuration without a ``health_threshold``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from loguru import logger

from rkvisor.supervisor.clock import Clock
from rkvisor.supervisor.front.events import Events
from rkvisor.supervisor.requests import degradation
from rkvisor.supervisor.workers.lifecycle import Phase
from rkvisor.supervisor.workers.pool import Pool

#: Failures age: looked at also when nothing happens, seconds.
LOOK_S = 5.0


def health(pool: Pool, now_s: float) -> float:
    """The score of a model, see ``degradation.py``."""
    up = sum(slot.phase is Phase.RUNNING for slot in pool.slots)
    return degradation.score(up, len(pool.slots), pool.dispatcher.recovery.outcomes.share(now_s))


class Features:
    """pools: by model name."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock, pools: Mapping[str, Pool], events: Events):
        self._loop = loop
        self._clock = clock
        self._pools = pools
        self._events = events
        self._below = dict.fromkeys(pools, False)
        self._depends_on = {name: pool.section.depends_on for name, pool in pools.items()}
        self._timer: asyncio.TimerHandle | None = None
        self._is_used = any(pool.section.health_threshold for pool in pools.values())
        self._begun: set[str] = set()

    def look(self) -> None:
        """Work out who is degraded; called whenever a worker changed its state, and on a timer."""
        if not self._is_used:
            return
        if self._timer is None:
            self._timer = self._loop.call_later(LOOK_S, self._fire)
        now_s = self._clock.monotonic()
        for name, pool in self._pools.items():
            if name not in self._begun and not any(slot.phase is Phase.RUNNING for slot in pool.slots):
                continue  # the first start is no illness
            self._begun.add(name)
            limit = pool.section.health_threshold
            self._below[name] = degradation.below(limit, health(pool, now_s), was_below=self._below[name])
        degraded = degradation.spread(self._below, self._depends_on)
        for name, pool in self._pools.items():
            self._tell(name, pool, degraded.get(name, ""), now_s)

    def _fire(self) -> None:
        self._timer = None
        self.look()

    def _tell(self, name: str, pool: Pool, cause: str, now_s: float) -> None:
        before, pool.dispatcher.degraded_by = pool.dispatcher.degraded_by, cause
        if bool(before) == bool(cause):
            return
        score = health(self._pools[cause or name], now_s)
        if cause:
            limit = self._pools[cause].section.health_threshold
            text = f"model {name} is degraded: the health of {cause} is {score:.2f}, below its threshold {limit:g}"
        else:
            text = f"model {name} is restored: its health is {score:.2f}"
        logger.warning(text)
        code = "FEATURE_DEGRADED" if cause else "FEATURE_RESTORED"
        self._events.error(code, text, name, "warning", data={"health": round(score, 3), "cause": cause or None})

    def close(self) -> None:
        """No timer any more."""
        if self._timer is not None:
            self._timer.cancel()
