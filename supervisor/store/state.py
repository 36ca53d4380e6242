"""What survives a kill of rkvisord, brought back at its start and kept from then on (design §8)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

from rkvisor.supervisor.clock import Clock
from rkvisor.supervisor.config import Config
from rkvisor.supervisor.crashes import kernel
from rkvisor.supervisor.crashes.recorder import Crashes
from rkvisor.supervisor.front.events import Events
from rkvisor.supervisor.requests.admission import Requests
from rkvisor.supervisor.requests.breaker import Breaker, Circuit
from rkvisor.supervisor.requests.deadletters import DeadLetters
from rkvisor.supervisor.store.database import Store
from rkvisor.supervisor.store.memory_rows import MemoryRow
from rkvisor.supervisor.store.stamps import Stamp
from rkvisor.supervisor.workers.pool import Pool

FILE = "state.db"


class State:
    """Opens the store and fills the quarantine from it.  Blocks; made once, before the loop serves."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, clock: Clock, config: Config, requests: Requests, events: Events
    ):
        self._clock = clock
        section = config.supervisor
        boot_id = kernel.boot_id()
        self.store = store = Store(
            Path(section.state_dir) / FILE,
            lambda: Stamp(clock.wall(), boot_id, clock.monotonic()),
            loop.call_soon_threadsafe,
        )
        self._snapshot = snapshot = store.load(section.poison_ttl_s)
        now_s = clock.monotonic()
        for digest, left_s in snapshot.quarantine.items():
            requests.quarantine.add(digest, now_s, left_s)
        self.crashes = Crashes(loop, clock, store, events, section.fault_window_s, snapshot.groups)
        self.letters = DeadLetters(clock, store, requests.quarantine, store_prompts=section.store_prompts)
        requests.on_poison = self.letters.add

    def take_memory(self) -> list[MemoryRow]:
        """The history of memory that was stored, oldest first.  Only once: it is large."""
        rows = self._snapshot.memory
        self._snapshot = replace(self._snapshot, memory=[])
        return rows

    def attach(self, pools: dict[str, Pool]) -> None:
        """Hear of deaths and of circuits, and open again those that were open."""
        now_s = self._clock.monotonic()
        for name, pool in pools.items():
            pool.on_crash = self.crashes.died
            self.crashes.workers.update(slot.name for slot in pool.slots)
            recovery = pool.dispatcher.recovery
            if name in self._snapshot.breakers:
                recovery.breaker = restored(recovery.breaker, *self._snapshot.breakers[name], now_s)
            recovery.on_circuit = self._keep_breaker
            pool.wishes = {s.name: w for s in pool.slots if (w := self._snapshot.wishes.get(s.name)) is not None}

    def _keep_breaker(self, model: str, breaker: Breaker) -> None:
        self.store.put_breaker(model, kept(breaker, self._clock.monotonic()))

    def keep_wish(self, worker: str, is_up: bool) -> None:
        """The operator started or stopped *worker*: so it stays if rkvisord is killed and started again."""
        self.store.put_wish(worker, is_up)

    def close(self) -> None:
        """Let the last writes reach the disk."""
        self.store.drop_wishes()  # this stop was asked for: the next start is as configured
        self.store.close()


def kept(breaker: Breaker, now_s: float) -> dict[str, Any]:
    """What of *breaker* is stored: JSON values, its time as an age."""
    open_age_s = now_s - breaker.opened_s if breaker.circuit is not Circuit.CLOSED else 0.0
    return {"circuit": breaker.circuit.value, "failures": breaker.failures, "open_age_s": open_age_s}


def restored(breaker: Breaker, state: dict[str, Any], age_s: float, now_s: float) -> Breaker:
    """*breaker* as *state* was *age_s* seconds ago; one that was not closed is open, and probes when its time comes."""
    if state.get("circuit") not in (Circuit.OPEN.value, Circuit.HALF_OPEN.value):
        return breaker
    passed_s = age_s + max(0.0, float(state.get("open_age_s", 0.0)))
    opened_s = now_s - min(passed_s, breaker.open_s)
    return replace(breaker, circuit=Circuit.OPEN, failures=int(state.get("failures", 0)), opened_s=opened_s)
