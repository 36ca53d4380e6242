"""The sessions of all principals: opened, found, closed, forgotten when unused.  Pure; times and ids are passed in.

A session is found only by the principal that opened it: to others its id is as unknown as one that never was, so that
nobody learns which there are.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import Generic, TypeVar

from rkvisor.protocol.errors import RateLimited
from rkvisor.supervisor.sessions.history import Limits, Session, Settings
from rkvisor.supervisor.sessions.lost import lost

#: An id as any rkvisord makes it: its epoch, and chance.
_ID = re.compile(r"s-\w+-\w+")

J = TypeVar("J")

#: Ids of sessions that are no more and whose end can still be told of.
MAX_GONE = 1000


class Store(Generic[J]):
    """epoch: of this rkvisord; ids begin with it, so that one of an earlier epoch is known as such."""

    def __init__(self, limits: Limits, epoch: str):
        self.limits = limits
        self._prefix = f"s-{epoch}-"
        self._sessions: dict[str, Session[J]] = {}
        self._gone: OrderedDict[tuple[str, str], str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def open(
        self,
        principal: str,
        model: str,
        settings: Settings,
        *,
        idle_timeout_s: float | None,
        max_turns: int | None,
        chance: str,
        now_s: float,
    ) -> Session[J]:
        """A new session.  chance: makes its id unique.  Raises RateLimited where the principal has too many."""
        count = len(self.of(principal, now_s))
        if count >= self.limits.sessions:
            text = f"{count} are open; the limit is {self.limits.sessions} ([limits] sessions)"
            way_out = "close one with session.close, or wait until one expires"
            raise RateLimited(f"cannot open another session: {text}; {way_out}", retry_after_ms=60_000)
        session: Session[J] = Session(
            id=self._prefix + chance,
            model=model,
            principal=principal,
            settings=settings,
            idle_timeout_s=min(idle_timeout_s or self.limits.idle_s, self.limits.idle_s),
            max_turns=min(max_turns or self.limits.turns, self.limits.turns),
            limits=self.limits,
            used_s=now_s,
        )
        self._sessions[session.id] = session
        return session

    def find(self, identifier: str, principal: str, now_s: float) -> Session[J]:
        """The session of that id.  Raises SessionLost, which says why there is none."""
        self.expire(now_s)
        session = self._sessions.get(identifier)
        if session is not None and session.principal == principal:
            return session
        reason = self._gone.get((principal, identifier))
        if reason is None:
            is_anothers = _ID.fullmatch(identifier) is not None and not identifier.startswith(self._prefix)
            reason = "restarted" if is_anothers else "unknown"
        raise lost(identifier, reason)

    def of(self, principal: str, now_s: float) -> list[Session[J]]:
        """The sessions of *principal*, oldest first."""
        self.expire(now_s)
        return [session for session in self._sessions.values() if session.principal == principal]

    def close(self, session: Session[J], reason: str = "closed") -> None:
        """Forget *session*.  Idempotent."""
        if self._sessions.pop(session.id, None) is None:
            return
        session.is_closed = True
        self._gone[(session.principal, session.id)] = reason
        while len(self._gone) > MAX_GONE:
            self._gone.popitem(last=False)

    def expire(self, now_s: float) -> list[Session[J]]:
        """Close what was unused for too long; returns it."""
        due = [one for one in self._sessions.values() if one.expires_s is not None and one.expires_s <= now_s]
        for session in due:
            self.close(session, "expired")
        return due

    def next_expiry_s(self) -> float | None:
        """When the next session expires if nothing happens; None: never."""
        return min((one.expires_s for one in self._sessions.values() if one.expires_s is not None), default=None)
