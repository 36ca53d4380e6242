"""Watches the workers of one model: runs that hang, and processes that do not answer a ping.  Policy: ``watchdog.py``.

One timer for all runs of a model, set to the earliest moment at which one of them could be due; a token costs nothing
here, because progress is read from the page that the process shares.
"""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace
from typing import Protocol

from loguru import logger

from rkvisor.protocol.link import Kind
from rkvisor.supervisor.clock import Clock
from rkvisor.supervisor.config import ModelSection
from rkvisor.supervisor.requests.jobs import Job
from rkvisor.supervisor.workers.budgets import FIRST_TOKEN_BASE_S, PREFILL_RATE, first_token_budget_s
from rkvisor.supervisor.workers.lifecycle import Phase
from rkvisor.supervisor.workers.processes import Process
from rkvisor.supervisor.workers.slot import Slot
from rkvisor.supervisor.workers.watchdog import DUMP_S, Step, Watch, look

#: Between two pings of a worker (seconds); one that left two unanswered does not serve its socket any more.
PING_S = 5.0
MAX_UNANSWERED = 2
#: The least time between two looks, seconds.
LOOK_S = 0.02
#: Bytes of a prompt (as JSON, so rather more) per token, where there is no tokenizer (design §2).
BYTES_PER_TOKEN = 3


def prompt_tokens(job: Job) -> int:
    """About how many tokens the runtime prefills for *job*, those that it streamed already included."""
    tokens, counted = job.params.tokens, job.prompt_tokens
    if counted is None:
        counted = len(tokens) if tokens is not None else len(job.raw_params) // BYTES_PER_TOKEN
    return counted + len(job.ids)


class Sender(Protocol):
    """Sends to processes (``Fleet``)."""

    def send(self, process: Process, kind: Kind, *bodies: bytes, job: int = 0) -> bool: ...


class Guard:
    """scale: multiplies every budget, for tests on a scaled clock."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, clock: Clock, section: ModelSection, sender: Sender, scale: float
    ):
        self._loop = loop
        self._clock = clock
        self._section = section
        self._sender = sender
        self._scale = scale
        self._watches: dict[Slot, Watch] = {}
        self._begun: dict[Slot, tuple[Job, float]] = {}
        first_s = section.first_token_timeout_s
        #: No budget is shorter, seconds.
        self._least_s = scale * min(section.token_timeout_s, FIRST_TOKEN_BASE_S if first_s is None else first_s)
        self._slots: list[Slot] = []
        self._standbys: list[Process] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = 0.0
        self._ping_timer: asyncio.TimerHandle | None = None

    def attach(self, slots: list[Slot], standbys: list[Process]) -> None:
        """The workers to ping, and those that wait to become workers; called once."""
        self._slots = slots
        self._standbys = standbys
        self._ping_timer = self._loop.call_later(PING_S * self._scale, self._ping)

    def begin(self, slot: Slot, job: Job) -> None:
        """*slot* was given *job*."""
        now_s = self._clock.monotonic()
        self._begun[slot] = (job, now_s)
        self._arm(now_s + self._least_s)

    def _take_over(self) -> None:
        """Watch the runs that began.  Most are over before anybody looks, so their budgets are only worked out here."""
        for slot, (job, begun_s) in self._begun.items():
            self._watches[slot] = Watch(
                first_s=self._first_s(job),
                next_s=self._section.token_timeout_s * self._scale,
                begun_s=begun_s,
                progress_s=begun_s,
                scale=self._scale,
                is_restoring=job.restore_s > 0 and not slot.has_streamed,
            )
        self._begun.clear()

    def _first_s(self, job: Job) -> float:
        """The budget of the first token of *job*, seconds."""
        first_s = self._section.first_token_timeout_s
        if first_s is None:
            first_s = first_token_budget_s(prompt_tokens(job), PREFILL_RATE)
        return (first_s + job.restore_s) * self._scale

    def measured(self, slot: Slot, job: Job) -> None:
        """The worker has counted the prompt of *job*, which *slot* runs."""
        watch = self._watches.get(slot)
        if watch is not None:  # it was watched by an estimate; most are counted before anybody looks
            self._watches[slot] = replace(watch, first_s=self._first_s(job))
            self._arm(self._clock.monotonic())

    def begun(self, slot: Slot) -> None:
        """The first token of the run of *slot* is there: from now on the budget is that between two tokens."""
        watch = self._watches.get(slot)
        if watch is not None and watch.is_restoring:
            self._watches[slot] = replace(watch, is_restoring=False)
        self._arm(self._clock.monotonic() + self._section.token_timeout_s * self._scale)

    def end(self, slot: Slot) -> None:
        """The run of *slot* is over."""
        if self._begun.pop(slot, None) is None:
            self._watches.pop(slot, None)

    def aborted(self, slot: Slot) -> None:
        """Somebody asked for the abort of the run of *slot*."""
        self._take_over()
        watch = self._watches.get(slot)
        if watch is not None and watch.abort_s is None:
            self._watches[slot] = replace(watch, abort_s=self._clock.monotonic())
            self._look()

    def _arm(self, due_s: float) -> None:
        if self._timer is not None:
            if self._timer_s <= due_s:
                return
            self._timer.cancel()
        self._timer_s = due_s
        self._timer = self._loop.call_later(max(LOOK_S, due_s - self._clock.monotonic()), self._fire)

    def _fire(self) -> None:
        self._timer = None
        self._look()

    def _look(self) -> None:
        self._take_over()
        now_s = self._clock.monotonic()
        for slot, watch in list(self._watches.items()):
            if slot.process is None:
                del self._watches[slot]
                continue
            self._watches[slot], step = look(watch, slot.process.page.progress_s, now_s)
            if step is not None:
                self._act(slot, step)
        if self._watches:
            self._arm(min(watch.due_s for watch in self._watches.values()))

    def _act(self, slot: Slot, step: Step) -> None:
        process = slot.process
        assert process is not None
        match step:
            case Step.ABORT:
                logger.warning("{}: process {} makes no progress; aborting its request", slot.name, process.pid)
                slot.trouble = "hung: made no progress within its budget"
                if slot.job is not None:
                    slot.job.is_hung = True
                    self._sender.send(process, Kind.ABORT, job=slot.job.number)
            case Step.DUMP:
                logger.warning("{}: process {} does not obey the abort; SIGABRT", slot.name, process.pid)
                slot.trouble = slot.trouble or "hung: did not obey an abort"
                process.send_signal(signal.SIGABRT)
            case Step.KILL:
                logger.warning("{}: process {} outlived SIGABRT; SIGKILL", slot.name, process.pid)
                slot.trouble = f"hung: killed, waiting for the kernel to end pid {process.pid}"
                process.send_signal(signal.SIGKILL)

    def _ping(self) -> None:
        self._ping_timer = self._loop.call_later(PING_S * self._scale, self._ping)
        up = [(s.name, s.process, s) for s in self._slots if s.process is not None and s.phase is Phase.RUNNING]
        for name, process, slot in [*up, *(("a standby", one, None) for one in self._standbys if one.ready)]:
            trouble = self._trouble(process, slot)
            if trouble:
                if slot is not None:
                    slot.trouble = trouble
                logger.warning("{}: process {} {}", name, process.pid, trouble)
                process.dump(DUMP_S * self._scale)
            process.unanswered += 1
            self._sender.send(process, Kind.PING)

    def _trouble(self, process: Process, slot: Slot | None) -> str:
        """What is wrong with a process apart from a run of it, "" where nothing is."""
        if process.unanswered >= MAX_UNANSWERED:
            return "hung: its socket is not served"
        is_running = slot is not None and slot.job is not None and slot.job.number == process.begun_job()
        limit_s = self._section.control_timeout_s * self._scale
        if process.owed and not is_running and self._clock.monotonic() - process.owed_s > limit_s:
            return f"hung: a control call took more than {limit_s:g} s (control_timeout_s)"
        return ""

    def close(self) -> None:
        """No timer any more."""
        for timer in (self._timer, self._ping_timer):
            if timer is not None:
                timer.cancel()
