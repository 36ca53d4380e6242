"""The admin's verbs, as supervisord knows them: start and stop answer when it is done, not before."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from rkvisor.supervisor.clock import Clock
from rkvisor.supervisor.workers.lifecycle import Phase, Start, Stop
from rkvisor.supervisor.workers.pool import Pool
from rkvisor.supervisor.workers.slot import Slot

#: supervisord's faults that the verbs can end with.
SUCCESS, BAD_NAME, ABNORMAL_TERMINATION, SPAWN_ERROR, ALREADY_STARTED, NOT_RUNNING = 80, 10, 40, 50, 60, 70
#: How often a waiting verb looks whether it is done, seconds.
LOOK_S = 0.02

_DOWN = (Phase.STOPPED, Phase.EXITED, Phase.FATAL)
Tell = Callable[[list[dict[str, Any]]], None]


def describe(slot: Slot, now_s: float) -> str:
    """supervisord's description of a process in this state."""
    if slot.trouble and slot.pid:
        return f"pid {slot.pid}, {slot.trouble}"
    if slot.phase is Phase.RUNNING:
        turn = f", is recycled: {slot.recycling}" if slot.recycling else ""
        return f"pid {slot.pid}, uptime {timedelta(seconds=int(now_s - slot.started_s))}{turn}"
    if slot.phase in (Phase.BACKOFF, Phase.FATAL):
        return slot.spawn_error or f'unknown error (try "tail {slot.name}")'
    if slot.phase in (Phase.STOPPED, Phase.EXITED):
        if not slot.stopped_wall:
            return "Not started"
        return time.strftime("%b %d %I:%M %p", time.localtime(slot.stopped_wall))
    return ""


class Admin:
    """pools: by model name.  on_shutdown: begins the shutdown of rkvisord.  on_wish: told of each worker that somebody
    started or stopped, and whether it is to be up."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        pools: dict[str, Pool],
        on_shutdown: Callable[[], None],
        on_wish: Callable[[str, bool], None],
    ):
        self._loop = loop
        self._clock = clock
        self._pools = pools
        self._on_shutdown = on_shutdown
        self._on_wish = on_wish

    def processes(self) -> list[dict[str, Any]]:
        """One entry a worker, as of supervisord's getAllProcessInfo."""
        now_s = self._clock.monotonic()
        return [
            {
                "group": name,
                "name": slot.name.partition(":")[2],
                "state": slot.phase.value,
                "statename": slot.phase.name,
                "description": describe(slot, now_s),
                "pid": slot.pid,
                "start": int(slot.started_wall),
                "stop": int(slot.stopped_wall),
                "now": int(self._clock.wall()),
                "exitstatus": slot.exit_status,
                "spawnerr": slot.spawn_error,
            }
            for name, pool in self._pools.items()
            for slot in pool.slots
        ]

    @staticmethod
    def pid() -> int:
        """Of rkvisord."""
        return os.getpid()

    def shutdown(self) -> bool:
        """Begin to stop."""
        self._loop.call_soon(self._on_shutdown)
        return True

    def find(self, name: str) -> list[Slot] | None:
        """The workers that *name* means: ``all``, ``demo``, ``demo:*``, ``demo:``, ``demo:0``; None if none."""
        if name == "all":
            return [slot for pool in self._pools.values() for slot in pool.slots]
        group, _, process = name.partition(":")
        pool = self._pools.get(group)
        if pool is None:
            return None
        if process in ("", "*"):
            return list(pool.slots)
        return [slot for slot in pool.slots if slot.name == name] or None

    def start(self, names: list[str], tell: Tell) -> None:
        """Start workers; tell when each is RUNNING or has given up."""
        self._verb(names, tell, Start(), ALREADY_STARTED, self._is_started)

    def stop(self, names: list[str], tell: Tell) -> None:
        """Stop workers; tell when all are down."""
        self._verb(names, tell, Stop(), NOT_RUNNING, self._is_stopped)

    def _verb(
        self,
        names: list[str],
        tell: Tell,
        event: Start | Stop,
        refused: int,
        outcome: Callable[[Slot], int | None],
    ) -> None:
        results: list[dict[str, Any]] = []
        waiting: list[tuple[Slot, dict[str, Any]]] = []
        for name in names:
            slots = self.find(name)
            if slots is None:
                group, _, process = name.partition(":")
                results.append({"name": process or group, "group": group, "status": BAD_NAME, "description": name})
            for slot in slots or ():
                group, _, process = slot.name.partition(":")
                result = {"name": process, "group": group, "status": SUCCESS, "description": "OK"}
                results.append(result)
                self._on_wish(slot.name, isinstance(event, Start))
                if slot.feed(event):
                    waiting.append((slot, result))
                else:
                    result["status"] = refused
        if isinstance(event, Stop):
            self._release_idle_pools()
        self._wait(waiting, results, tell, outcome)

    def _release_idle_pools(self) -> None:
        for pool in self._pools.values():
            if all(slot.phase in (*_DOWN, Phase.STOPPING) for slot in pool.slots):
                pool.release()

    def _wait(
        self,
        waiting: list[tuple[Slot, dict[str, Any]]],
        results: list[dict[str, Any]],
        tell: Tell,
        outcome: Callable[[Slot], int | None],
    ) -> None:
        left = []
        for slot, result in waiting:
            status = outcome(slot)
            if status is None:
                left.append((slot, result))
            else:
                result["status"] = status
                result["description"] = "OK" if status == SUCCESS else slot.spawn_error
        if left:
            self._loop.call_later(LOOK_S, self._wait, left, results, tell, outcome)
        else:
            tell(results)

    @staticmethod
    def _is_started(slot: Slot) -> int | None:
        if slot.phase is Phase.RUNNING:
            return SUCCESS
        if slot.phase in _DOWN:
            return SPAWN_ERROR
        return None

    @staticmethod
    def _is_stopped(slot: Slot) -> int | None:
        return SUCCESS if slot.phase in _DOWN else None
