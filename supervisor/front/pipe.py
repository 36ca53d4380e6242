"""The way to one peer, bounded in bytes.

ZeroMQ's high-water mark counts messages, of whatever size: a thousand answers of 40 KB are 40 MB for a peer that does
not read.  So large messages are tracked until ZeroMQ has passed them to the kernel; small ones are left to the mark.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import zmq

from rkvisor.supervisor.front.channel import LARGE_BYTES, Channel, PeerFull


class Pipe:
    """most_bytes: of large messages, what ZeroMQ may hold when one more is sent."""

    def __init__(self, channel: Channel, most_bytes: int):
        self._channel = channel
        self._most_bytes = most_bytes
        self._held: deque[tuple[zmq.MessageTracker, int]] = deque()
        self._held_bytes = 0

    def send(self, parts: Sequence[bytes]) -> None:
        """Send one message without ever blocking.

        Raises:
            PeerFull: nothing was sent: too many bytes or messages wait to leave.
            PeerGone: there is no such peer any more.
        """
        size = sum(map(len, parts))
        if size < LARGE_BYTES:
            self._channel.send(parts)
            return
        if self._still_held_bytes() > self._most_bytes:
            raise PeerFull
        tracker = self._channel.send(parts, is_tracked=True)
        assert tracker is not None
        self._held.append((tracker, size))
        self._held_bytes += size

    def _still_held_bytes(self) -> int:
        while self._held and self._held[0][0].done:
            self._held_bytes -= self._held.popleft()[1]
        return self._held_bytes
