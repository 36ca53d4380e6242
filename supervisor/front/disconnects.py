"""Which client is behind which descriptor, so that the end of a connection becomes the end of its client.

``zmq_msg_get(ZMQ_SRCFD)`` of a message equals the fd of the monitor's DISCONNECTED event (seen: shared notes).  A
descriptor is used again by the next connection.  All events of the old one are in the monitor's pipe before the new
one's first message can be received (one I/O thread does both), so the monitor is drained before a new client is mapped.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable

import zmq

from rkvisor.supervisor.front.channel import Channel

_EVENT = struct.Struct("=HI")


class Disconnects:
    """Watches *socket*; calls on_gone with the routing id of a client whose connection ended."""

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: zmq.Socket[bytes], on_gone: Callable[[bytes], None]):
        self._on_gone = on_gone
        self._fd_of: dict[bytes, int] = {}
        self._keys_of: dict[int, set[bytes]] = {}
        address = f"inproc://disconnects-{id(socket)}"
        socket.monitor(address, zmq.EVENT_DISCONNECTED)
        monitor = socket.context.socket(zmq.PAIR)
        monitor.set(zmq.RCVHWM, 0)  # a full pipe would stop libzmq's I/O thread, and with it every socket (seen)
        monitor.set(zmq.LINGER, 0)
        monitor.connect(address)
        self._socket = socket
        self._channel = Channel(loop, monitor, self._on_event)

    def watch(self, key: bytes, frame: zmq.Frame) -> None:
        """*key* is new; *frame* is of its first message."""
        self._channel.drain()
        try:
            fd = int(frame.get(zmq.SRCFD))
        except zmq.ZMQError:
            return  # inproc, or a connection that ended meanwhile: sending to it will tell
        self._fd_of[key] = fd
        self._keys_of.setdefault(fd, set()).add(key)

    def forget(self, key: bytes) -> None:
        """*key* is of no interest any more."""
        fd = self._fd_of.pop(key, None)
        if fd is not None and fd in self._keys_of:
            self._keys_of[fd].discard(key)
            if not self._keys_of[fd]:
                del self._keys_of[fd]

    def _on_event(self, parts: list[bytes]) -> None:
        event, fd = _EVENT.unpack(parts[0])
        if event == zmq.EVENT_DISCONNECTED:
            for key in list(self._keys_of.get(fd, ())):
                self._on_gone(key)

    def close(self) -> None:
        """Stop watching."""
        self._socket.monitor(None, 0)
        self._channel.close()
