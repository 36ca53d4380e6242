"""The memory of every process of this rkvisord, watched: brings sampler, judge, store, events and recycler together.

On the loop, but for what says that it runs in the sampler's thread.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec
from loguru import logger

from rkvisor.protocol.errors import InternalError, InvalidParams
from rkvisor.protocol.memory import MemoryParams
from rkvisor.protocol.nearest import no_such
from rkvisor.supervisor.clock import Clock
from rkvisor.supervisor.config.sections import MemorySection
from rkvisor.supervisor.front.events import Events
from rkvisor.supervisor.front.replies import Reply
from rkvisor.supervisor.memory import reporting
from rkvisor.supervisor.memory.history import SUPERVISOR, History, Life, pack, past
from rkvisor.supervisor.memory.judge import Judge, Judgement
from rkvisor.supervisor.memory.limits import Limit
from rkvisor.supervisor.memory.pace import Pace
from rkvisor.supervisor.memory.probe import available_bytes
from rkvisor.supervisor.memory.sample import Mark, Sample
from rkvisor.supervisor.memory.sampler import STANDBY, Sampler, Target
from rkvisor.supervisor.store.database import Store
from rkvisor.supervisor.store.memory_rows import MemoryRow
from rkvisor.supervisor.workers.pool import Pool, resolve_builtin
from rkvisor.supervisor.workers.processes import Process
from rkvisor.supervisor.workers.recycler import Recycler
from rkvisor.supervisor.workers.slot import Slot

#: Between two samples of a process that are stored, and between two prunings of what is stored, seconds.
STORE_S, PRUNE_S = 60.0, 3600.0

#: Calls after which a process holds more than before, and what the step in its memory is called.
CALL_MARKS = {"rkllm.load_lora": "lora", "rkllm.load_prompt_cache": "prompt_cache"}


class Memory:
    """rows: of the history before this start.  recycler: acts on what is found."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        section: MemorySection,
        epoch: str,
        pools: dict[str, Pool],
        store: Store,
        events: Events,
        recycler: Recycler,
        rows: list[MemoryRow],
    ):
        self._loop = loop
        self._clock = clock
        self._section = section
        self._epoch = epoch
        self._pools = pools
        self._store = store
        self._events = events
        self._recycler = recycler
        now_s = clock.monotonic()
        self.history = History(past([(r.worker, r.process, r.kind, r.body, r.age_s) for r in rows], now_s))
        self.judge = Judge(clock, self._limits, self._on_verdict)
        self._sampler = Sampler(
            clock,
            self.history,
            self._roster,
            self._on_sample,
            interval_s=section.interval_s,
            look_interval_s=section.look_interval_s,
        )
        self._paths = {name: os.path.realpath(resolve_builtin(pool.section.path)) for name, pool in pools.items()}
        self._pace = Pace(section.request_interval_s)
        self._resting: list[Target] = []
        self._stored_s: dict[str, float] = {}
        self._told: dict[str, bool] = {}  # whether the last of a process that the recycler was told of was due
        self._pruned_s = now_s
        for pool in pools.values():
            pool.dispatcher.on_rest = self.on_rest

    def start(self) -> None:
        """Begin to sample."""
        self._sampler.start()

    def close(self) -> None:
        """No sample any more."""
        self._sampler.close()

    def report(self, params: MemoryParams, reply: Reply) -> None:
        """``memory.report``.  Raises InvalidParams for a worker that there is not."""
        names = [slot.name for pool in self._pools.values() for slot in pool.slots]
        names.append(SUPERVISOR)
        names += [self._standby(name, one) for name, pool in self._pools.items() for one in pool.standbys]
        if params.worker is not None and params.worker not in names:
            raise InvalidParams(f"cannot report on {params.worker!r}: {no_such('worker', params.worker, names)}")
        self._sampler.put(lambda: self._answer(params, reply))

    def _answer(self, params: MemoryParams, reply: Reply) -> None:
        """In the sampler's thread, where history and judge may be read."""
        try:
            self._sampler.tick()
            found = reporting.report(
                self.history, self.judge.of, self._limits, worker=params.worker, points=params.points
            )
            self._post(reply.result, msgspec.json.encode(found))
        except Exception as error:  # whoever asked must not wait for ever
            logger.exception("cannot report on the memory")
            told = InternalError(f"cannot report on the memory: {type(error).__name__}: {error}")
            self._post(reply.error, msgspec.json.encode(told.to_object(self._clock.wall())))

    def _post(self, act: Callable[..., None], *details: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(act, *details)

    # What happens on the loop.

    def on_rest(self, slot: Slot, process: Process) -> None:
        """A request of *slot* is done: sample its process soon, if its pace allows.

        All that rest within the least time between two samples of one are sampled together: to wake the thread for
        each costs more than the samples.
        """
        self._recycler.on_rest(slot, process)
        if self._pace.admit(process.incarnation, self._clock.monotonic()):
            if not self._resting:
                self._loop.call_later(self._pace.gap_s, self._sample_resting)
            self._resting.append(self._target(slot.name, slot.model, process))

    def _sample_resting(self) -> None:
        resting, self._resting = self._resting, []
        self._sampler.rested(resting)

    def on_loaded(self) -> None:
        """A process has loaded its model: look at it while it certainly rests."""
        self._sampler.put(self._sampler.tick)

    def on_gone(self, process: Process) -> None:
        """*process* is gone."""
        self._pace.forget(process.incarnation)
        why = self._recycler.on_gone(process)
        ending = f"recycled: {why}" if why else process.trouble or "ended"
        self._sampler.gone(f"{self._epoch}:{process.incarnation}", ending, self._keep_end)

    def on_call(self, process: Process, name: str) -> None:
        """*process*, which may be a standby or new, did the call *name*; some take memory for good."""
        kind = CALL_MARKS.get(name)
        if kind is not None:
            mark = Mark(at_s=self._clock.monotonic(), kind=kind, text=name)
            self._sampler.put(lambda: self._mark(f"{self._epoch}:{process.incarnation}", mark))

    def _tell_verdict(self, life: Life, judgement: Judgement, before: str) -> None:
        report, verdict = judgement.report, judgement.standing.verdict
        level = "WARNING" if verdict == "leaking" else "INFO"
        logger.log(
            level, "{}: process {}: {} → {}, cause {}", life.worker, life.pid, before, verdict, report and report.cause
        )
        self._events.publish(
            "memory.leak",
            worker=life.worker,
            pid=life.pid,
            before=before,
            verdict=verdict,
            cause=report.cause if report is not None else "unknown",
            reasons=list(judgement.attribution.reasons),
        )

    # What happens in the sampler's thread.

    def _mark(self, process: str, mark: Mark) -> None:
        for life in self.history.lasting():
            if life.process == process:
                life.marks.append(mark)

    @staticmethod
    def _standby(model: str, process: Process) -> str:
        """The name of a process that waits to become a worker."""
        return f"{model}{STANDBY}{process.incarnation}"

    def _target(self, worker: str, model: str, process: Process) -> Target:
        name = f"{self._epoch}:{process.incarnation}"
        return Target(worker, name, process.pid, process.page, model=self._paths[model])

    def _roster(self) -> Iterator[Target]:
        requests = 0
        for name, pool in self._pools.items():
            for slot in pool.slots:
                requests += slot.requests
                process = slot.process
                if process is not None and process.ready is not None:
                    yield self._target(slot.name, name, process)
            for process in list(pool.standbys):
                if process.ready is not None:
                    yield self._target(self._standby(name, process), name, process)
        yield Target(SUPERVISOR, f"{self._epoch}:0", os.getpid(), requests=requests)

    def _limits(self, life: Life) -> list[Limit]:
        pool = self._pools.get(life.worker.partition(":")[0])
        section = pool.section if pool is not None else None
        found = []
        if section is not None and section.max_rss:
            found.append(Limit("max_rss", int(section.max_rss)))
        if section is not None and section.memory_limit:
            found.append(Limit("memory_limit", int(section.memory_limit)))
        if life.last is not None and (free := available_bytes()):
            found.append(Limit("machine", life.last.rss_bytes + life.last.swap_bytes + free))
        return found

    def _on_sample(self, life: Life, target: Target, sample: Sample) -> None:
        now_s = sample.at_s
        self.judge.sampled(life)
        model, _, place = life.worker.partition(":")
        if model in self._pools and place.isdigit():
            self._check(model, life, sample)
            self._keep(life, sample)
        elif not life.is_worker:
            self._keep(life, sample)
            self.judge.forget(lambda one: one in self.history.lives(one.worker))
            lasting = {one.process for one in self.history.lasting()}
            self._told = {process: is_due for process, is_due in self._told.items() if process in lasting}
            if now_s - self._pruned_s >= PRUNE_S:
                self._pruned_s = now_s
                self._store.prune_memory()

    def _check(self, model: str, life: Life, sample: Sample) -> None:
        """Tell the recycler, if that may be of interest to it: of what is new, of what is due and of what was."""
        section = self._pools[model].section
        held, limit = sample.rss_bytes + sample.swap_bytes, int(section.max_rss)
        is_leaking = self.judge.of(life).standing.verdict == "leaking"
        is_large = limit > 0 and held > limit * (1 - section.recycle_jitter)
        is_due = is_large or (is_leaking and section.recycle_on_leak)
        if is_due or self._told.get(life.process, True):
            incarnation = int(life.process.rpartition(":")[2])
            self._post(partial(self._recycler.sampled, model, incarnation, held_bytes=held, is_leaking=is_leaking))
        self._told[life.process] = is_due

    def _keep(self, life: Life, sample: Sample) -> None:
        if sample.at_s - self._stored_s.get(life.worker, -STORE_S) >= STORE_S:
            self._stored_s[life.worker] = sample.at_s
            self._store.put_memory(life.worker, life.process, "sample", pack(sample))

    def _keep_end(self, life: Life) -> None:
        if life.last is not None and STANDBY not in life.worker:
            self._store.put_memory(life.worker, life.process, "sample", pack(life.last))
            self._store.put_memory(life.worker, life.process, "end", life.ending.encode())

    def _on_verdict(self, life: Life, judgement: Judgement, before: str) -> None:
        self._post(self._tell_verdict, life, judgement, before)
