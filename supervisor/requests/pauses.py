"""Requests of one model that their clients paused: ``rkllm.pause`` and ``rkllm.resume``.

A paused request keeps its worker, whose KV cache holds it, for ``pause_timeout_s`` at most; then it ends as aborted.
If its process dies meanwhile, it waits without one, and is sent again behind its tokens when it is resumed.  One whose
cache was edited, or that went on behind other text, is in no other process and cannot be sent again.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

from rkvisor.protocol import link
from rkvisor.protocol.errors import NotSupported
from rkvisor.protocol.link import Kind
from rkvisor.supervisor.requests.jobs import Job, JobState, Pausing
from rkvisor.supervisor.requests.progress import Progress, Word
from rkvisor.supervisor.workers.guard import Guard
from rkvisor.supervisor.workers.slot import Slot

#: Families whose callback can say "pause" (facts of the runtime, §1 and §2).
CAN_PAUSE = ("F4", "F5")

Tell = Callable[[bool], None]


class Pauses:
    """send: to a process.  progress: tells clients.  limit_s: of a pause.  abort: ends a job.  requeue: lets one go on
    elsewhere."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        send: Callable[..., bool],
        guard: Guard,
        progress: Progress,
        limit_s: float,
        abort: Callable[[Job], bool],
        requeue: Callable[[Job], None],
    ):
        self._loop = loop
        self._send = send
        self._guard = guard
        self._progress = progress
        self._limit_s = limit_s
        self._abort = abort
        self._requeue = requeue
        self._numbers = itertools.count(1)
        self._waiting: dict[Job, list[Tell]] = {}
        self._timers: dict[Job, tuple[asyncio.TimerHandle, float]] = {}  # and when each is due

    def pause(self, job: Job, tell: Tell) -> None:
        """Pause *job* at its next token.  tell: called with whether it is paused, once that is known.

        Raises NotSupported for what RKLLM cannot pause.
        """
        self._check(job)
        if job.state is JobState.DONE or job.is_answered or job.is_aborting:
            tell(False)
        elif job.pausing in (Pausing.PAUSED, Pausing.ALONE):
            tell(True)
        else:
            self._waiting.setdefault(job, []).append(tell)
            if job.pausing is Pausing.NOT:
                job.pausing, job.pause_number = Pausing.ASKED, next(self._numbers)
                self.dispatched(job)

    @staticmethod
    def _check(job: Job) -> None:
        params = job.params
        if params.session is not None:
            raise NotSupported("cannot pause a request in a session: RKLLM pauses only what keeps no history")
        if params.mode != "generate" or params.prompts is not None:
            what = f"mode {params.mode!r}" if params.mode != "generate" else "several prompts"
            raise NotSupported(f"cannot pause a request with {what}: it has no stream of tokens to pause")
        slot: Slot | None = job.worker
        ready = slot.process.ready if slot is not None and slot.process is not None else None
        if ready is not None and ready.family not in CAN_PAUSE:
            text = f"the callback of family {ready.family} cannot say so; {' and '.join(CAN_PAUSE)} can"
            raise NotSupported(f"cannot pause a request: {text}", component=job.model)

    def dispatched(self, job: Job) -> None:
        """*job* may have been given to a process: let that pause it where somebody asked for it."""
        if job.pausing is Pausing.ASKED and job.state is JobState.RUNNING and job.worker.process is not None:
            body = link.encode_body(link.Pause(number=job.pause_number))
            self._send(job.worker.process, Kind.PAUSE, body, job=job.number)

    def on_paused(self, slot: Slot, job: Job, number: int) -> None:
        """Its process has paused *job*."""
        if job.pausing is not Pausing.ASKED or number != job.pause_number:
            return  # it was resumed meanwhile, and the process was told
        job.pausing = Pausing.PAUSED
        self._guard.end(slot)  # no callback is due
        due_s = self._loop.time() + self._limit_s
        self._timers[job] = self._loop.call_later(self._limit_s, self._expire, job), due_s
        self._progress.say(self._word(job))
        self._progress.watch()
        self._tell(job, is_paused=True)

    def _expire(self, job: Job) -> None:
        self._forget_timer(job)
        self._progress.say(Word(job, "pause_timeout"))
        self._abort(job)

    def words(self) -> list[Word]:
        """What the clients of paused requests are told now and then."""
        return [self._word(job) for job in self._timers]

    def _word(self, job: Job) -> Word:
        return Word(job, "paused", timeout_in_s=max(0.0, self._timers[job][1] - self._loop.time()))

    def resume(self, job: Job, text: str) -> bool:
        """Let *job* go on, behind *text* if there is any.  Returns whether it was paused, or was to be.

        Raises NotSupported for text that no process can take any more.
        """
        was = job.pausing
        if was is Pausing.NOT or job.is_aborting:
            return False
        if text and was is not Pausing.PAUSED:
            raise NotSupported("cannot go on behind other text: no process holds the request paused; resume without")
        job.pausing = Pausing.NOT
        self._forget_timer(job)
        self._tell(job, is_paused=False)
        if was is not Pausing.ASKED:
            self._progress.say(Word(job, "resumed"))
        if was is Pausing.ALONE:
            self._requeue(job)
        elif job.state is JobState.RUNNING and job.worker.process is not None:
            job.is_edited |= bool(text)
            if was is Pausing.PAUSED:
                self._guard.begin(job.worker, job)
            body = link.encode_body(link.Resume(number=job.pause_number, text=text))
            self._send(job.worker.process, Kind.RESUME, body, job=job.number)
        return True

    def hold(self, job: Job) -> bool:
        """Whether *job*, whose process died, waits for its resume and not for another process."""
        if job.pausing in (Pausing.PAUSED, Pausing.ALONE):
            job.pausing = Pausing.ALONE
            return True
        return False

    def end(self, job: Job) -> None:
        """*job* is over."""
        job.pausing = Pausing.NOT
        self._forget_timer(job)
        self._tell(job, is_paused=False)

    def _tell(self, job: Job, *, is_paused: bool) -> None:
        for tell in self._waiting.pop(job, ()):
            tell(is_paused)

    def _forget_timer(self, job: Job) -> None:
        found = self._timers.pop(job, None)
        if found is not None:
            found[0].cancel()

    def close(self) -> None:
        """No timer any more."""
        for job in list(self._timers):
            self._forget_timer(job)


def held_by(slots: list[Slot], principal: str, identifier: bytes | None) -> dict[Any, tuple[str, Job]]:
    """Process → (worker, job) for the paused requests of *principal* among *slots*.  identifier: JSON text of the id of
    the one that is meant, None for all."""
    found = {}
    for slot in slots:
        job = slot.job
        if job is None or job.pausing is not Pausing.PAUSED or job.principal != principal:
            continue
        if identifier is None or any(getattr(one, "id", None) == identifier for one in job.listeners):
            found[slot.process] = (slot.name, job)
    return found
