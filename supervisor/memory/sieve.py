"""Which samples of a life are kept: all the young ones, and of older ones the fewer the older they are.  Pure.

What matters of a moment is how long ago it was, in requests or in seconds, whichever tells more: samples are kept as
far apart as a share of that.  A busy minute then leaves as many as a quiet night, and a growth over the last few
hundred requests is seen in as many points as one over the last few hundred thousand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

#: Samples of one life at most; so many of them are the newest, as they came; a sifting makes room for so many more.
MOST, NEWEST, ROOM = 640, 240, 64
#: Shares of their age that old samples are kept apart, from the finest on, until there is room.
_FINEST, _COARSER = 1 / 512, 1.5


T = TypeVar("T")


class Kept(NamedTuple, Generic[T]):
    """A sample, in whatever form, and where it stands."""

    at_s: float
    requests: int
    sample: T


class Sieve(Generic[T]):
    """The samples of one life, oldest first."""

    def __init__(self, most: int = MOST, newest: int = NEWEST, room: int = ROOM):
        self._limits = (most, newest, room)
        self._kept: list[Kept[T]] = []

    def add(self, at_s: float, requests: int, sample: T) -> None:
        """Keep one more, the newest: neither *at_s* nor *requests* may fall."""
        most, newest, room = self._limits
        self._kept.append(Kept(at_s, requests, sample))
        share = _FINEST
        while len(self._kept) > most or (share > _FINEST and len(self._kept) > most - room):
            self._kept = sift(self._kept, newest, share)
            share *= _COARSER

    def samples(self) -> list[T]:
        """All that are kept."""
        return [one.sample for one in self._kept]

    def __len__(self) -> int:
        return len(self._kept)

    def shrink(self, most: int) -> None:
        """Keep at most *most*, evenly over its life; no sample is added after it."""
        kept = self._kept
        if len(kept) > most:
            self._kept = [kept[index * (len(kept) - 1) // (most - 1)] for index in range(most)]


def sift(kept: Sequence[Kept[T]], newest: int, share: float) -> list[Kept[T]]:
    """*kept* without those older than the *newest* that follow another by less than *share* of its age, in requests and
    in seconds.  The first one stays."""
    last = kept[-1]
    out = list(kept[:1])
    for one in kept[1:-newest]:
        before = out[-1]
        has_worked = one.requests - before.requests > share * (last.requests - before.requests)
        if has_worked or one.at_s - before.at_s > share * (last.at_s - before.at_s):
            out.append(one)
    return out + list(kept[max(1, len(kept) - newest) :])
