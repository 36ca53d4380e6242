"""Calls that processes were given and have not answered, and which of them processes die of.  Pure.

A call that is kept is given to every new process.  One that ends the process which does it would end each successor as
well, until the worker gives up; so deaths are charged to calls as they are to requests, and two are enough.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable

from rkvisor.supervisor.calls.configured import Call

#: Processes that died of a call, after which nobody is given it any more: as many as make a request poison.
POISON_DEATHS = 2


class Owed:
    """Processes answer calls in the order in which they were given."""

    def __init__(self) -> None:
        self._owed: dict[Hashable, deque[Call]] = {}
        self._deaths: dict[Call, int] = {}

    def sent(self, process: Hashable, call: Call) -> None:
        """*process* was given *call*."""
        self._owed.setdefault(process, deque()).append(call)

    def answered(self, process: Hashable) -> Call | None:
        """*process* answered the first of its calls: whatever the answer, it did not die of it.  Returns that call."""
        calls = self._owed.get(process)
        if not calls:
            return None
        call = calls.popleft()
        self._deaths.pop(call, None)
        return call

    def gone(self, process: Hashable, *, is_suspect: bool) -> Call | None:
        """*process* is gone.  is_suspect: it died, and not of a request.  Returns a call that is poison by now."""
        calls = self._owed.pop(process, None)
        if not calls or not is_suspect:
            return None
        call = calls[0]
        self._deaths[call] = self._deaths.get(call, 0) + 1
        if self._deaths[call] < POISON_DEATHS:
            return None
        del self._deaths[call]
        return call
