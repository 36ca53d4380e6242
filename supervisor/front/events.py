"""Events on the XPUB socket (design §6, requirements S4.6–S4.13): who listens learns what happens.

A message is two frames: the topic, and a JSON object with node, epoch, seq (counted over all topics), time and the
event's own members.  Topics: ``status``, ``worker``, ``notification``, ``error``, ``heartbeat``; a subscription to the
empty topic gets all.  Nothing is kept: a subscriber that is too slow loses events, and sees it by the gap in seq.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import zmq

from rkvisor.supervisor.clock import Clock
from rkvisor.supervisor.directories import open_to_group
from rkvisor.supervisor.front.channel import Channel

HEARTBEAT_S = 10.0


class Events:
    """Binds *endpoints* (none: everything is a no-op).  count_clients: how many are connected, for the heartbeat."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoints: Sequence[str],
        node: str,
        epoch: str,
    ):
        self._loop = loop
        self._clock = clock
        self._identity = {"node": node, "epoch": epoch}
        self._seq = itertools.count()
        self._channel: Channel | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.count_clients: Callable[[], int] = lambda: 0
        if endpoints:
            socket = context.socket(zmq.XPUB)
            socket.set(zmq.LINGER, 200)
            socket.set(zmq.SNDHWM, 1000)
            for endpoint in endpoints:
                socket.bind(endpoint)
                if endpoint.startswith("ipc://"):
                    open_to_group(endpoint)
            self._channel = Channel(loop, socket, lambda parts: None)
            self._timer = loop.call_later(HEARTBEAT_S, self._beat)

    def publish(self, topic: str, **members: Any) -> None:
        """Send one event.  members: JSON values."""
        if self._channel is None:
            return
        event = {**self._identity, "seq": next(self._seq), "time": round(self._clock.wall(), 3), **members}
        try:
            self._channel.socket.send_multipart([topic.encode(), msgspec.json.encode(event)], zmq.NOBLOCK)
        except zmq.Again:
            return

    def error(
        self, code: str, message: str, component: str, severity: str, details: str = "", data: Any = None
    ) -> None:
        """An ErrorEvent (S4.8).  code: a name of the catalogue or of S4.25.  severity: warning, error or critical."""
        timestamp = int(self._clock.wall())
        self.publish(
            "error",
            code=code,
            message=message,
            details=details,
            timestamp=timestamp,
            component=component,
            severity=severity,
            data=data,
        )

    def _beat(self) -> None:
        self._timer = self._loop.call_later(HEARTBEAT_S, self._beat)
        self.publish("heartbeat", timestamp=int(self._clock.wall()), clients_connected=self.count_clients())

    def close(self) -> None:
        """Close the socket; what was published has a moment to leave."""
        if self._timer is not None:
            self._timer.cancel()
        if self._channel is not None:
            self._channel.close(linger_ms=200)
