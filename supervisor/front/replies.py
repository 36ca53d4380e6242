"""Where answers go: a client's connection with its outbox, a request's reply, the replies of a batch array together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from rkvisor.protocol import jsonrpc
from rkvisor.supervisor.front.channel import Channel, PeerFull, PeerGone
from rkvisor.supervisor.front.pipe import Pipe


class Wire(Protocol):
    """What a connection needs of its frontend.  outbox_bytes: the most that waits for one connection."""

    channel: Channel
    outbox_bytes: int

    def gone(self, key: bytes) -> None: ...

    def drop_slow(self, connection: Connection) -> None: ...

    def flush_later(self, connection: Connection) -> None: ...


class Connection:
    """One client.  key: its routing id.  replies: those that streams or runs are still owed to.  owed: those that
    anything is still owed to."""

    def __init__(self, frontend: Wire, key: bytes, principal: str):
        self.frontend = frontend
        self.key = key
        self.principal = principal
        self.replies: set[Reply] = set()
        self.owed: set[Reply] = set()
        self.outbox: deque[list[bytes]] = deque()
        self.outbox_bytes = 0
        self.dropped_at_s: float | None = None
        self._pipe = Pipe(frontend.channel, frontend.outbox_bytes)

    def send(self, parts: list[bytes]) -> None:
        """Send, or keep for later; a client that leaves too much unread is dropped."""
        if self.dropped_at_s is not None:
            return
        if not self.outbox:
            try:
                self._pipe.send(parts)
            except PeerFull:
                pass
            except PeerGone:
                self.frontend.gone(self.key)
                return
            else:
                return
        self.keep(parts)
        # The next to leave may be of any size: whoever reads well may still ask for more than the bound at once.
        if self.outbox_bytes - sum(map(len, self.outbox[0])) > self.frontend.outbox_bytes:
            self.frontend.drop_slow(self)
        else:
            self.frontend.flush_later(self)

    def keep(self, parts: list[bytes]) -> None:
        """Put *parts* into the outbox."""
        self.outbox.append(parts)
        self.outbox_bytes += sum(map(len, parts))

    def flush(self) -> bool:
        """Send what is in the outbox, as far as it goes.  Returns whether any of it was sent, all of it or not.

        Raises:
            PeerGone: there is no such client any more.
        """
        has_sent = False
        try:
            while self.outbox:
                self._pipe.send(self.outbox[0])
                self.outbox_bytes -= sum(map(len, self.outbox.popleft()))
                has_sent = True
        except PeerFull:
            pass
        return has_sent

    def forgive(self) -> None:
        """Forget what waits, and serve it like a new client; what ZeroMQ holds for it still counts."""
        self.clear()
        self.dropped_at_s = None

    def clear(self) -> None:
        """Forget what waits in the outbox."""
        self.outbox.clear()
        self.outbox_bytes = 0


class Reply:
    """Where the answer to one request goes; a notification has none (``id`` None) and stays silent."""

    def __init__(self, connection: Connection, envelope: list[bytes], identifier: bytes | None, batch: Batch | None):
        self.connection = connection
        self.id = identifier
        self.batch = batch
        self.is_req = len(envelope) > 1
        self._envelope = envelope
        self.is_stream = False
        self.is_done = False
        self.abandon: Callable[[], None] | None = None

    def token(self, fragment: bytes) -> None:
        """Stream one token, if the request wanted a stream."""
        if self.is_stream and self.id is not None:
            self.connection.send([*self._envelope, jsonrpc.token_notification(self.id, fragment)])

    def progress(self, phase: str, queue_position: int, timeout_in_s: float | None) -> None:
        """Tell a streaming request why nothing comes; timeout_in_s: and how long that may last, where it is known."""
        if self.is_stream and self.id is not None:
            body = b'{"request":%b,"phase":"%b","queue_position":%d' % (self.id, phase.encode(), queue_position)
            body += b"}" if timeout_in_s is None else b',"timeout_in_s":%.3f}' % timeout_in_s
            self.connection.send([*self._envelope, jsonrpc.notification("rkvisor.progress", body)])

    def result(self, body: bytes, attachments: Sequence[bytes] = ()) -> None:
        """Answer with *body*, the JSON text of the result."""
        self._finish(b"" if self.id is None else jsonrpc.response(self.id, body), attachments)

    def error(self, body: bytes) -> None:
        """Answer with *body*, the JSON text of an error object."""
        self._finish(b"" if self.id is None else jsonrpc.error_response(self.id, body), ())

    def cut(self, body: bytes) -> None:
        """Answer with *body*, the JSON text of an error object, beyond the bound of the outbox."""
        parts = self._end(b"" if self.id is None else jsonrpc.error_response(self.id, body))
        if parts:
            self.connection.keep(parts)

    def _finish(self, message: bytes, attachments: Sequence[bytes]) -> None:
        parts = self._end(message)
        if parts:
            self.connection.send([*parts, *attachments])

    def _end(self, message: bytes) -> list[bytes]:
        """What is to be sent now that this is answered with *message*: nothing, where a batch waits for others."""
        if self.is_done:
            return []
        self.is_done = True
        self.connection.replies.discard(self)
        self.connection.owed.discard(self)
        if self.batch is not None:
            return self.batch.done(message)
        return [*self._envelope, message] if message else []


class Batch:
    """Collects the responses of one batch array: they go together when the last is there; nothing, if none is one."""

    def __init__(self, envelope: list[bytes], size: int):
        self._envelope = envelope
        self._left = size
        self._messages: list[bytes] = []

    def done(self, message: bytes) -> list[bytes]:
        """One element is answered; *message* is empty for a notification.  Returns what is to be sent now."""
        self._left -= 1
        if message:
            self._messages.append(message)
        if self._left or not self._messages:
            return []
        return [*self._envelope, b"[" + b",".join(self._messages) + b"]"]
