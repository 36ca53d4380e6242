"""Time that moves when a test says so: a loop with timers and a clock, and parts that record what is asked of them."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any


class Timer:
    """What ``call_later`` returns."""

    def __init__(self) -> None:
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class StillLoop:
    """A loop and a clock in one: ``advance`` runs what is due, in order."""

    def __init__(self, now_s: float = 1000.0):
        self.now_s = now_s
        self._due: list[tuple[float, int, Timer, Callable[..., Any], tuple[Any, ...]]] = []
        self._order = itertools.count()

    def time(self) -> float:
        return self.now_s

    monotonic = wall = time

    def call_later(self, delay_s: float, act: Callable[..., Any], *args: Any) -> Timer:
        timer = Timer()
        heapq.heappush(self._due, (self.now_s + delay_s, next(self._order), timer, act, args))
        return timer

    def call_soon(self, act: Callable[..., Any], *args: Any) -> Timer:
        return self.call_later(0, act, *args)

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass."""
        until_s = self.now_s + seconds
        while self._due and self._due[0][0] <= until_s:
            self.now_s, _, timer, act, args = heapq.heappop(self._due)
            if not timer.is_cancelled:
                act(*args)
        self.now_s = until_s


class StillProcess:
    """A process that does nothing by itself.  signals: what it was sent.  begun: number of the run it began last."""

    def __init__(self, pid: int):
        self.pid = self.incarnation = pid
        self.page = SimpleNamespace(progress_s=0.0)
        self.ready = SimpleNamespace(can_force_tokens=True, has_tokenizer=False, param={"temperature": 0.0, "top_k": 1})
        self.is_doomed = self.is_gone = False
        self.unanswered = self.owed = 0
        self.owed_s = 0.0
        self.begun = 0
        self.last_job = 0
        self.signals: list[int] = []
        self.owner: Any = None

    def begun_job(self) -> int:
        return self.begun

    def send_signal(self, number: int) -> None:
        self.signals.append(int(number))

    def was_ended_from_outside(self) -> bool:
        return False

    def dying_of(self) -> int | None:
        return 11

    def last_log(self, lines: int = 10) -> list[str]:
        return []

    take_log = last_log
