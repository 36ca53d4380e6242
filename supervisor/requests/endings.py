"""How a request ends: its state, its timer, and what its listeners hear.  Each listener hears exactly one end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from rkvisor.protocol.errors import CATALOGUE, DeadlineExceeded, RkvisorError, ShuttingDown
from rkvisor.supervisor.clock import Clock
from rkvisor.supervisor.requests.faults import FaultWindow
from rkvisor.supervisor.requests.jobs import Job, JobState
from rkvisor.supervisor.requests.ladder import GiveUp

#: Told to clients that should ask again: about one short answer.
RETRY_AFTER_MS = 1000


def aborted_result(job: Job) -> bytes:
    """The JSON text of what *job* has now, as the result of an aborted request."""
    result = {
        "text": job.text(),
        "token_ids": job.ids,
        "finish_reason": "abort",
        "perf": None,
        "worker": job.worker.name if job.state is JobState.RUNNING else job.failed_worker,
        "resumed": job.resumed,
        "resume": job.quality,
        "degraded": job.is_degraded,
    }
    return msgspec.json.encode(result)


def too_late(job: Job, deadline_ms: int) -> DeadlineExceeded:
    """What a caller of *job* is told whose deadline is over, with what came until now."""
    text = f"cannot finish the request within its deadline of {deadline_ms} ms"
    return DeadlineExceeded(text, component=job.model, text=job.text(), token_ids=list(job.ids))


def cut_off(job: Job, retry_after_ms: int) -> ShuttingDown:
    """What *job* is told when rkvisord stops before it is done, with what came until now."""
    text = "cannot finish the request: rkvisord is shutting down"
    return ShuttingDown(
        text, retry_after_ms=retry_after_ms, component=job.model, text=job.text(), token_ids=list(job.ids)
    )


Finish = Callable[[Job, bytes, Sequence[bytes], bool, bool], None]


class Endings:
    """finish: tell the job's listeners (job, body, attachments, is_error, is_retryable).
    wake: let every model look at its queue again."""

    def __init__(self, clock: Clock, faults: FaultWindow, finish: Finish, wake: Callable[[], None]):
        self._clock = clock
        self._faults = faults
        self._finish = finish
        self._wake = wake
        self.on_session_end: Callable[[Job, bytes, bool], bytes] = lambda job, body, is_error: body

    def end(self, job: Job, body: bytes, attachments: Sequence[bytes] = (), *, is_error: bool) -> None:
        """*job* is over; *body* is the JSON text of its result or error object."""
        job.state, job.worker = JobState.DONE, None
        self._faults.ended(job)
        if job.deadline is not None:
            job.deadline.cancel()
        if job.is_alone:
            self._wake()
        if job.session is not None:
            body = self.on_session_end(job, body, is_error)
        if not job.is_answered:
            job.is_answered = True
            self._finish(job, body, attachments, is_error, False)

    def fail(self, job: Job, error: RkvisorError) -> None:
        """Answer *job* with *error*, and end it unless it runs: then it is over for its listeners only."""
        if not job.is_answered:
            job.is_answered = True
            self._finish(job, self.body(error), (), True, error.is_retryable)
        if job.state is not JobState.RUNNING:
            self.end(job, b"", is_error=True)

    def give_up(self, job: Job, verdict: GiveUp, how: str, signal: int | None, log: list[str]) -> None:
        """End *job* because the ladder says so.  how: what happened to its process last."""
        kind = CATALOGUE[verdict.name]
        data: dict[str, Any] = {"text": job.text(), "token_ids": job.ids, "log": log, "signal": signal}
        error = kind(
            f"cannot finish the request: {verdict.reason} ({how})",
            retry_after_ms=RETRY_AFTER_MS if kind.is_retryable else None,
            component=job.failed_worker or job.model,
            **data,
        )
        self.fail(job, error)

    def abort(self, job: Job) -> None:
        """End *job*, which does not run: it succeeds as aborted."""
        job.is_aborting = True  # so that its key is free again, as after the abort of a run
        self.end(job, aborted_result(job), is_error=False)

    def body(self, error: RkvisorError) -> bytes:
        """The JSON text of the error object."""
        return msgspec.json.encode(error.to_object(self._clock.wall()))
