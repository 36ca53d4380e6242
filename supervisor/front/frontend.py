"""The sockets that clients connect to.  Which method does what is not its business.

A connection is a routing id of one ROUTER.  What cannot be sent at once waits in its outbox, bounded in bytes; a
client that reads too slowly gets SLOW_CLIENT for all that it is owed, in a place beyond that bound, and for what it
asks before it has read that; then it is served like a new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
import zmq
from loguru import logger

from rkvisor.protocol import jsonrpc
from rkvisor.protocol.errors import InternalError, RkvisorError, SlowClient, TooLarge
from rkvisor.protocol.limits import MAX_ATTACHMENTS
from rkvisor.supervisor.clock import Clock
from rkvisor.supervisor.directories import open_to_group
from rkvisor.supervisor.front.channel import Channel, PeerGone
from rkvisor.supervisor.front.disconnects import Disconnects
from rkvisor.supervisor.front.replies import Batch, Connection, Reply

#: First and longest wait before a full pipe is tried again, seconds.
FLUSH_S, FLUSH_MAX_S = 0.005, 0.25
#: How long a dropped client may take to read its last messages, and how much more it may be told meanwhile.
FAREWELL_S = 30.0
FAREWELL_BYTES = 64 * 1024
TURNED_AWAY = "cannot take a request of a client that does not read: read what waits, then ask again"


class Handler(Protocol):
    """Takes requests from a frontend; answers through the reply, at once or later."""

    def __call__(self, request: jsonrpc.Request, reply: Reply, attachments: list[bytes], is_admin: bool) -> None: ...


class Frontend:
    """One ROUTER for clients, or for the admin.  outbox_bytes: the most that waits for one connection."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoints: Sequence[str],
        handler: Handler,
        *,
        is_admin: bool = False,
        outbox_bytes: int,
        message_bytes: int,
        max_connections: int,
    ):
        self._loop = loop
        self._clock = clock
        self._handler = handler
        self._is_admin = is_admin
        self.outbox_bytes = outbox_bytes
        self._max_connections = max_connections
        self.connections: dict[bytes, Connection] = {}
        self.slow_drops = 0
        self._flush_s = FLUSH_S
        self._waiting: set[Connection] = set()
        self._flush_timer: asyncio.TimerHandle | None = None
        socket = context.socket(zmq.ROUTER)
        socket.set(zmq.ROUTER_MANDATORY, 1)
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.MAXMSGSIZE, message_bytes)
        self._disconnects = Disconnects(loop, socket, self.gone)
        for endpoint in sorted(endpoints, key=lambda one: one.startswith("tcp://")):
            if endpoint.startswith("tcp://"):  # socket options count for the binds behind them
                socket.set(zmq.HEARTBEAT_IVL, 5000)
                socket.set(zmq.HEARTBEAT_TIMEOUT, 10_000)
            socket.bind(endpoint)
            if endpoint.startswith("ipc://") and not is_admin:
                open_to_group(endpoint)
        self.channel = Channel(loop, socket, self._on_message, copy=False)

    # Messages in.

    def _on_message(self, frames: list[Any]) -> None:
        key: bytes = frames[0]
        connection = self.connections.get(key) or self._greet(key, frames[-1])
        if connection is None:
            return
        parts = [frame.bytes for frame in frames[1:]]
        envelope = [key]
        if len(parts) > 1 and not parts[0]:
            envelope.append(parts.pop(0))  # the empty delimiter of a REQ, or of a DEALER that speaks like one
        if connection.dropped_at_s is None:
            self._read(connection, envelope, parts[0], parts[1:])
        else:
            self._turn_away(connection, envelope, parts[0])

    def _greet(self, key: bytes, frame: zmq.Frame) -> Connection | None:
        """A routing id that is new: remember the descriptor that it came through, and so its end."""
        if len(self.connections) >= self._max_connections:
            logger.warning("refused a connection: there are {} already", len(self.connections))
            return None
        self._disconnects.watch(key, frame)
        connection = self.connections[key] = Connection(self, key, "local")
        return connection

    def _read(self, connection: Connection, envelope: list[bytes], body: bytes, attachments: list[bytes]) -> None:
        parsed = jsonrpc.parse(body)
        if len(attachments) > MAX_ATTACHMENTS:
            text = f"cannot take {len(attachments)} attachments: the limit of one message is {MAX_ATTACHMENTS}"
            parsed = jsonrpc.Invalid(id=jsonrpc.NULL, error=TooLarge(text))
        if not isinstance(parsed, list):
            self._take(parsed, connection, envelope, attachments, None)
            return
        batch = Batch(envelope, len(parsed))
        for one in parsed:
            self._take(one, connection, envelope, attachments, batch)

    def _take(
        self,
        one: jsonrpc.Request | jsonrpc.Invalid,
        connection: Connection,
        envelope: list[bytes],
        attachments: list[bytes],
        batch: Batch | None,
    ) -> None:
        reply = Reply(connection, envelope, one.id, batch)
        if connection.dropped_at_s is not None:  # by an element of the batch before it
            reply.cut(self._slow_body(TURNED_AWAY))
            return
        if isinstance(one, jsonrpc.Invalid):
            self.refuse(reply, one.error)
            return
        connection.owed.add(reply)
        try:
            self._handler(one, reply, attachments, self._is_admin)
        except RkvisorError as error:
            self.refuse(reply, error)
        except Exception as error:  # the loop guard: a fault of ours must not end as silence
            logger.exception("cannot handle {}", one.method)
            self.refuse(reply, InternalError(f"cannot handle {one.method}: {type(error).__name__}: {error}"))

    def refuse(self, reply: Reply, error: RkvisorError) -> None:
        """Answer with a catalogue error."""
        reply.error(msgspec.json.encode(error.to_object(self._clock.wall())))

    # Messages out that had to wait.

    def flush_later(self, connection: Connection) -> None:
        """*connection* has an outbox."""
        self._waiting.add(connection)
        if self._flush_timer is None:
            self._flush_timer = self._loop.call_later(self._flush_s, self._flush)

    def _flush(self) -> None:
        self._flush_timer = None
        has_sent = False
        for connection in list(self._waiting):
            has_sent |= self._flush_one(connection)
        self._flush_s = FLUSH_S if has_sent else min(self._flush_s * 2, FLUSH_MAX_S)
        if self._waiting and self._flush_timer is None:
            self._flush_timer = self._loop.call_later(self._flush_s, self._flush)

    def _flush_one(self, connection: Connection) -> bool:
        try:
            has_sent = connection.flush()
        except PeerGone:
            self.gone(connection.key)
            return False
        dropped_at_s = connection.dropped_at_s
        if not connection.outbox:
            self._waiting.discard(connection)
            if dropped_at_s is not None:  # it has read why
                self.gone(connection.key)
        elif dropped_at_s is not None and self._clock.monotonic() - dropped_at_s > FAREWELL_S:
            self._waiting.discard(connection)
            connection.forgive()
        return has_sent

    def drop_slow(self, connection: Connection) -> None:
        """End what *connection* is owed with SLOW_CLIENT, behind what waits for it already."""
        self.slow_drops += 1
        waiting = f"{connection.outbox_bytes} bytes wait; the limit is {self.outbox_bytes}"
        logger.warning("dropped slow client {!r}: {}", connection.key, waiting)
        body = self._slow_body(f"cannot keep up with a client that does not read: {waiting}; read them, then ask again")
        owed = list(connection.owed)
        connection.dropped_at_s = self._clock.monotonic()
        for reply in owed:
            reply.cut(body)
        for reply in owed:  # behind the others' ends: an abort may end more than its own
            if reply.abandon is not None:
                reply.abandon()
        self.flush_later(connection)

    def _slow_body(self, text: str) -> bytes:
        return msgspec.json.encode(SlowClient(text).to_object(self._clock.wall()))

    def _turn_away(self, connection: Connection, envelope: list[bytes], body: bytes) -> None:
        """A message of a client that was dropped and has not read yet why: told so again, while there is room."""
        if connection.outbox_bytes > self.outbox_bytes + FAREWELL_BYTES:
            return
        text = self._slow_body(TURNED_AWAY)
        parsed = jsonrpc.parse(body)
        ids = [one.id for one in (parsed if isinstance(parsed, list) else [parsed]) if one.id is not None]
        answers = [jsonrpc.error_response(one, text) for one in ids]
        if answers:
            connection.keep([*envelope, b"[" + b",".join(answers) + b"]" if isinstance(parsed, list) else answers[0]])

    def gone(self, key: bytes) -> None:
        """The client behind *key* is gone: what it waited for is abandoned."""
        connection = self.connections.pop(key, None)
        if connection is None:
            return
        self._disconnects.forget(key)
        self._waiting.discard(connection)
        owed, connection.owed = connection.owed, set()
        connection.replies.clear()
        connection.clear()
        connection.dropped_at_s = connection.dropped_at_s or self._clock.monotonic()
        for reply in owed:
            reply.is_done = True
            if reply.abandon is not None:
                reply.abandon()

    @property
    def is_flushed(self) -> bool:
        """Whether nothing waits to be sent."""
        return not self._waiting

    def close(self) -> None:
        """Close the sockets."""
        if self._flush_timer is not None:
            self._flush_timer.cancel()
        self._disconnects.close()
        self.channel.close()
