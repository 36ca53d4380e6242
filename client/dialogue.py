"""The conversation of one client with one server, without socket and without clock: what to send, what it means.

It decides which answer belongs to which call, what is asked again after a connection was lost, which tokens of a
replayed stream the caller has had already, and when a call has waited too long.  It refuses to know sockets, threads
and event loops: shells (``blocking.py``, ``aio.py``) tell it what happened and when (monotonic seconds), send what
stands in ``outgoing`` (a message, or one with its attachments) and look at what became of each ``Exchange``.

On every new connection it first asks ``system.version``; nothing else is sent before the answer.  The answer's epoch
tells whether rkvisord was restarted.  Calls with a request_key are then asked again, each under a fresh id, so that a
late message of the old connection is never mistaken for one of the new; calls without a key ended in ConnectionLost
when the connection did, because their answers were on their way to a peer that no longer exists.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from enum import Enum
from typing import Any

import msgspec

from rkvisor.client.errors import CallTimeout, ConnectionLost, NoServer
from rkvisor.client.exchange import Exchange
from rkvisor.client.replies import Note, Reply, Token, parse
from rkvisor.client.tensors import pack
from rkvisor.protocol.errors import InvalidParams, RkvisorError, TooLarge, from_object
from rkvisor.protocol.limits import MAX_JSON_BYTES

_encode = msgspec.json.Encoder().encode


class Phase(Enum):
    """OFFLINE: no connection.  GREETING: connected, epoch not yet known.  READY: calls are sent as they come."""

    OFFLINE = "offline"
    GREETING = "greeting"
    READY = "ready"


class Dialogue:
    """endpoint: only for messages.  connect_timeout_s, reconnect_timeout_s: how long a call may wait for a server
    that never answered yet, or that went away (None: for ever)."""

    def __init__(self, endpoint: str, *, connect_timeout_s: float | None, reconnect_timeout_s: float | None) -> None:
        self.endpoint = endpoint
        self.phase = Phase.OFFLINE
        self.epoch: str | None = None
        self.outgoing: deque[bytes | tuple[bytes, ...]] = deque()
        self.unreachable_because = ""
        self._connect_timeout_s = connect_timeout_s
        self._reconnect_timeout_s = reconnect_timeout_s
        self._was_ready = False
        self._last_id = 0
        self._greeting: bytes | None = None
        self._unsent: list[Exchange] = []
        self._sent: dict[bytes, Exchange] = {}
        self._changed: dict[Exchange, None] = {}
        #: When ``tick`` is due at the latest.  It may be too early, never too late, so that it costs nothing a token.
        self.next_deadline = math.inf

    # What the user wants

    def ask(self, method: str, params: dict[str, Any], *, now: float, timeout_s: float | None = None) -> Exchange:
        """Begin a call.  params: as they go on the wire, except that buffers in them become attachments; a run with a
        request_key can be asked again.

        Raises:
            InvalidParams: params that cannot be written as JSON text (a lone surrogate).
            TooLarge: more JSON than any server takes.
        """
        key = params.get("request_key") if method == "rkllm.run" else None
        attachments: list[bytes] = []
        body = _body(method, pack(params, attachments))
        exchange = Exchange(method=method, body=body, key=key, unsent_since=now, attachments=tuple(attachments))
        if timeout_s is not None:
            exchange.timeout_s = timeout_s
            exchange.deadline = now + timeout_s
        if self.phase is Phase.READY:
            self._send(exchange)
        else:
            self._unsent.append(exchange)
        self._expect(exchange)
        return exchange

    def abort(self, exchange: Exchange) -> None:
        """Ask the server to end a run; its answer still comes, with finish_reason "abort"."""
        if exchange.is_over or exchange.is_aborting:
            return
        exchange.is_aborting = True
        if exchange.wire_id is not None:
            self._send_abort(exchange.wire_id)

    def leave(self, exchange: Exchange) -> None:
        """The caller no longer wants the answer: a run that may still go on is aborted, the rest is forgotten."""
        if exchange.is_over:
            return
        if exchange.wire_id is not None:
            del self._sent[exchange.wire_id]
            if exchange.is_run and not exchange.is_aborting:
                self._send_abort(exchange.wire_id)
            exchange.wire_id = None
        else:
            self._unsent.remove(exchange)
        exchange.is_over = True
        exchange.tokens.clear()
        exchange.notes.clear()

    def close(self) -> None:
        """The client is closed: every open call ends in ConnectionLost."""
        for exchange in self._live():
            text = f"cannot get the answer of {exchange.method}: the client was closed"
            self._fail(exchange, ConnectionLost(text, component="client"))
        self.outgoing.clear()

    # What happened

    def connected(self, now: float) -> None:
        """A connection was made: ask who is there."""
        if self.phase is not Phase.OFFLINE:
            self.disconnected(now)  # nobody told of the end of the one before
        self.phase = Phase.GREETING
        self._greeting = self._next_id()
        self.outgoing.append(_message(self._greeting, _body("system.version", {})))

    def disconnected(self, now: float) -> None:
        """The connection is gone, with all that was still to be sent."""
        self.phase = Phase.OFFLINE
        self._greeting = None
        self.outgoing.clear()
        orphans = list(self._sent.values())
        self._sent.clear()
        for exchange in orphans:
            exchange.wire_id = None
            if exchange.key is None:
                text = f"cannot get the answer of {exchange.method}: the connection to {self.endpoint} was lost"
                self._fail(exchange, ConnectionLost(text, component="client"))
            else:
                exchange.unsent_since = now
                self._expect(exchange)
        self._unsent = [exchange for exchange in orphans if not exchange.is_over] + self._unsent

    def received(self, frame: bytes, attachments: Sequence[bytes] = ()) -> None:
        """A message came.  What belongs to no open call is dropped: it answers something already left."""
        match parse(frame):
            case Reply() as reply:
                self._answered(reply, attachments)
            case Note(request, news):
                exchange = self._sent.get(request)
                if exchange is None:
                    return
                if not isinstance(news, Token):
                    exchange.hear(news)
                    self._changed[exchange] = None
                elif problem := exchange.take(news):
                    self._send_abort(request)
                    self._fail(exchange, ConnectionLost(f"{problem} ({self.endpoint})", component="client"))
                else:
                    self._changed[exchange] = None

    def tick(self, now: float) -> None:
        """Time passed: end what has waited too long."""
        if now < self.next_deadline:
            return
        self.next_deadline = math.inf
        for exchange in self._live():
            if exchange.deadline <= now:
                text = f"cannot wait longer than {exchange.timeout_s:g} s for {exchange.method} of {self.endpoint}"
                self.leave(exchange)
                self._fail(exchange, CallTimeout(text, component="client"))
            elif exchange.wire_id is None and self._gives_up_at(exchange) <= now:
                self._fail(exchange, self._unreachable())
            else:
                self._expect(exchange)

    def take_changed(self) -> list[Exchange]:
        """The calls that have news since the last look."""
        changed, self._changed = list(self._changed), {}
        return changed

    # Inside

    def _live(self) -> list[Exchange]:
        return [*self._sent.values(), *self._unsent]

    def _expect(self, exchange: Exchange) -> None:
        waits_until = self._gives_up_at(exchange) if exchange.wire_id is None else math.inf
        self.next_deadline = min(self.next_deadline, exchange.deadline, waits_until)

    def _gives_up_at(self, exchange: Exchange) -> float:
        limit_s = self._reconnect_timeout_s if self._was_ready else self._connect_timeout_s
        return math.inf if limit_s is None else exchange.unsent_since + limit_s

    def _unreachable(self) -> RkvisorError:
        if self.phase is Phase.GREETING:
            why = "it is connected but does not answer"
        else:
            why = self.unreachable_because or "no connection"
        text = f"cannot reach rkvisord at {self.endpoint}: {why}"
        if self._was_ready:
            return ConnectionLost(f"{text}; the connection was lost", component="client")
        return NoServer(text, component="client")

    def _answered(self, reply: Reply, attachments: Sequence[bytes]) -> None:
        if reply.id == self._greeting:
            self._greeted(reply)
            return
        exchange = self._sent.get(reply.id)
        if exchange is None and reply.id == b"null" and len(self._sent) == 1:
            # The server could not even read the id, so it must be the only request there is.
            exchange = next(iter(self._sent.values()))
        if exchange is None:
            return
        if reply.error is not None:
            self._fail(exchange, from_object(reply.error))
        elif problem := exchange.missing():
            self._fail(exchange, ConnectionLost(f"{problem} ({self.endpoint})", component="client"))
        else:
            exchange.result, exchange.replied = reply.result, attachments
            self._end(exchange)

    def _greeted(self, reply: Reply) -> None:
        """The server said who it is.  One that cannot say (an error) is taken for a new epoch."""
        self._greeting = None
        version: Any = msgspec.json.decode(reply.result) if reply.result is not None else None
        self.epoch = version.get("epoch") if isinstance(version, dict) else None
        self.phase, self._was_ready = Phase.READY, True
        unsent, self._unsent = self._unsent, []
        for exchange in unsent:
            self._send(exchange)

    def _send(self, exchange: Exchange) -> None:
        exchange.wire_id = self._next_id()
        exchange.replayed = 0
        exchange.asks += 1
        self._sent[exchange.wire_id] = exchange
        self._changed[exchange] = None
        message = _message(exchange.wire_id, exchange.body)
        self.outgoing.append((message, *exchange.attachments) if exchange.attachments else message)
        if exchange.is_aborting:
            self._send_abort(exchange.wire_id)

    def _send_abort(self, wire_id: bytes) -> None:
        body = _body("rkllm.abort", {"request": int(wire_id)})
        self.outgoing.append(_message(self._next_id(), body))

    def _next_id(self) -> bytes:
        self._last_id += 1
        return b"%d" % self._last_id

    def _fail(self, exchange: Exchange, error: RkvisorError) -> None:
        exchange.error = error
        self._end(exchange)

    def _end(self, exchange: Exchange) -> None:
        if exchange.wire_id is not None:
            self._sent.pop(exchange.wire_id, None)
            exchange.wire_id = None
        elif exchange in self._unsent:
            self._unsent.remove(exchange)
        exchange.is_over = True
        self._changed[exchange] = None


def _body(method: str, params: dict[str, Any]) -> bytes:
    """The request without its id and braces."""
    try:
        text = _encode({"method": method, "params": params})[1:-1]
    except UnicodeEncodeError as error:
        raise InvalidParams(f"cannot send the params of {method}: {error}", component="client") from error
    if len(text) + 64 > MAX_JSON_BYTES:
        raise TooLarge(f"cannot send {len(text)} bytes of JSON: the limit is {MAX_JSON_BYTES}", component="client")
    return text


def _message(wire_id: bytes, body: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","id":%b,%b}' % (wire_id, body)
