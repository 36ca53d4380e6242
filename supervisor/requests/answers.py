"""Answers kept by request_key: run once, the same answer (design §6).  Pure; the clock is passed in.

An entry is running (it holds the job) or done (it holds what was sent).  Done entries live ``ttl_s`` and in bounded
memory: the oldest go first.  Failures that a client should retry are not kept, so that asking again runs again.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

J = TypeVar("J")
Key = tuple[str, str]  # principal, request_key

#: Bookkeeping of one entry beside its bytes, for the bound on memory: a generous guess.
ENTRY_BYTES = 512
#: Bookkeeping of one kept fragment: a bytes object's header and the list's slot.
FRAGMENT_BYTES = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was sent.  fragments: of every token, in order.  body: JSON text of the result or of the error object."""

    digest: bytes
    fragments: tuple[bytes, ...]
    body: bytes
    is_error: bool
    expires_s: float

    @property
    def size_bytes(self) -> int:
        """About what the entry holds in memory."""
        return ENTRY_BYTES + len(self.body) + sum(len(part) + FRAGMENT_BYTES for part in self.fragments)


class Answers(Generic[J]):
    """ttl_s: how long a finished answer is kept.  max_bytes: of all finished answers together."""

    def __init__(self, ttl_s: float, max_bytes: int):
        self.ttl_s = ttl_s
        self.max_bytes = max_bytes
        self._running: dict[Key, tuple[bytes, J]] = {}
        self._done: OrderedDict[Key, Answer] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._running) + len(self._done)

    @property
    def size_bytes(self) -> int:
        """Bytes of all finished answers."""
        return self._bytes

    def lookup(self, key: Key, now_s: float) -> tuple[bytes, J | Answer] | None:
        """The digest and the job or answer under *key*, or None."""
        self._expire(now_s)
        if key in self._running:
            return self._running[key]
        answer = self._done.get(key)
        return None if answer is None else (answer.digest, answer)

    def begin(self, key: Key, digest: bytes, job: J) -> None:
        """*job* runs under *key*; the caller has looked the key up."""
        self._running[key] = (digest, job)

    def forget(self, key: Key, job: J) -> None:
        """*job* ended, or was abandoned: asking again should run again.

        Another job under *key* stays: an abandoned one may end long after its key was used again.
        """
        if self._is_of(key, job):
            del self._running[key]

    def finish(self, key: Key, job: J, fragments: list[bytes], body: bytes, *, is_error: bool, now_s: float) -> None:
        """*job* ended; keep what was sent, if *key* is still its own."""
        if not self._is_of(key, job):
            return
        digest, _ = self._running.pop(key)
        expires_s = now_s + self.ttl_s
        answer = Answer(digest=digest, fragments=tuple(fragments), body=body, is_error=is_error, expires_s=expires_s)
        self._done[key] = answer
        self._bytes += answer.size_bytes
        self._expire(now_s)
        while self._bytes > self.max_bytes and self._done:
            self._drop(next(iter(self._done)))

    def _is_of(self, key: Key, job: J) -> bool:
        running = self._running.get(key)
        return running is not None and running[1] is job

    def _expire(self, now_s: float) -> None:
        while self._done:
            key, answer = next(iter(self._done.items()))
            if answer.expires_s > now_s:
                return
            self._drop(key)

    def _drop(self, key: Key) -> None:
        self._bytes -= self._done.pop(key).size_bytes
