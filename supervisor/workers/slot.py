"""A worker: a slot with a lifecycle, filled by one process after another.  Carries out the lifecycle's effects."""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from collections.abc import Callable
from typing import Protocol

from loguru import logger

from rkvisor.protocol.link import Header, LoadFailed
from rkvisor.supervisor.clock import Clock
from rkvisor.supervisor.config import ModelSection
from rkvisor.supervisor.requests.jobs import Job
from rkvisor.supervisor.workers import lifecycle
from rkvisor.supervisor.workers.backoff import Backoff, delay_s
from rkvisor.supervisor.workers.budgets import load_timeout_s
from rkvisor.supervisor.workers.intensity import Intensity
from rkvisor.supervisor.workers.lifecycle import Effect, Event, Lifecycle, Phase, Turn
from rkvisor.supervisor.workers.processes import Exit, Process

#: Between rkllm_abort and SIGTERM, and between SIGTERM and SIGKILL, when a worker is stopped (design §5).
ABORT_S = 2.0
TERM_S = 2.0


class Keeper(Protocol):
    """The pool that a slot belongs to."""

    def take(self, slot: Slot) -> Process: ...

    def cut_short(self, slot: Slot) -> None: ...

    def load(self, process: Process, worker: str) -> None: ...

    def prepare(self, slot: Slot) -> None: ...

    def retire(self, slot: Slot, process: Process) -> None: ...

    def on_phase(self, slot: Slot, before: Phase) -> None: ...

    def on_turn(self, slot: Slot) -> None: ...

    def on_loaded(self, process: Process) -> None: ...

    def on_job(self, slot: Slot, header: Header, parts: list[bytes]) -> None: ...

    def on_sign(self, slot: Slot) -> None: ...

    def on_death(
        self, slot: Slot, process: Process, job: Job | None, exit_: Exit, *, was_stopping: bool, was_loading: bool
    ) -> None: ...

    def on_settled(self, slot: Slot) -> None: ...


class Slot:
    """One worker of *section*.

    job: what its process runs.  has_streamed: whether a token of it came from this process.  lost_job: what it ran
    when the process showed signs of its death, and what runs elsewhere since.
    replacement: loaded, and about to fill it.  recycling: why it gets a new process, "" if it does not.
    recycled: how often it got one so.
    spawn_error: why it is down, "" if it is not.  trouble: what ails it while it is up."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        draw: Callable[[], float],
        name: str,
        section: ModelSection,
        keeper: Keeper,
    ):
        self._loop = loop
        self._clock = clock
        self._draw = draw
        self.name = name
        self.section = section
        self._keeper = keeper
        self._policy = lifecycle.Policy(startretries=section.startretries, autorestart=str(section.autorestart))
        self._backoff = Backoff(
            initial_s=section.backoff_initial_s,
            factor=section.backoff_factor,
            max_s=section.backoff_max_s,
            jitter=section.backoff_jitter,
        )
        self._events: deque[Event] = deque()
        self._is_stepping = False
        self.state = Lifecycle()
        self.process: Process | None = None
        self.job: Job | None = None
        self.lost_job: Job | None = None
        self.replacement: Process | None = None
        self.recycling = ""
        self.recycled = 0
        self.has_streamed = False
        self.requests = 0
        self.spawn_error = ""
        self.trouble = ""
        self.started_wall = 0.0
        self.stopped_wall = 0.0
        self.started_s = 0.0
        self.exit_status = 0
        self._is_permanent = False
        self._intensity = Intensity(limit=section.restart_intensity, period_s=section.restart_period_s)

    @property
    def model(self) -> str:
        """The name of its model."""
        return self.name.partition(":")[0]

    @property
    def phase(self) -> Phase:
        """supervisord's state."""
        return self.state.phase

    @property
    def is_idle(self) -> bool:
        """Whether a request may be sent to it."""
        if self.state.phase is not Phase.RUNNING or self.job is not None or self.state.turn is Turn.SWAP:
            return False
        return self.process is not None and not self.process.is_doomed

    @property
    def pid(self) -> int:
        """Of its process, 0 where it has none."""
        return self.process.pid if self.process is not None else 0

    def feed(self, event: Event) -> bool:
        """Let *event* happen, and what follows from it.  Returns whether it had a meaning."""
        self._events.append(event)
        if self._is_stepping:
            return True
        self._is_stepping = True
        is_legal = True
        try:
            while self._events:
                is_legal &= self._step(self._events.popleft())
        finally:
            self._is_stepping = False
        return is_legal

    def _step(self, event: Event) -> bool:
        before = self.state
        try:
            self.state, effects = lifecycle.step(before, event, self._policy)
        except lifecycle.IllegalTransition as error:
            logger.debug("{}: {}", self.name, error)
            return False
        for effect in effects:
            self._perform(effect)
        if self.state.settled and not before.settled:
            self._keeper.on_settled(self)
        if self.state.phase is not before.phase:
            self._keeper.on_phase(self, before.phase)
        elif self.state.turn is not before.turn:
            self._keeper.on_turn(self)
        return True

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Effect.SPAWN:
                self._fill()
            case Effect.PREPARE:
                self._keeper.prepare(self)
            case Effect.SWAP:
                self._swap()
            case Effect.DRAIN:
                if self.job is None:
                    self._events.append(lifecycle.Drained())
            case Effect.ABORT:
                self._keeper.cut_short(self)
            case Effect.TERM:
                self._end(signal.SIGTERM)
            case Effect.DUMP:
                if self.process is not None:
                    self.process.dump()
            case Effect.KILL:
                self._end(signal.SIGKILL)
            case Effect.ARM_START_TIMEOUT:
                self._loop.call_later(load_timeout_s(self.section), self._on_start_timeout, self.state.generation)
            case _:
                self._loop.call_later(self._timer_s(effect), self.feed, lifecycle.TimerFired(self.state.generation))

    def _on_start_timeout(self, generation: int) -> None:
        """The load may be late now; but perhaps it began late, because others loaded before."""
        process, left_s = self.process, 0.0
        if process is not None and generation == self.state.generation:
            left_s = process.load_time_left_s(self._clock.monotonic(), load_timeout_s(self.section))
        if left_s > 0:
            self._loop.call_later(left_s, self._on_start_timeout, generation)
        else:
            self.feed(lifecycle.TimerFired(generation))

    def _timer_s(self, effect: Effect) -> float:
        match effect:
            case Effect.ARM_SETTLE:
                return self.section.startsecs
            case Effect.ARM_BACKOFF:
                return delay_s(self._backoff, self.state.failures, self._draw())
            case Effect.ARM_STOP:
                return self.section.stopwaitsecs
            case Effect.ARM_ABORT:
                return ABORT_S
        return TERM_S

    def _fill(self) -> None:
        self._is_permanent = False
        self.spawn_error = self.trouble = ""
        self.started_s = self._clock.monotonic()
        self.started_wall = self._clock.wall()
        try:
            self.process = process = self._keeper.take(self)
        except OSError as error:
            self.spawn_error = f"cannot start a process: {error}"
            self._events.append(lifecycle.Exited())
            return
        process.owner, process.taken_s = self, self.started_s
        if process.ready is not None:
            self._events.append(lifecycle.Ready())
        elif process.has_hello:
            self._keeper.load(process, self.name)

    def _swap(self) -> None:
        """Fill the slot with its replacement; the old process, which is idle, ends outside of it."""
        fresh, old, self.replacement = self.replacement, self.process, None
        assert fresh is not None
        assert old is not None
        self.spawn_error = self.trouble = ""
        self.started_s, self.started_wall = self._clock.monotonic(), self._clock.wall()
        self.process, fresh.owner, fresh.taken_s = fresh, self, self.started_s
        self._keeper.retire(self, old)

    def _end(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)

    # What the process does (processes.Owner).

    def on_hello(self, process: Process) -> None:
        """It is up, without a model."""
        self._keeper.load(process, self.name)

    def on_ready(self, process: Process) -> None:
        """Its model is loaded."""
        self._keeper.on_loaded(process)
        self.feed(lifecycle.Ready())

    def on_load_failed(self, process: Process, failed: LoadFailed) -> None:
        """It will exit; keep why."""
        self.spawn_error = str(failed.error.get("message", ""))
        self._is_permanent = failed.is_permanent

    def on_job(self, process: Process, header: Header, parts: list[bytes]) -> None:
        """A message about the request that it runs."""
        self._keeper.on_job(self, header, parts)

    def on_sign(self, process: Process) -> None:
        """It is dying: nothing goes to it any more.  The slot is filled again when it is gone, its memory with it."""
        if self.phase is Phase.RUNNING:
            self._keeper.on_sign(self)

    def on_exit(self, process: Process, exit_: Exit) -> None:
        """It is gone: free the slot, then tell who waits for it, then fill it again, which wakes others."""
        job, self.job, self.process = self.job or self.lost_job, None, None
        process.trouble = self.trouble
        self.exit_status = exit_.status
        self.stopped_wall = self._clock.wall()
        was_stopping, was_loading = self.phase is Phase.STOPPING, self.phase is Phase.STARTING
        if self.state.turn is not Turn.STOP_FIRST:
            self.recycling = ""
        if not was_stopping and not self.spawn_error:
            self.spawn_error = f"the process ended with {exit_.describe()}"
        is_expected = exit_.signal is None and exit_.status in self.section.exitcodes
        self._keeper.on_death(self, process, job, exit_, was_stopping=was_stopping, was_loading=was_loading)
        self.lost_job = None
        self.feed(lifecycle.Exited(is_permanent=self._is_permanent or self._is_too_intense(), is_expected=is_expected))

    def _is_too_intense(self) -> bool:
        """Whether one more restart would be too many within the period; then it is over until an operator acts."""
        if self.phase is Phase.STOPPING:
            return False
        self._intensity, is_over = self._intensity.restarted(self._clock.monotonic())
        if is_over:
            limit, period_s = self.section.restart_intensity, self.section.restart_period_s
            self.spawn_error = f"gave up: more than {limit} restarts within {period_s:g} s; last: {self.spawn_error}"
        return is_over
