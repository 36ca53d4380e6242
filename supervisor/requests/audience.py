"""Who listens to which run.  Those who joined one by its request_key leave it one by one: each has its own deadline and
its own abort, and the run goes on for the others.  It ends with the last of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from rkvisor.supervisor.clock import Clock
from rkvisor.supervisor.front.replies import Connection, Reply
from rkvisor.supervisor.requests.endings import aborted_result, too_late
from rkvisor.supervisor.requests.jobs import Job


class Audience:
    """deserted: told of a job whose last listener is gone with its connection.

    The first caller's deadline is the job's own timer, so that a job that nobody joins needs nothing of this.
    """

    def __init__(self, clock: Clock, deserted: Callable[[Job], None]):
        self._clock = clock
        self._deserted = deserted
        self._jobs: dict[Reply, Job] = {}
        self._deadlines: dict[Reply, asyncio.TimerHandle] = {}

    def listen(self, job: Job, reply: Reply) -> None:
        """*reply* is told of *job*."""
        job.listeners.append(reply)
        self._jobs[reply] = job
        reply.connection.replies.add(reply)
        reply.abandon = lambda: self._abandon(reply)

    def join(self, job: Job, reply: Reply, deadline_ms: int | None) -> None:
        """*reply* listens too, for up to *deadline_ms*."""
        job.expire = self._expire_first
        self.listen(job, reply)
        if deadline_ms is not None:
            self._deadlines[reply] = job.home.later(deadline_ms / 1000, self._expire, reply, deadline_ms)

    def forget(self, reply: Reply) -> Job | None:
        """*reply* is answered, or will be.  Returns the job that it listened to."""
        if self._deadlines:
            timer = self._deadlines.pop(reply, None)
            if timer is not None:
                timer.cancel()
        return self._jobs.pop(reply, None)

    def of(self, connection: Connection, identifier: bytes) -> dict[Reply, Job]:
        """The runs of *connection* under *identifier*, JSON text."""
        wanted = identifier.strip()
        return {one: self._jobs[one] for one in connection.replies if one.id == wanted and one in self._jobs}

    def abort(self, reply: Reply) -> bool:
        """Answer *reply* as aborted.  Returns whether its run was still alive."""
        job = self._jobs[reply]
        if len(job.listeners) < 2:
            return bool(job.home.abort(job))
        self._leave(reply)
        reply.result(aborted_result(job))
        return True

    def _leave(self, reply: Reply) -> Job | None:
        job = self.forget(reply)
        if job is None:
            return None
        if job.deadline is not None and job.listeners[0] is reply and len(job.listeners) > 1:
            job.deadline.cancel()  # the first caller's: not for those who stay
        job.listeners = [one for one in job.listeners if one is not reply]  # a new list: one may be gone through now
        return job

    def _abandon(self, reply: Reply) -> None:
        """The client behind *reply* is gone."""
        job = self._leave(reply)
        if job is not None and not job.listeners:
            self._deserted(job)

    def _expire_first(self, job: Job) -> None:
        if job.listeners and job.params.deadline_ms is not None:
            self._expire(job.listeners[0], job.params.deadline_ms)  # type: ignore[arg-type]

    def _expire(self, reply: Reply, deadline_ms: int) -> None:
        """The deadline of *reply* is over: it alone is told so."""
        job = self._jobs.get(reply)
        if job is None:
            return
        error = too_late(job, deadline_ms)
        if len(job.listeners) < 2:
            job.home.fail(job, error)
            return
        self._leave(reply)
        reply.error(msgspec.json.encode(error.to_object(self._clock.wall())))
