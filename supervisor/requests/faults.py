"""Whom a death is charged to (design §6, 3).  Pure; times are passed in.

One death is charged to the request that the process ran.  Deaths of several workers within the window that ran
different requests have one cause outside of them (the NPU was reset): they charge nobody, charges already made are
taken back, and the requests run again one at a time, so that a guilty one among them is found without taking others
along.  One request that ends one worker after another is no such coincidence: it is charged each time.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # jobs.py holds asyncio's timers, which nothing here may touch
    from rkvisor.supervisor.requests.jobs import Job


@dataclass(slots=True)
class _Death:
    when_s: float
    worker: str
    job: Job | None
    is_charged: bool


class FaultWindow:
    """window_s: deaths of different workers closer than this are one fault.  Shared by all models of an rkvisord."""

    def __init__(self, window_s: float):
        self.window_s = window_s
        self._deaths: deque[_Death] = deque()
        self._alone: Job | None = None

    def may_run(self, job: Job) -> bool:
        """Whether *job* may be dispatched now: of those that run alone, one at a time."""
        return not job.is_alone or self._alone is None

    def started(self, job: Job) -> None:
        """*job* was dispatched."""
        if job.is_alone:
            self._alone = job

    def ended(self, job: Job) -> None:
        """*job* is done, or waits again."""
        if self._alone is job:
            self._alone = None

    def died(self, worker: str, job: Job | None, now_s: float, *, is_suspect: bool = True) -> bool:
        """The process of *worker* died while it had *job*.  Returns whether the death is charged to it.

        is_suspect: the process had begun to run it; one that was dead already when the request was sent had not.
        """
        if job is not None:
            self.ended(job)
        while self._deaths and now_s - self._deaths[0].when_s > self.window_s:
            self._deaths.popleft()
        is_fault = any(death.worker != worker and (job is None or death.job is not job) for death in self._deaths)
        death = _Death(now_s, worker, job, is_charged=job is not None and is_suspect)
        self._deaths.append(death)
        if job is not None and death.is_charged:
            job.charged += 1
        if is_fault and not (job is not None and job.is_alone):
            self._acquit()
        return death.is_charged

    def _acquit(self) -> None:
        """Take back every charge within the window; let the suspects run alone."""
        for death in self._deaths:
            if death.job is not None:
                death.job.charged -= death.is_charged
                death.job.is_alone = True
            death.is_charged = False
