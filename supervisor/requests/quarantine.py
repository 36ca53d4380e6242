"""Payloads that ended every process that ran them, kept out for a while (design §6, 3).  Pure; times are passed in."""

from __future__ import annotations

from collections import OrderedDict

#: Payloads remembered; the oldest is forgotten first.
MAX_PAYLOADS = 10_000


class Quarantine:
    """ttl_s: how long a payload is refused; 0 refuses none."""

    def __init__(self, ttl_s: float):
        self.ttl_s = ttl_s
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._until)

    def add(self, digest: bytes, now_s: float, left_s: float | None = None) -> None:
        """Refuse *digest* from now on, for ``ttl_s``, or for what was left of it (at most ``ttl_s``)."""
        if self.ttl_s <= 0:
            return
        self._until[digest] = now_s + min(max(left_s, 0.0), self.ttl_s) if left_s is not None else now_s + self.ttl_s
        self._until.move_to_end(digest)
        while len(self._until) > MAX_PAYLOADS:
            self._until.popitem(last=False)

    def left_s(self, digest: bytes, now_s: float) -> float:
        """Seconds that *digest* is still refused; 0 where it is not."""
        until_s = self._until.get(digest)
        if until_s is None:
            return 0.0
        if until_s <= now_s:
            del self._until[digest]
            return 0.0
        return until_s - now_s

    def find(self, prefix: str) -> list[bytes]:
        """The digests that begin with *prefix*, in hex."""
        return [digest for digest in self._until if digest.hex().startswith(prefix)]

    def release(self, digest: bytes) -> bool:
        """Let *digest* run again.  Returns whether it was refused."""
        return self._until.pop(digest, None) is not None
