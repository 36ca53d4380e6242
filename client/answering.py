"""One question of ``rkvisor`` to its end: which model, the tokens to the terminal, Ctrl-C as an abort."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from typing import Any

from rkvisor.client.aio import AsyncClient
from rkvisor.client.terminal import Terminal
from rkvisor.protocol.errors import ClientError, RkvisorError
from rkvisor.protocol.run import RunResult

#: How long the server may take to confirm an abort, seconds.
ABORT_S = 2.0


class NoModel(ClientError):
    """No model was named and the server has not exactly one."""

    name = "NO_MODEL"


async def choose_model(client: AsyncClient, named: str | None) -> str:
    """The named model, or the only one there is.  Raises NoModel."""
    if named is not None:
        return named
    models = [model.name for model in await client.models()]
    if len(models) == 1:
        return models[0]
    has = f"has {len(models)}: {', '.join(models)}; name one with -m MODEL" if models else "has none"
    raise NoModel(f"cannot choose a model: the server at {client.endpoint} {has}", component="client")


async def answer(
    client: AsyncClient, terminal: Terminal, params: dict[str, Any], *, is_stream: bool = True
) -> RunResult | None:
    """Write one answer to the terminal, token by token or as a whole.

    None when it was interrupted (the task was cancelled): the server has confirmed the abort then, if it could.
    """
    params = {**params, "request_key": str(uuid.uuid4())}
    try:
        return await _write(client, terminal, params, is_stream=is_stream)
    except asyncio.CancelledError:
        with contextlib.suppress(RkvisorError):
            await client.abort(params["request_key"], timeout_s=ABORT_S)
        return None


async def _write(client: AsyncClient, terminal: Terminal, params: dict[str, Any], *, is_stream: bool) -> RunResult:
    """One answer on the terminal; its line ends, however the answer does."""
    try:
        if not is_stream:
            result = await client.run(**params)
            terminal.text(result.text)
            return result
        stream = client.stream(on_progress=terminal.progress, **params)
        async for token in stream:
            terminal.text(token.text)
        return stream.result
    finally:
        terminal.end_line()


def about(result: RunResult) -> str:
    """How the answer came about, in one line."""
    facts = [f"{len(result.token_ids)} tokens"]
    if result.perf is not None and result.perf.generate_time_ms > 0:
        facts.append(f"{1000 * result.perf.generate_tokens / result.perf.generate_time_ms:.1f} tokens/s")
    facts += [f"worker {result.worker}", f"finished by {result.finish_reason}"]
    if result.resumed:
        facts.append(f"resumed {result.resumed}× ({result.resume})")
    if result.degraded:
        facts.append("degraded: the fallback model answered")
    return ", ".join(facts)
