"""One ZeroMQ socket on the asyncio loop: its FD is watched, and a bounded number of messages is drained at a time.

This costs a third of what ``zmq.asyncio`` does (docs/design.md).  The FD is edge-triggered: a send may swallow the edge
of a message that came meanwhile, so every send from outside the drain schedules one more look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import zmq

#: pyzmq's flags are enums, whose ``|`` costs more than sending does.
_NOBLOCK, _MORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)
_EVENTS, _POLLIN = int(zmq.EVENTS), int(zmq.POLLIN)
#: Messages handled before other events of the loop get their turn.
DRAIN_BUDGET = 256
#: A message that is tracked: frames of so many bytes and more are handed to ZeroMQ without a copy.
LARGE_BYTES = 4096


#: Channels that are being drained, and those that were sent through meanwhile: these are looked at when the outermost
#: drain ends, which is cheaper than one more turn of the loop.
_draining: list[Channel] = []
_touched: set[Channel] = set()


class PeerGone(Exception):
    """ROUTER_MANDATORY: no peer has this routing id (any more)."""


class PeerFull(Exception):
    """The peer's pipe is at its high-water mark; nothing was sent."""


class Channel:
    """Owns *socket*.  on_message: called with the frames of each message (``bytes``, or ``zmq.Frame`` if not copy)."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        socket: zmq.Socket[bytes],
        on_message: Callable[[list[Any]], None],
        *,
        copy: bool = True,
    ):
        self._loop = loop
        self.socket = socket
        socket.copy_threshold = LARGE_BYTES
        self._on_message = on_message
        self._copy = copy
        self._is_scheduled = False
        self._is_draining = False
        # The methods below pyzmq's convenience, which asks the socket for RCVMORE after each frame: 6 to 9 µs a message
        # of two frames against 1 to 2 (seen).
        below: Any = super(zmq.Socket, socket)
        self._recv: Callable[..., Any] = below.recv
        self._send: Callable[..., Any] = below.send
        self._get: Callable[[int], Any] = below.get
        self._is_router = socket.socket_type == zmq.ROUTER
        self._fd = socket.FD
        loop.add_reader(self._fd, self.drain)
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        self._is_scheduled = False
        if self._has_more():
            self.drain()

    def _receive(self) -> list[Any]:
        """One message.  Raises zmq.Again where none waits."""
        recv = self._recv
        parts: list[Any] = [recv(_NOBLOCK)] if self._is_router else []  # a routing id is never alone
        while True:
            frame = recv(_NOBLOCK, False)
            parts.append(frame.bytes if self._copy else frame)
            if not frame.more:
                return parts

    def drain(self) -> None:
        """Handle the messages that wait, at most ``DRAIN_BUDGET`` of them."""
        if self._is_draining or self.socket.closed:
            return
        self._is_draining = True
        _draining.append(self)
        receive, handle = self._receive, self._on_message
        try:
            handle(receive())
            if not self._has_more():  # most often there was one; to ask costs 3 µs, zmq.Again 8 (seen)
                return
            for _ in range(DRAIN_BUDGET):
                handle(receive())
            self._schedule()
        except zmq.Again:
            pass
        except BaseException:
            self._schedule()  # the loop's exception handler tells of it; later messages must not wait for an edge
            raise
        finally:
            self._is_draining = False
            _draining.remove(self)
            if _touched and not _draining:
                self._look_at_touched()

    @staticmethod
    def _look_at_touched() -> None:
        for channel in _touched:
            if channel._has_more():
                channel._schedule()
        _touched.clear()

    def _has_more(self) -> bool:
        return not self.socket.closed and bool(self._get(_EVENTS) & _POLLIN)

    def send(self, parts: Sequence[bytes], *, is_tracked: bool = False) -> zmq.MessageTracker | None:
        """Send one message without ever blocking.

        is_tracked: return a tracker, which is done when ZeroMQ holds nothing of the message any more.

        Raises:
            PeerGone, PeerFull: see there.
        """
        try:
            send = self._send
            if is_tracked:
                last = len(parts) - 1
                flags = [_NOBLOCK if index == last else _MORE for index in range(len(parts))]
                return zmq.MessageTracker(
                    *[send(part, flag, False, True) for part, flag in zip(parts, flags, strict=True)]
                )
            for part in parts[:-1]:
                send(part, _MORE)
            send(parts[-1], _NOBLOCK)
            return None
        except zmq.Again as error:
            raise PeerFull from error
        except zmq.ZMQError as error:
            if error.errno == zmq.EHOSTUNREACH:
                raise PeerGone from error
            raise
        finally:
            if not self._is_draining:
                if _draining:
                    _touched.add(self)
                else:
                    self._schedule()

    def close(self, linger_ms: int = 0) -> None:
        """Stop watching and close the socket.  linger_ms: how long what was not sent yet may take."""
        if not self.socket.closed:
            self._loop.remove_reader(self._fd)
            self.socket.close(linger=linger_ms)
