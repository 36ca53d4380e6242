"""``AsyncClient``: the client for asyncio.  Any number of calls at a time, all from the one event loop.

The sockets hang on the loop by their descriptors (``add_reader``), without threads: measured at three times the
throughput of ``zmq.asyncio``.
"""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any, Self, TypeVar

import msgspec
import zmq

from rkvisor.client.blocking import CONNECT_TIMEOUT_S, CONTROL_TIMEOUT_S, RECONNECT_TIMEOUT_S
from rkvisor.client.dialogue import Dialogue
from rkvisor.client.endpoint import CLIENTS, find
from rkvisor.client.errors import ConnectionLost
from rkvisor.client.exchange import Exchange
from rkvisor.client.replies import Progress, Token, decode_result
from rkvisor.client.session import AsyncSession
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


class AsyncClient:
    """As ``Client``, with coroutines; make it inside the running loop (``async with AsyncClient(…) as client``).

    Cancelling a call aborts its request on the server.
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
        self._loop = asyncio.get_running_loop()
        self._dialogue = Dialogue(
            self.endpoint, connect_timeout_s=connect_timeout_s, reconnect_timeout_s=reconnect_timeout_s
        )
        self._wakers: dict[Exchange, asyncio.Event] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for = math.inf
        self._wire = Wire(self.endpoint, keys)
        self._descriptors = [int(socket.getsockopt(zmq.FD)) for socket in (self._wire.socket, self._wire.monitor)]
        for descriptor in self._descriptors:
            self._loop.add_reader(descriptor, self._pump)
        self._loop.call_soon(self._pump)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        self.close()

    def close(self) -> None:
        """End all open calls and the connection; the server aborts what still runs.  Idempotent."""
        if self._wire.socket.closed:
            return
        for descriptor in self._descriptors:
            self._loop.remove_reader(descriptor)
        if self._timer is not None:
            self._timer.cancel()
        self._dialogue.close()
        for waker in self._wakers.values():
            waker.set()
        self._wire.close()

    async def run(
        self, *, model: str, timeout_s: float | None = None, request_key: str | None = None, **params: Any
    ) -> Result:
        """One inference, answered as a whole.  params: those of ``rkllm.run``, e.g. prompt, max_new_tokens, stop.

        Tensors among them (``embed``) are anything with the buffer protocol, NumPy's arrays too.
        """
        exchange = self._begin_run({"model": model, **params}, request_key, timeout_s)
        answer = decode_result(Result, "rkllm.run", await self._answer(exchange))
        return unpack(answer, exchange.replied)

    def stream(
        self,
        *,
        model: str,
        timeout_s: float | None = None,
        request_key: str | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        **params: Any,
    ) -> AsyncStream:
        """One inference, token by token.  on_progress: told why nothing comes (``Progress``)."""
        exchange = self._begin_run({"model": model, **params, "stream": True}, request_key, timeout_s)
        return AsyncStream(self, exchange, on_progress)

    def session(self, *, model: str, timeout_s: float | None = CONTROL_TIMEOUT_S, **params: Any) -> AsyncSession:
        """A conversation, for ``async with``.  params: more of ``session.open``."""
        return AsyncSession(self, {"model": model, **params}, timeout_s)

    async def abort(self, request_key: str, *, timeout_s: float | None = CONTROL_TIMEOUT_S) -> bool:
        """End the request of that key, whoever of this principal asked it.  False when none was running."""
        params = {"request_key": request_key}
        return (await self._typed(AbortResult, "rkllm.abort", params, timeout_s)).aborted

    async def pause(self, request_key: str, *, timeout_s: float | None = CONTROL_TIMEOUT_S) -> bool:
        """Have the request of that key stand still behind its next token.  False when it ended first, or none runs."""
        params = {"request_key": request_key}
        return (await self._typed(PauseResult, "rkllm.pause", params, timeout_s)).paused

    async def resume(self, request_key: str, *, prompt: str = "", timeout_s: float | None = CONTROL_TIMEOUT_S) -> bool:
        """Let the paused request of that key go on, behind *prompt* if there is any.  False when it was not paused."""
        params = {"request_key": request_key, "prompt": prompt}
        return (await self._typed(ResumeResult, "rkllm.resume", params, timeout_s)).resumed

    async def call(
        self, method: str, params: dict[str, Any] | None = None, *, timeout_s: float | None = CONTROL_TIMEOUT_S
    ) -> Any:
        """Any method; the result as plain Python objects.  It has no request_key, so it is never asked twice."""
        return msgspec.json.decode(await self._result(method, params or {}, timeout_s))

    async def version(self, *, timeout_s: float | None = CONTROL_TIMEOUT_S) -> SystemVersion:
        return await self._typed(SystemVersion, "system.version", {}, timeout_s)

    async def status(self, *, timeout_s: float | None = CONTROL_TIMEOUT_S) -> SystemStatus:
        return await self._typed(SystemStatus, "system.status", {}, timeout_s)

    async def models(self, *, timeout_s: float | None = CONTROL_TIMEOUT_S) -> list[ModelEntry]:
        return (await self._typed(ModelList, "model.list", {}, timeout_s)).models

    async def _typed(self, kind: type[T], method: str, params: dict[str, Any], timeout_s: float | None) -> T:
        return decode_result(kind, method, await self._result(method, params, timeout_s))

    async def _result(self, method: str, params: dict[str, Any], timeout_s: float | None) -> bytes:
        return await self._answer(self._begin(method, params, timeout_s))

    def _begin_run(self, params: dict[str, Any], key: str | None, timeout_s: float | None) -> Exchange:
        return self._begin("rkllm.run", {**params, "request_key": key or str(uuid.uuid4())}, timeout_s)

    def _begin(self, method: str, params: dict[str, Any], timeout_s: float | None) -> Exchange:
        if self._wire.socket.closed:
            raise ConnectionLost("cannot use this client: it was closed", component="client")
        self._pump()  # first hear whether the connection still stands
        exchange = self._dialogue.ask(method, params, now=time.monotonic(), timeout_s=timeout_s)
        self._wakers[exchange] = asyncio.Event()
        self._pump()
        return exchange

    async def _answer(self, exchange: Exchange) -> bytes:
        try:
            while not exchange.is_over:
                await self._news(exchange)
        finally:
            self._leave(exchange)
        return outcome(exchange)

    async def _news(self, exchange: Exchange) -> None:
        """Wait until something happened to the call."""
        waker = self._wakers.get(exchange)
        if waker is not None:
            await waker.wait()
            waker.clear()

    def _abort(self, exchange: Exchange) -> None:
        self._dialogue.abort(exchange)
        self._pump()

    def _leave(self, exchange: Exchange) -> None:
        waker = self._wakers.pop(exchange, None)
        if not exchange.is_over and not self._wire.socket.closed:
            self._dialogue.leave(exchange)
            self._pump()
        if waker is not None:
            waker.set()

    def _pump(self) -> None:
        if self._wire.socket.closed:
            return
        now = time.monotonic()
        if self._wire.pump(self._dialogue, now):
            self._loop.call_soon(self._pump)
        for exchange in self._dialogue.take_changed():
            if waker := self._wakers.get(exchange):
                waker.set()
        self._arm(now)

    def _arm(self, now: float) -> None:
        """Have the loop pump when the next call will have waited long enough."""
        deadline = self._dialogue.next_deadline
        if deadline == self._armed_for:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._armed_for = deadline
        delay_s = max(0.0, deadline - now)
        self._timer = None if math.isinf(deadline) else self._loop.call_later(delay_s, self._on_time)

    def _on_time(self) -> None:
        self._armed_for = math.inf
        self._pump()


class AsyncStream(StreamBase):
    """As ``Stream``, for ``async for``."""

    def __init__(self, client: AsyncClient, exchange: Exchange, on_progress: Callable[[Progress], None] | None) -> None:
        super().__init__(client, exchange, on_progress)
        self._client = client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        self.close()

    async def pause(self, *, timeout_s: float | None = CONTROL_TIMEOUT_S) -> bool:
        """As ``Stream.pause``."""
        return await self._client.pause(self.request_key, timeout_s=timeout_s)

    async def resume(self, *, prompt: str = "", timeout_s: float | None = CONTROL_TIMEOUT_S) -> bool:
        """As ``Stream.resume``."""
        return await self._client.resume(self.request_key, prompt=prompt, timeout_s=timeout_s)

    def __aiter__(self) -> AsyncIterator[Token]:
        return _Loop(self)

    async def __anext__(self) -> Token:
        exchange = self._exchange
        try:
            self._tell_progress()
            while not exchange.tokens and not exchange.is_over:
                await self._client._news(exchange)
                self._tell_progress()
        except BaseException:
            self.close()
            raise
        if exchange.tokens:
            return exchange.tokens.popleft()
        self.close()
        if exchange.error is not None:
            raise exchange.error
        raise StopAsyncIteration


class _Loop:
    """What ``async for`` holds: unlike an async generator it leaves the stream at the very moment of a ``break``."""

    def __init__(self, stream: AsyncStream) -> None:
        self._stream = stream

    def __aiter__(self) -> AsyncIterator[Token]:
        return self

    async def __anext__(self) -> Token:
        return await self._stream.__anext__()

    def __del__(self) -> None:
        self._stream.close()
