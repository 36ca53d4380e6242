"""How a worker of a pool gets a new process though nothing failed: who is prepared for it, and how the old one ends.

Which worker, when and why is ``recycling``'s to say, the steps are the lifecycle's; here they are carried out.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any, Protocol

from loguru import logger

from rkvisor.supervisor.config import ModelSection
from rkvisor.supervisor.front.events import Events
from rkvisor.supervisor.workers.lifecycle import Phase, Prepared, Turn
from rkvisor.supervisor.workers.processes import Process
from rkvisor.supervisor.workers.slot import TERM_S, Slot


class Host(Protocol):
    """The pool."""

    section: ModelSection
    slots: list[Slot]
    standbys: list[Process]

    def add_standby(self) -> None: ...


class Turnover:
    """on_turned: told that a recycling is over, and whether it failed (has_failed)."""

    def __init__(self, loop: asyncio.AbstractEventLoop, host: Host, events: Events):
        self._loop = loop
        self._host = host
        self._events = events
        self._awaiting: Slot | None = None
        self._retired: dict[Slot, int] = {}
        self.on_turned: Callable[..., None] = lambda *, has_failed: None

    def prepare(self, slot: Slot) -> None:
        """Have a loaded process ready for *slot*, then tell it so: a standby, else one that loads for it now."""
        self._awaiting = slot
        self._retired.pop(slot, None)
        if not self.hand_over():
            self._host.add_standby()

    def hand_over(self) -> bool:
        """Give a standby that is ready to the worker that waits for one.  Returns whether there was one."""
        slot = self._awaiting
        for process in self._host.standbys:
            if slot is not None and process.ready is not None and not process.is_doomed:
                self._host.standbys.remove(process)
                self._awaiting, slot.replacement = None, process
                self._loop.call_soon(slot.feed, Prepared())
                return True
        return False

    def _withdraw(self, slot: Slot) -> None:
        """*slot* leaves its turn: what was prepared for it is in reserve, or ends where there is no need for it."""
        if self._awaiting is not slot and slot.replacement is None:
            return
        if slot.replacement is not None:
            self._host.standbys.append(slot.replacement)
        self._awaiting = slot.replacement = None
        for process in self._host.standbys[self._host.section.standby :]:
            self._host.standbys.remove(process)
            self._end(process)

    def _end(self, process: Process) -> None:
        """End a process that does nothing and is nobody's any more."""
        owner: Any = self._host
        process.owner = owner
        process.send_signal(signal.SIGTERM)
        self._loop.call_later(TERM_S, process.send_signal, signal.SIGKILL)

    def retire(self, slot: Slot, process: Process) -> None:
        """End the idle *process*, whose place was taken."""
        self._end(process)
        self._retired[slot] = process.pid

    def on_turn(self, slot: Slot) -> bool:
        """A worker came further on its way to a new process, or left it.  Returns whether it is over."""
        if slot.phase is not Phase.RUNNING:
            slot.recycling = ""  # an operator stops it for good
            return False
        if slot.state.turn is not Turn.NONE:
            return False
        self._tell(slot)
        self._withdraw(slot)
        return True

    def on_phase(self, slot: Slot, before: Phase) -> None:
        """A worker changed its state: it is back with its new process, or on its way to it, or left its turn."""
        if slot.phase is Phase.RUNNING and slot.recycling:
            self._tell(slot)
        elif slot.state.turn is Turn.STOP_FIRST:
            self._retired[slot] = slot.pid
        if before is Phase.RUNNING:
            self._withdraw(slot)

    def _tell(self, slot: Slot) -> None:
        """*slot* has its new process, or its recycling failed."""
        why, slot.recycling = slot.recycling, ""
        before = self._retired.pop(slot, 0)
        if before:
            slot.recycled += 1
            logger.info("{}: recycled, process {} took the place of {}: {}", slot.name, slot.pid, before, why)
            self._events.publish("worker.recycled", worker=slot.name, reason=why, before=before, pid=slot.pid)
        else:
            logger.warning("{}: cannot be recycled now ({}): no replacement could be loaded", slot.name, why)
        self.on_turned(has_failed=not before)

    def miss(self, process: Process) -> None:
        """A worker may have waited for *process*, which is gone."""
        for slot in self._host.slots:
            if slot.replacement is process:
                slot.replacement = None
                slot.feed(Prepared(is_ready=False))
        if self._awaiting is not None and not self._host.standbys:
            slot, self._awaiting = self._awaiting, None
            slot.feed(Prepared(is_ready=False))
