"""Tells streaming requests why nothing comes: those that wait, prefill or are paused, every ten seconds (design §4)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from rkvisor.supervisor.requests.jobs import Job

PROGRESS_S = 10.0


class Word(NamedTuple):
    """What *job*'s listeners are told.

    phase: "queued" or "prefill"; "paused", then "resumed" or "pause_timeout".  queue_position: requests before it.
    timeout_in_s: what is left of a pause.
    """

    job: Job
    phase: str
    queue_position: int = 0
    timeout_in_s: float | None = None


class Progress:
    """waiting: what is to be told again and again, as long as there is any."""

    def __init__(self, loop: asyncio.AbstractEventLoop, waiting: Callable[[], list[Word]]):
        self._loop = loop
        self._waiting = waiting
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """There is a request that may have to wait."""
        if self._timer is None:
            self._timer = self._loop.call_later(PROGRESS_S, self._tell)

    @staticmethod
    def say(word: Word) -> None:
        """Tell it now, to all who listen."""
        for listener in word.job.listeners:
            listener.progress(word.phase, word.queue_position, word.timeout_in_s)

    def _tell(self) -> None:
        self._timer = None
        waiting = self._waiting()
        for word in waiting:
            self.say(word)
        if waiting:
            self.watch()

    def close(self) -> None:
        """No timer any more."""
        if self._timer is not None:
            self._timer.cancel()
