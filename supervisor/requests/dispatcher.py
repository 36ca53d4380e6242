"""The requests of one model: queued, dispatched to an idle worker, followed to their end.

How they end is in ``endings.py``, what follows a failure in ``recovery.py``, who hangs in ``workers/guard.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from loguru import logger

from rkvisor.protocol import link, rkllm_log
from rkvisor.protocol.errors import (
    CircuitOpen,
    Draining,
    ModelUnavailable,
    RkvisorError,
    SupervisorError,
)
from rkvisor.protocol.link import Header, Kind
from rkvisor.supervisor.clock import Clock
from rkvisor.supervisor.config import ModelSection
from rkvisor.supervisor.front.events import Events
from rkvisor.supervisor.requests.availability import Availability
from rkvisor.supervisor.requests.breaker import Circuit
from rkvisor.supervisor.requests.endings import Endings, too_late
from rkvisor.supervisor.requests.fairqueue import FairQueue
from rkvisor.supervisor.requests.faults import FaultWindow
from rkvisor.supervisor.requests.jobs import Job, JobState, Pausing
from rkvisor.supervisor.requests.pauses import Pauses
from rkvisor.supervisor.requests.progress import Progress, Word
from rkvisor.supervisor.requests.recovery import Recovery
from rkvisor.supervisor.sessions.affinity import choose
from rkvisor.supervisor.sessions.room import Sessions
from rkvisor.supervisor.workers.guard import Guard
from rkvisor.supervisor.workers.lifecycle import Answered, Drained, Phase, Turn
from rkvisor.supervisor.workers.processes import Exit, Process, signal_name
from rkvisor.supervisor.workers.slot import Slot

Send = Callable[..., bool]


class Dispatcher:
    """send: to a process.  fallback: of another model, for requests that this one cannot take now."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        name: str,
        section: ModelSection,
        faults: FaultWindow,
        endings: Endings,
        events: Events,
        send: Send,
        guard: Guard,
    ):
        self._loop = loop
        self.name = name
        self._faults = faults
        self._endings = endings
        self._send = send
        self._guard = guard
        self.recovery = Recovery(clock, name, section, faults, endings, events, self._requeue)
        self._progress = Progress(loop, self._waiting)
        self.pauses = Pauses(loop, send, guard, self._progress, section.pause_timeout_s, self.abort, self._requeue)
        self.fallback: Dispatcher | None = None
        self.sessions: Sessions | None = None
        self.queue: FairQueue[Job] = FairQueue(section.max_queue)
        self._availability = Availability(name, self.queue, self.recovery, loop.time)
        self.slots: list[Slot] = []
        self._idle: dict[Slot, None] = {}
        self.on_rest: Callable[[Slot, Process], None] = lambda slot, process: None
        #: The model whose bad health this one suffers from: itself, one it depends on, or "".
        self.degraded_by = ""
        self._degraded_mode = section.degraded_mode

    def attach(self, slots: list[Slot], standbys: list[Process]) -> None:
        """The workers, and the processes that wait to become some; called once."""
        self.slots = self._availability.slots = slots
        self._guard.attach(slots, standbys)

    # Admission.

    def submit(self, job: Job) -> None:
        """Take *job* in, or hand it to the fallback.

        Raises QueueFull, CircuitOpen, Draining, ModelUnavailable.
        """
        if self.degraded_by and self._degraded_mode == "fallback" and self._spare(job):
            return
        try:
            self._availability.check(job, self.degraded_by if self._degraded_mode == "refuse" else "")
        except (CircuitOpen, Draining, ModelUnavailable) as refusal:
            try:
                is_handed_over = self._hand_over(job)
            except SupervisorError as other:
                refusal.message += f"; its fallback: {other.message}"
                raise refusal from None
            if not is_handed_over:
                raise
            return
        job.home, job.model = self, self.name
        if job.deadline_s is not None and job.deadline is None:
            job.deadline = self._loop.call_later(job.deadline_s - job.received_s, self._expire, job)
        if job.session is None or job.session.enter(job):
            self._take_in(job)
        if job.state is JobState.QUEUED or job.params.stream:
            self._progress.watch()

    def release(self, job: Job) -> None:
        """*job* waited for the request of its session that was before it, and is next."""
        try:
            self._availability.check_workers()
        except SupervisorError as error:
            self._endings.fail(job, error)
        else:
            self._take_in(job)

    def _take_in(self, job: Job) -> None:
        """Send *job* to an idle worker, or let it wait for one."""
        if self._idle and not len(self.queue) and self._faults.may_run(job):  # nobody is before it
            slot = self._choose(job)
            del self._idle[slot]
            self._dispatch(slot, job)
        else:
            self.queue.push(job, priority=job.params.priority, principal=job.principal, connection=job.connection)
            self.pump()

    def unavailable(self) -> bytes:
        """The JSON text of the error that keeps requests out now; of a general one where none does."""
        return self._endings.body(self._availability.refusal())

    def _hand_over(self, job: Job) -> bool:
        """Give *job* to the fallback.  Not one that has streamed: another model would not go on with its text."""
        if self.fallback is None or job.is_degraded or job.ids or job.session is not None:
            return False
        job.is_degraded, job.is_probe = True, False
        self.fallback.submit(job)
        return True

    def _spare(self, job: Job) -> bool:
        """Give *job* to the fallback while this model is not well, if that takes it."""
        try:
            return self._hand_over(job)
        except SupervisorError as refusal:
            logger.debug("the fallback of {} refuses job {}: {}", self.name, job.number, refusal)
            job.is_degraded = False
            return False

    # Dispatch.

    def pump(self) -> None:
        """Send waiting requests to idle workers until one of the two runs out."""
        while self._idle and len(self.queue):
            job = self.queue.pop(self._faults.may_run)
            if job is None:
                return
            slot = self._choose(job)
            del self._idle[slot]
            self._dispatch(slot, job)

    def _choose(self, job: Job) -> Slot:
        """The worker that has been idle longest, but rather not the one that failed this request; see ``affinity``."""
        sessions = self.sessions
        if sessions is None:
            return choose(self._idle, job.failed_worker, None, lambda slot: False)
        return choose(self._idle, job.failed_worker, sessions.home(job.session), sessions.is_held)

    def _dispatch(self, slot: Slot, job: Job) -> None:
        process = slot.process
        assert process is not None
        job.attempts += 1
        job.state, job.worker, slot.job = JobState.RUNNING, slot, job
        slot.has_streamed = False
        self._faults.started(job)
        session = self.sessions.dispatched(slot, job) if self.sessions is not None else None
        self._guard.begin(slot, job)
        run = link.Run(
            worker=slot.name,
            ids=job.ids if job.resume else [],
            text=job.text() if job.resume else "",
            seq=len(job.fragments),
            resume=job.resume,
            resumed=job.resumed,
            quality=job.quality,
            degraded=job.is_degraded,
            prompt_cache=job.prompt_cache,
            session=session,
            time_s=job.time_s,
        )
        self._send(process, Kind.RUN, link.encode_body(run), job.raw_params, *job.attachments, job=job.number)
        if job.pausing is not Pausing.NOT:
            self.pauses.dispatched(job)

    def _requeue(self, job: Job) -> None:
        """*job* goes on elsewhere: before all others, they wait for it and not it for them."""
        if self.pauses.hold(job):
            return
        self.queue.push_front(job)
        self.pump()
        self._settle_unavailable()

    # What the worker says.

    def on_message(self, slot: Slot, header: Header, parts: list[bytes]) -> None:
        """A message of the worker's process about its request; one about another request is late and dropped."""
        job = slot.job
        if job is None or job.number != header.job:
            return
        if header.kind == Kind.TOKEN:
            if header.seq != len(job.fragments):
                due = len(job.fragments)
                logger.error("{}: token {} of job {} where {} was due", slot.name, header.seq, job.number, due)
                return
            if not slot.has_streamed:
                slot.has_streamed = True
                self._guard.begun(slot)
            job.ids.extend(header.ids)
            job.fragments.append(parts[2])
            for listener in job.listeners:
                listener.token(parts[2])
        elif header.kind == Kind.PROMPT:
            job.prompt_tokens = link.decode_prompt(parts[2]).tokens
            self._guard.measured(slot, job)
        elif header.kind == Kind.PAUSED:
            self.pauses.on_paused(slot, job, link.decode_pause(parts[2]).number)
        elif header.kind == Kind.TURN and self.sessions is not None:
            self.sessions.on_turn(slot, job, link.decode_turn_end(parts[2]))
        elif header.kind in (Kind.RESULT, Kind.ERROR):
            self._on_end(slot, job, header.kind == Kind.ERROR, parts)

    def _on_end(self, slot: Slot, job: Job, is_error: bool, parts: list[bytes]) -> None:
        process = slot.process
        assert process is not None
        self._free(slot)
        said = process.take_log()
        if job.is_hung and not job.is_aborting:  # it obeyed the watchdog's abort: that is no answer
            self.recovery.failed(slot.name, job, process, "hung", None, was_loading=False)
            return
        if job.is_moving and not job.is_aborting:
            self.recovery.resolve(slot.name, job, process, "its worker was stopped", None)
            return
        if is_error:
            body = rkllm_log.explained(parts[2], said)
        else:
            body = parts[2]
            self.recovery.count_success()
        self.recovery.outcomes.answered(self._loop.time())
        self.recovery.abandon_probe(job)
        self._endings.end(job, body, parts[3:], is_error=is_error)

    def _free(self, slot: Slot) -> None:
        slot.job = None
        if slot.process is not None:
            slot.process.owed_s = self._loop.time()
        slot.requests += 1
        slot.trouble = ""
        self._guard.end(slot)
        if not slot.state.settled:
            slot.feed(Answered())
        if slot.process is not None:
            self.on_rest(slot, slot.process)
        if slot.phase is Phase.STOPPING or slot.state.turn is Turn.SWAP:
            slot.feed(Drained())
        elif slot.is_idle:
            self._idle[slot] = None
            if len(self.queue):
                self._loop.call_soon(self.pump)

    # Workers come and go.

    def on_phase(self, slot: Slot) -> None:
        """A worker changed its state."""
        if slot.is_idle:
            self._idle[slot] = None
            self.pump()
        else:
            self._idle.pop(slot, None)
        self._settle_unavailable()

    def _settle_unavailable(self) -> None:
        """Where nobody will take what waits, hand it to the fallback, or say so at once."""
        if not len(self.queue):
            return
        is_open = self.recovery.breaker.circuit is Circuit.OPEN and self.fallback is not None
        try:
            self._availability.check_workers()
            if not is_open:
                return
            error: RkvisorError = ModelUnavailable(f"cannot run model {self.name!r}: its circuit is open")
        except SupervisorError as unavailable:
            error = unavailable
        kept = []
        while (job := self.queue.pop()) is not None:
            try:
                if self._hand_over(job):
                    continue
            except SupervisorError as refusal:
                error = refusal
            if is_open:
                kept.append(job)  # it streamed already: only this model can go on with it
            else:
                self._endings.fail(job, error)
        for job in kept:
            self.queue.push_front(job)

    def cut_short(self, slot: Slot) -> None:
        """The worker of *slot* is being stopped, and what it runs has had its time.  It goes on with another one where
        there is one; else it ends as aborted."""
        job, process = slot.job, slot.process
        if job is None or process is None:
            return
        serves = any(one.state.serves_again for one in self.slots if one is not slot)
        job.is_moving = serves and self.recovery.can_move(job, process)
        self._send(process, Kind.ABORT, job=job.number)

    def on_sign(self, slot: Slot) -> None:
        """The process of *slot* is dying: what it ran goes on elsewhere now, if another worker is idle; else it waits
        for the slot, which is filled again when the process is gone."""
        self._idle.pop(slot, None)
        job, process = slot.job, slot.process
        if job is None or process is None or not self._idle:
            return
        number = process.dying_of()
        slot.job, slot.lost_job = None, job
        self._guard.end(slot)
        how = signal_name(number) if number is not None else "a crash"
        self.recovery.failed(slot.name, job, process, how, number, was_loading=False)

    def on_death(
        self, slot: Slot, process: Process, job: Job | None, exit_: Exit, *, was_stopping: bool, was_loading: bool
    ) -> None:
        """The process of *slot* is gone; *job* is what it ran.  was_stopping: we ended it, so nobody is charged."""
        self._guard.end(slot)
        how = exit_.describe()
        if was_stopping:
            logger.info("{}: process {} ended with {}", slot.name, process.pid, how)
            if job is not None:
                self.recovery.resolve(slot.name, job, process, how, exit_.signal)
            return
        logger.debug("{}: process {} ended with {}", slot.name, process.pid, how)  # ``Crashes`` tells of it
        if slot.lost_job is not None:
            return  # on_sign did what follows
        self.recovery.failed(slot.name, job, process, how, exit_.signal, was_loading=was_loading)

    # Aborts and deadlines.

    def abort(self, job: Job) -> bool:
        """End *job* wherever it is: it succeeds as aborted.  Returns whether it was still alive."""
        if job.state is JobState.DONE:
            return False
        if job.state is JobState.RUNNING:
            slot: Slot = job.worker
            if not job.is_aborting and slot.process is not None:
                job.is_aborting = True
                self._send(slot.process, Kind.ABORT, job=job.number)
                self._guard.aborted(slot)
            return True
        self.queue.remove(job)
        self.recovery.abandon_probe(job)
        self._endings.abort(job)
        return True

    def fail(self, job: Job, error: RkvisorError) -> None:
        """Answer *job* with *error* now, wherever it is; if it runs, its run is aborted."""
        self.queue.remove(job)
        self.recovery.abandon_probe(job)
        self._endings.fail(job, error)
        if job.state is JobState.RUNNING:
            self.abort(job)

    @staticmethod
    def _expire(job: Job) -> None:
        if job.expire is not None:
            job.expire(job)
        elif job.params.deadline_ms is not None:
            job.home.fail(job, too_late(job, job.params.deadline_ms))

    def later(self, delay_s: float, act: Callable[..., None], *args: object) -> asyncio.TimerHandle:
        """Call *act* in *delay_s* seconds."""
        return self._loop.call_later(delay_s, act, *args)

    def _waiting(self) -> list[Word]:
        """Why nothing comes of the jobs that stream nothing now."""
        waiting = [Word(job, "queued", place) for place, job in enumerate(self.queue)]
        running = [slot.job for slot in self.slots if slot.job is not None]
        sessions = [job.session for job in (*self.queue, *running) if job.session is not None]
        waiting += [Word(job, "queued", place) for one in sessions for place, job in enumerate(one.waiting, 1)]
        waiting += [Word(job, "prefill") for job in running if not job.fragments and job.pausing is not Pausing.PAUSED]
        return waiting + self.pauses.words()

    def close(self) -> None:
        """No timer any more."""
        self._guard.close()
        self.pauses.close()
        self._progress.close()
