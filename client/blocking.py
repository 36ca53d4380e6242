"""``Client``: the blocking client.  Use each object from one thread; threads take a client each.

A call pumps the socket until its own answer is there; answers to other open streams are kept meanwhile.  Nothing
happens between calls, so a connection lost in between is noticed, and made good, by the next call.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Self, TypeVar

import msgspec
import zmq

from rkvisor.client.dialogue import Dialogue
from rkvisor.client.endpoint import CLIENTS, find
from rkvisor.client.errors import ConnectionLost
from rkvisor.client.exchange import Exchange
from rkvisor.client.replies import Progress, Token, decode_result
from rkvisor.client.session import Session
from rkvisor.client.stream import StreamBase, outcome
from rkvisor.client.tensors import Result, unpack
from rkvisor.client.wire import Keys, Wire
from rkvisor.protocol.methods import (
    AbortResult,
    ModelEntry,
    ModelList,
    PauseResult,
    ResumeResult,
    SystemStatus,
    SystemVersion,
)

T = TypeVar("T")

CONNECT_TIMEOUT_S = 5.0
RECONNECT_TIMEOUT_S = 30.0
CONTROL_TIMEOUT_S = 30.0


class Client:
    """A connection to one rkvisord.

    endpoint: ``tcp://HOST:PORT`` or ``ipc://PATH``; None looks at $RKVISOR_ENDPOINT, *config*, ./rkvisor.toml and
    /etc/rkvisor/rkvisor.toml.  connect_timeout_s, reconnect_timeout_s: how long a call waits for a server that is not
    there yet (NoServer), or went away (ConnectionLost); None is for ever.  keys: for a server that wants CURVE.

    Every method raises what the server answers (``protocol.errors``), ConnectionLost, CallTimeout after *timeout_s*
    seconds (None: never), UnreadableReply.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        config: str | None = None,
        connect_timeout_s: float | None = CONNECT_TIMEOUT_S,
        reconnect_timeout_s: float | None = RECONNECT_TIMEOUT_S,
        keys: Keys | None = None,
    ) -> None:
        self.endpoint = find(CLIENTS, endpoint, config)
        self._dialogue = Dialogue(
            self.endpoint, connect_timeout_s=connect_timeout_s, reconnect_timeout_s=reconnect_timeout_s
        )
        self._wire = Wire(self.endpoint, keys)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()

    def close(self) -> None:
        """End all open calls and the connection; the server aborts what still runs.  Idempotent."""
        self._dialogue.close()
        self._wire.close()

    def run(
        self, *, model: str, timeout_s: float | None = None, request_key: str | None = None, **params: Any
    ) -> Result:
        """One inference, answered as a whole.  params: those of ``rkllm.run``, e.g. prompt, max_new_tokens, stop.

        Tensors among them (``embed``) are anything with the buffer protocol, NumPy's arrays too.
        """
        exchange = self._begin_run({"model": model, **params}, request_key, timeout_s)
        answer = decode_result(Result, "rkllm.run", self._answer(exchange))
        return unpack(answer, exchange.replied)

    def stream(
        self,
        *,
        model: str,
        timeout_s: float | None = None,
        request_key: str | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        **params: Any,
    ) -> Stream:
        """One inference, token by token; returns when the request is on its way, not before.

        on_progress: told why nothing comes (``Progress``).
        """
        exchange = self._begin_run({"model": model, **params, "stream": True}, request_key, timeout_s)
        self._wait_while(exchange, lambda: not exchange.asks and not exchange.is_over)
        return Stream(self, exchange, on_progress)

    def session(self, *, model: str, timeout_s: float | None = CONTROL_TIMEOUT_S, **params: Any) -> Session:
        """Open a conversation.  params: more of ``session.open``, e.g. chat_template, idle_timeout_s, on_lost."""
        return Session(self, {"model": model, **params}, timeout_s)

    def abort(self, request_key: str, *, timeout_s: float | None = CONTROL_TIMEOUT_S) -> bool:
        """End the request of that key, whoever of this principal asked it.  False when none was running."""
        params = {"request_key": request_key}
        return self._typed(AbortResult, "rkllm.abort", params, timeout_s).aborted

    def pause(self, request_key: str, *, timeout_s: float | None = CONTROL_TIMEOUT_S) -> bool:
        """Have the request of that key stand still behind its next token.  False when it ended first, or none runs."""
        params = {"request_key": request_key}
        return self._typed(PauseResult, "rkllm.pause", params, timeout_s).paused

    def resume(self, request_key: str, *, prompt: str = "", timeout_s: float | None = CONTROL_TIMEOUT_S) -> bool:
        """Let the paused request of that key go on, behind *prompt* if there is any.  False when it was not paused."""
        params = {"request_key": request_key, "prompt": prompt}
        return self._typed(ResumeResult, "rkllm.resume", params, timeout_s).resumed

    def call(
        self, method: str, params: dict[str, Any] | None = None, *, timeout_s: float | None = CONTROL_TIMEOUT_S
    ) -> Any:
        """Any method; the result as plain Python objects.  It has no request_key, so it is never asked twice."""
        return msgspec.json.decode(self._result(method, params or {}, timeout_s))

    def version(self, *, timeout_s: float | None = CONTROL_TIMEOUT_S) -> SystemVersion:
        return self._typed(SystemVersion, "system.version", {}, timeout_s)

    def status(self, *, timeout_s: float | None = CONTROL_TIMEOUT_S) -> SystemStatus:
        return self._typed(SystemStatus, "system.status", {}, timeout_s)

    def models(self, *, timeout_s: float | None = CONTROL_TIMEOUT_S) -> list[ModelEntry]:
        return self._typed(ModelList, "model.list", {}, timeout_s).models

    def _typed(self, kind: type[T], method: str, params: dict[str, Any], timeout_s: float | None) -> T:
        return decode_result(kind, method, self._result(method, params, timeout_s))

    def _result(self, method: str, params: dict[str, Any], timeout_s: float | None) -> bytes:
        return self._answer(self._begin(method, params, timeout_s))

    def _begin_run(self, params: dict[str, Any], key: str | None, timeout_s: float | None) -> Exchange:
        return self._begin("rkllm.run", {**params, "request_key": key or str(uuid.uuid4())}, timeout_s)

    def _begin(self, method: str, params: dict[str, Any], timeout_s: float | None) -> Exchange:
        self._pump()  # first hear whether the connection still stands
        exchange = self._dialogue.ask(method, params, now=time.monotonic(), timeout_s=timeout_s)
        self._pump()
        return exchange

    def _answer(self, exchange: Exchange) -> bytes:
        self._wait_while(exchange, lambda: not exchange.is_over)
        return outcome(exchange)

    def _wait_while(
        self, exchange: Exchange, condition: Callable[[], bool], look: Callable[[], None] | None = None
    ) -> None:
        """Wait, and *look* at what came; leaving through an exception (Ctrl-C) aborts the request."""
        try:
            while True:
                if look is not None:
                    look()
                if not condition():
                    return
                self._wait()
        except BaseException:
            self._leave(exchange)
            raise

    def _abort(self, exchange: Exchange) -> None:
        self._dialogue.abort(exchange)
        self._pump()

    def _leave(self, exchange: Exchange) -> None:
        if not exchange.is_over and not self._wire.socket.closed:
            self._dialogue.leave(exchange)
            self._pump()

    def _pump(self) -> None:
        if self._wire.socket.closed:
            raise ConnectionLost("cannot use this client: it was closed", component="client")
        while self._wire.pump(self._dialogue, time.monotonic()):
            pass

    def _wait(self) -> None:
        """Pump once, then block until something happens or a call has waited long enough."""
        self._pump()
        if self._dialogue.take_changed():
            return
        flags = zmq.POLLIN | (zmq.POLLOUT if self._dialogue.outgoing else 0)
        remaining_s = self._dialogue.next_deadline - time.monotonic()
        timeout_ms = -1 if math.isinf(remaining_s) else max(0, math.ceil(remaining_s * 1000))
        zmq.zmq_poll([(self._wire.socket, flags), (self._wire.monitor, zmq.POLLIN)], timeout_ms)


class Stream(StreamBase):
    """The tokens of one inference, as an iterator; ``result`` is there after the last.

    Leaving the loop early (``break``, an exception, ``close()``) aborts the request on the server.  ``abort()`` asks
    for the same but lets the stream run out, so that ``result`` tells what came.  The stream survives a restart of
    rkvisord or a lost connection: it is asked again by its request_key, and goes on where it was.
    """

    def __init__(self, client: Client, exchange: Exchange, on_progress: Callable[[Progress], None] | None) -> None:
        super().__init__(client, exchange, on_progress)
        self._client = client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()

    def pause(self, *, timeout_s: float | None = CONTROL_TIMEOUT_S) -> bool:
        """As ``Client.pause``; tokens that came before it stands still can be read meanwhile."""
        return self._client.pause(self.request_key, timeout_s=timeout_s)

    def resume(self, *, prompt: str = "", timeout_s: float | None = CONTROL_TIMEOUT_S) -> bool:
        """As ``Client.resume``."""
        return self._client.resume(self.request_key, prompt=prompt, timeout_s=timeout_s)

    def __iter__(self) -> Iterator[Token]:
        try:
            while True:
                try:
                    token = next(self)
                except StopIteration:
                    return
                yield token
        finally:
            self.close()

    def __next__(self) -> Token:
        exchange = self._exchange
        if exchange.notes or not exchange.tokens:
            self._client._wait_while(
                exchange, lambda: not exchange.tokens and not exchange.is_over, self._tell_progress
            )
        if exchange.tokens:
            return exchange.tokens.popleft()
        if exchange.error is not None:
            raise exchange.error
        raise StopIteration
