"""``client.session(…)``: a conversation whose history the server holds, for both clients.

What is said in it goes through the client's ``run`` and ``stream``, each turn under a request_key of its own: asked
again after a lost connection it is still one turn.  A server that was started anew answers SESSION_LOST.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Self

from rkvisor.client.errors import ConnectionLost
from rkvisor.client.replies import decode_result
from rkvisor.protocol.errors import RkvisorError
from rkvisor.protocol.sessions import OpenResult, SessionHistory

if TYPE_CHECKING:
    from rkvisor.client.aio import AsyncClient, AsyncStream
    from rkvisor.client.blocking import Client, Stream
    from rkvisor.client.tensors import Result

OPEN, CLOSE, HISTORY = "session.open", "session.close", "session.history"


class SessionBase:
    """id: "" until it is open.  params: of ``session.open``."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.id = ""
        self.model = str(params["model"])
        self._params = params

    def _opened(self, answer: bytes) -> None:
        self.id = decode_result(OpenResult, OPEN, answer).session

    def _turn(self, prompt: str, params: dict[str, Any]) -> dict[str, Any]:
        if not self.id:
            raise ConnectionLost("cannot use a session that is not open", component="client")
        return {"model": self.model, "session": self.id, "prompt": prompt, **params}

    @property
    def _named(self) -> dict[str, Any]:
        return {"session": self.id}


class Session(SessionBase):
    """A context manager; open from the start.  Each method raises what ``Client.run`` does, and SessionLost."""

    def __init__(self, client: Client, params: dict[str, Any], timeout_s: float | None) -> None:
        super().__init__(params)
        self._client = client
        self._timeout_s = timeout_s
        self._opened(client._result(OPEN, params, timeout_s))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        with contextlib.suppress(RkvisorError):
            self.close()

    def run(self, prompt: str, **params: Any) -> Result:
        """The next turn, answered as a whole; ``session_restored`` tells whether the server had to replay the others.

        params: more of ``rkllm.run``, and ``timeout_s``.
        """
        return self._client.run(**self._turn(prompt, params))

    def stream(self, prompt: str, **params: Any) -> Stream:
        """The next turn, token by token."""
        return self._client.stream(**self._turn(prompt, params))

    def history(self, *, token_ids: bool = False) -> SessionHistory:
        """The turns so far, also of a session that is lost."""
        params = {**self._named, "token_ids": token_ids}
        return decode_result(SessionHistory, HISTORY, self._client._result(HISTORY, params, self._timeout_s))

    def close(self) -> None:
        """Have the server forget it.  Idempotent."""
        if self.id:
            named, self.id = self._named, ""
            self._client._result(CLOSE, named, self._timeout_s)


class AsyncSession(SessionBase):
    """As ``Session``; ``async with`` or ``await`` opens it."""

    def __init__(self, client: AsyncClient, params: dict[str, Any], timeout_s: float | None) -> None:
        super().__init__(params)
        self._client = client
        self._timeout_s = timeout_s

    def __await__(self) -> Generator[Any, None, AsyncSession]:
        return self._open().__await__()

    async def _open(self) -> AsyncSession:
        if not self.id:
            self._opened(await self._client._result(OPEN, self._params, self._timeout_s))
        return self

    async def __aenter__(self) -> AsyncSession:
        return await self._open()

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        with contextlib.suppress(RkvisorError):
            await self.close()

    async def run(self, prompt: str, **params: Any) -> Result:
        """As ``Session.run``."""
        return await self._client.run(**self._turn(prompt, params))

    def stream(self, prompt: str, **params: Any) -> AsyncStream:
        """As ``Session.stream``."""
        return self._client.stream(**self._turn(prompt, params))

    async def history(self, *, token_ids: bool = False) -> SessionHistory:
        """As ``Session.history``."""
        params = {**self._named, "token_ids": token_ids}
        return decode_result(SessionHistory, HISTORY, await self._client._result(HISTORY, params, self._timeout_s))

    async def close(self) -> None:
        """As ``Session.close``."""
        if self.id:
            named, self.id = self._named, ""
            await self._client._result(CLOSE, named, self._timeout_s)
