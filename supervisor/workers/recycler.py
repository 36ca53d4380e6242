"""Replaces the processes of workers that ``recycling`` names: brings it the facts, and starts the lifecycle's turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from loguru import logger

from rkvisor.supervisor.clock import Clock
from rkvisor.supervisor.workers.lifecycle import Phase, Recycle, Turn
from rkvisor.supervisor.workers.pool import Pool
from rkvisor.supervisor.workers.processes import Process
from rkvisor.supervisor.workers.recycling import Limits, Use, choose, has_room
from rkvisor.supervisor.workers.slot import Slot

#: Between the end of one recycling of a model and the next, seconds; and after one that failed.
PAUSE_S, RETRY_S = 0.5, 30.0


@dataclass(slots=True)
class _Known:
    """Of one process of *model*.  loaded_bytes: what it held when it was new.  why: it is being recycled."""

    model: str
    draw: float
    held_bytes: int = 0
    loaded_bytes: int = 0
    is_leaking: bool = False
    why: str = ""


class Recycler:
    """free_bytes: of the machine's memory, now.  One for all models."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        draw: Callable[[], float],
        pools: dict[str, Pool],
        free_bytes: Callable[[], int],
    ):
        self._loop = loop
        self._clock = clock
        self._draw = draw
        self._pools = pools
        self._free_bytes = free_bytes
        self._known: dict[int, _Known] = {}
        self._failed_s: dict[str, float] = {}
        self._limits: dict[str, Limits] = {}
        for name, pool in pools.items():
            section = pool.section
            self._limits[name] = Limits(
                max_requests=section.max_requests,
                max_rss_bytes=int(section.max_rss),
                on_leak=section.recycle_on_leak,
                min_s=section.recycle_min_s,
                jitter=section.recycle_jitter,
            )
            pool.turnover.on_turned = partial(self._on_turned, pool)

    def on_rest(self, slot: Slot, process: Process) -> None:
        """A request of *slot* is done."""
        limits = self._limits[slot.model]
        if limits.max_requests and process.page.rested().served >= limits.max_requests * (1 - limits.jitter):
            self._look(slot.model)

    def sampled(self, model: str, incarnation: int, *, held_bytes: int, is_leaking: bool) -> None:
        """A worker's process of *model* holds so much, and that is said of it.  What was due and could not be done when
        it was told before is done now."""
        processes = [slot.process for slot in self._pools[model].slots]
        if not any(one is not None and one.incarnation == incarnation for one in processes):
            return  # the sampler's thread tells of a process that is gone by now
        known = self._of(model, incarnation)
        known.loaded_bytes = known.loaded_bytes or held_bytes
        known.held_bytes, known.is_leaking = held_bytes, is_leaking
        self._look(model)

    def on_gone(self, process: Process) -> str:
        """*process* is gone.  Returns why it was recycled, "" if it was not."""
        known = self._known.pop(process.incarnation, None)
        return known.why if known is not None else ""

    def _of(self, model: str, incarnation: int) -> _Known:
        known = self._known.get(incarnation)
        if known is None:
            known = self._known[incarnation] = _Known(model, self._draw())
        return known

    def _look(self, model: str) -> None:
        pool = self._pools[model]
        if pool.is_closing:
            return
        is_busy = any(slot.state.turn is not Turn.NONE or slot.recycling for slot in pool.slots)
        chosen = choose(self._limits[model], [self._use(slot) for slot in pool.slots], is_busy=is_busy)
        if chosen is not None:
            self._begin(pool, pool.slots[chosen[0]], chosen[1])

    def _use(self, slot: Slot) -> Use:
        process = slot.process
        if process is None or slot.phase is not Phase.RUNNING:
            return Use(requests=0, held_bytes=0, age_s=0.0, is_leaking=False, is_able=False, draw=0.0)
        known = self._of(slot.model, process.incarnation)
        return Use(
            requests=process.page.rested().served,
            held_bytes=known.held_bytes,
            age_s=self._clock.monotonic() - slot.started_s,
            is_leaking=known.is_leaking,
            is_able=slot.state.settled,
            draw=known.draw,
        )

    def _begin(self, pool: Pool, slot: Slot, why: str) -> None:
        assert slot.process is not None
        known = self._of(slot.model, slot.process.incarnation)
        others = [one.loaded_bytes for one in self._known.values() if one.model == slot.model]
        needed = known.loaded_bytes or max(others, default=0)
        has_failed = self._clock.monotonic() - self._failed_s.get(pool.name, -RETRY_S) < RETRY_S
        is_free = has_room(
            free_bytes=self._free_bytes(),
            need_bytes=needed,
            has_standby=any(one.ready is not None for one in pool.standbys),
            has_failed=has_failed,
        )
        slot.recycling = known.why = why
        in_the_way = "the last replacement failed to load" if has_failed else "no room for two"
        how = "its replacement loads first" if is_free else f"it is stopped first: {in_the_way}"
        logger.info("{}: process {} is recycled: {}; {}", slot.name, slot.pid, why, how)
        slot.feed(Recycle(has_room=is_free))

    def _on_turned(self, pool: Pool, *, has_failed: bool) -> None:
        if has_failed:
            self._failed_s[pool.name] = self._clock.monotonic()
        self._loop.call_later(PAUSE_S, self._look, pool.name)
