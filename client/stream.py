"""What the blocking and the asyncio stream have in common, and how a call that is over gives its answer."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Protocol

from rkvisor.client.errors import ConnectionLost
from rkvisor.client.exchange import Exchange
from rkvisor.client.replies import Progress, decode_result
from rkvisor.protocol.run import RunResult


def outcome(exchange: Exchange) -> bytes:
    """The JSON text of the result of a call that is over; raises its error."""
    if exchange.error is not None:
        raise exchange.error
    if exchange.result is None:
        raise ConnectionLost(f"cannot give the answer of {exchange.method}: the caller left it", component="client")
    return exchange.result


class Caller(Protocol):
    """The client a stream belongs to."""

    def _abort(self, exchange: Exchange) -> None: ...
    def _leave(self, exchange: Exchange) -> None: ...


class StreamBase:
    """A stream after its tokens: key, result, leaving."""

    def __init__(self, caller: Caller, exchange: Exchange, on_progress: Callable[[Progress], None] | None) -> None:
        self._caller = caller
        self._exchange = exchange
        self._on_progress = on_progress

    @property
    def request_key(self) -> str:
        return self._exchange.key or ""

    @property
    def result(self) -> RunResult:
        """The whole result.  Raises RuntimeError before the end of the stream, else the stream's own error."""
        if not self._exchange.is_over:
            raise RuntimeError("cannot give the result before the stream has ended")
        return decode_result(RunResult, "rkllm.run", outcome(self._exchange))

    def abort(self) -> None:
        """Ask the server to end the request; the stream then ends with finish_reason "abort"."""
        self._caller._abort(self._exchange)

    def close(self) -> None:
        """Leave the stream: if it has not ended, it is aborted and nothing of it comes any more.  Idempotent."""
        self._caller._leave(self._exchange)

    def __del__(self) -> None:
        if not self._exchange.is_over and not sys.is_finalizing():
            self.close()

    def _tell_progress(self) -> None:
        """Tell what came before the next token."""
        while (progress := self._exchange.next_note()) is not None:
            if self._on_progress is not None:
                self._on_progress(progress)
