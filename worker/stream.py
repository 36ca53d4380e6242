"""From the runtime's callbacks to the groups of tokens that are sent: UTF-8, stop strings, muting, counting.  Pure.

A group is one or more token ids that became text together.  A token that ends inside a character waits for the one that
completes it, and text that may be the beginning of a stop string waits until that is decided; so between two groups
there is never half a character nor half a stop string, and a stream can be cut and resumed there (design §4).
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Group:
    """ids: at least one.  text: what they became, "" where a stop string swallowed it."""

    ids: tuple[int, ...]
    text: str


class Diverged(Exception):
    """A muted rerun gave another token than the stream that it should continue."""


class Stream:
    """One request's output.

    stop: strings that end it.  limit: tokens in all, those of earlier attempts included.  ids: tokens that earlier
    attempts streamed.  is_muted: the runtime will generate these again; otherwise it was told to take them as given.
    """

    def __init__(
        self, stop: Sequence[str] = (), limit: int = 2**31, ids: Sequence[int] = (), *, is_muted: bool = False
    ):
        self._stop = tuple(stop)
        self._limit = limit
        self._expected = list(ids) if is_muted else []
        self._muted = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._ids: list[int] = []
        self._text = ""
        self.count = 0 if is_muted else len(ids)
        self.is_stopped = False

    @property
    def is_full(self) -> bool:
        """Whether the limit is reached."""
        return self.count >= self._limit

    @property
    def is_over(self) -> bool:
        """Whether nothing more will be taken."""
        return self.is_stopped or self.is_full

    def feed(self, token_id: int, text: bytes, *, is_waiting: bool = False) -> Group | None:
        """Take one callback; return what can be sent now.

        Raises:
            Diverged: the token is not the one that was streamed at this place.
        """
        if self.is_over:
            return None
        self.count += 1
        if self._muted < len(self._expected):
            if token_id != self._expected[self._muted]:
                raise Diverged(
                    f"token {self._muted} is {token_id} in the rerun, but {self._expected[self._muted]} was streamed"
                )
            self._muted += 1
            return None
        self._ids.append(token_id)
        self._text += self._decoder.decode(text, final=self.is_full)
        if self._cut_at_stop():
            return None
        if not self.is_full and (is_waiting or self._has_half_character() or self._may_be_stop()):
            return None
        return self._release()

    def finish(self) -> Group | None:
        """The runtime is done: release what was held back."""
        if not self.is_stopped:
            self._text += self._decoder.decode(b"", final=True)
            self._cut_at_stop()
        return self._release() if self._ids else None

    def _release(self) -> Group:
        group = Group(tuple(self._ids), self._text)
        self._ids, self._text = [], ""
        return group

    def _cut_at_stop(self) -> bool:
        """Whether a stop string is there; the text then ends before it.

        The group that completes it stays until ``finish``: a stream that was cut behind it and resumed would not know
        that it is over.
        """
        end = self._find_stop()
        if end is not None:
            self._text = self._text[:end]
            self.is_stopped = True
        return self.is_stopped

    def _has_half_character(self) -> bool:
        return bool(self._decoder.getstate()[0])

    def _find_stop(self) -> int | None:
        found = [at for at in (self._text.find(stop) for stop in self._stop) if at >= 0]
        return min(found, default=None)

    def _may_be_stop(self) -> bool:
        """Whether the text ends in the beginning of a stop string."""
        return any(
            self._text.endswith(stop[:size])
            for stop in self._stop
            for size in range(1, min(len(stop), len(self._text) + 1))
        )
