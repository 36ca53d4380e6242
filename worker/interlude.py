"""The pause of a run: asked for by the socket thread, taken in a callback, ended by a resume or an abort.

RKLLM pauses when its callback returns 1, F4 and F5 only; rkllm_run returns then, and the next one resumes (its facts,
§2).  Between the two the thread of the model does what is meant for a paused run, and nothing else: what else is to be
done waits until the run is over.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable
from typing import Any

#: What the model's callback returns to pause.
PAUSE = 1
_NORMAL, _FINISH = 0, 2
#: Calls that a paused run is there for.
_MEANT = ("rkllm.clear_kv_cache", "rkllm.get_kv_cache_size")


class Interlude:
    """todo: what the thread of the model is to do; items (what, details …)."""

    def __init__(self, todo: queue.SimpleQueue[tuple[Any, ...]]):
        self._todo = todo
        self._later: deque[tuple[Any, ...]] = deque()
        self._asked = (0, 0)
        self._taken = 0

    # For the socket thread.

    def ask(self, job: int, number: int) -> None:
        """Pause *job* at its next token.  number: of the pause, from 1, unlike any before."""
        self._asked = (job, number)

    # For the thread of the model.

    def next(self) -> tuple[Any, ...]:
        """What to do next."""
        return self._later.popleft() if self._later else self._todo.get()

    def begin(self) -> None:
        """A run begins, or goes on."""
        self._taken = 0

    def verdict(self, job: int, state: int) -> int:
        """What a callback of *job* returns, RKLLM's way: 1 to pause behind a whole character, 0 to go on."""
        if state == _FINISH:
            self._taken = 0
        elif state == _NORMAL and self._asked[0] == job:
            self._taken = self._asked[1]
            return PAUSE
        return 0

    @property
    def number(self) -> int:
        """Of the pause that was taken, 0: the run was not paused."""
        return self._taken

    def wait(self, job: int, call: Callable[..., None]) -> str | None:
        """Wait until the paused *job* may go on: the text that it goes on behind, or None where it was aborted.

        call: does a call that is meant for the paused run.
        """
        while True:
            item = self._todo.get()
            what, *details = item
            if what == "resume" and details[:2] == [job, self._taken]:
                if self._asked == (job, self._taken):
                    self._asked = (0, 0)
                text: str = details[2]
                return text
            if what == "aborted" and details == [job]:
                self._asked = (0, 0)
                return None
            if what == "call" and details[1] in _MEANT:
                call(*details)
            elif what not in ("resume", "aborted"):
                self._later.append(item)
