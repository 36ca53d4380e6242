"""``rkvisor chat``: ask and read in a terminal.  The lines are the turns of a session, where the server has those."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import io
import sys
from collections.abc import Coroutine
from typing import Any

from rkvisor.client import options
from rkvisor.client.aio import AsyncClient
from rkvisor.client.answering import about, answer, choose_model
from rkvisor.client.errors import NoServer, UnreadableReply
from rkvisor.client.session import AsyncSession
from rkvisor.client.terminal import Terminal
from rkvisor.protocol.errors import MethodNotFound, NotSupported, RkvisorError, SessionLost
from rkvisor.protocol.run import RunResult

SUMMARY = "ask and read in a terminal"
DESCRIPTION = """Ask and read in a terminal.  The lines are one conversation, which the server holds; with a runtime
that has no history (family F1) each is a request of its own.  Ctrl-C stops an answer, and neither the chat nor the
server.  Ctrl-D leaves."""
PROMPT = "> "
#: How long the server may take to close the session, seconds; else it expires.
FAREWELL_S = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``rkvisor chat``."""
    parser.add_argument("-v", "--verbose", action="store_true", help="say below each answer how it came about")
    options.add_generation(parser)


def run(args: argparse.Namespace) -> int:
    """Chat until Ctrl-D.  Returns 0, or 130 after Ctrl-C before the first prompt; raises RkvisorError."""
    terminal = Terminal(notes=sys.stdout if sys.stdin.isatty() else sys.stderr)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")  # a line that is not UTF-8 ends no chat
    with asyncio.Runner() as runner:
        client, model = runner.run(_connect(args))
        talk = Talk(client, model, terminal, args)
        try:
            runner.run(talk.begin())
            if sys.stdin.isatty():
                importlib.import_module("readline")  # gives input() its line editing
                how = "one conversation" if talk.session is not None else "every line is asked by itself"
                terminal.note(f"{model} at {client.endpoint}; {how}; Ctrl-D leaves")
            while (line := _read(terminal)) is not None:
                if line.strip():
                    _ask(runner, talk.turn(line))
        finally:
            runner.run(talk.end())
    return 0


def _ask(runner: asyncio.Runner, turn: Coroutine[Any, Any, None]) -> None:
    """One turn.  A Ctrl-C that comes when the answer has just ended, or again while it is aborted, ends no chat."""
    with contextlib.suppress(KeyboardInterrupt):
        runner.run(turn)


def _read(terminal: Terminal) -> str | None:
    """The next line; None at the end.  Ctrl-C only drops what was typed."""
    while True:
        try:
            line = input(PROMPT if sys.stdin.isatty() else "")
            line.encode()
            return line
        except UnicodeEncodeError:
            terminal.note("rkvisor: cannot ask: the line is not UTF-8")
        except EOFError:
            if sys.stdin.isatty():
                terminal.note("")
            return None
        except KeyboardInterrupt:
            terminal.note("")


async def _connect(args: argparse.Namespace) -> tuple[AsyncClient, str]:
    client = AsyncClient(args.server, config=args.config, connect_timeout_s=1.0)
    try:
        await client.version()  # a chat without a server should not even begin
        return client, await choose_model(client, args.model)
    except BaseException:
        client.close()
        raise


class Talk:
    """One chat.  session: None where the server, or the model's runtime, has none."""

    def __init__(self, client: AsyncClient, model: str, terminal: Terminal, args: argparse.Namespace) -> None:
        self._client = client
        self._model = model
        self._terminal = terminal
        self._args = args
        self.session: AsyncSession | None = None

    async def begin(self) -> None:
        """Open a session, if there can be one."""
        try:
            self.session = await self._client.session(model=self._model)
        except (NotSupported, MethodNotFound, UnreadableReply):
            self.session = None

    async def turn(self, line: str) -> None:
        """One line asked and answered; an error ends the turn, not the chat."""
        try:
            result = await self._answer(line)
        except NoServer:
            raise
        except RkvisorError as error:
            self._terminal.error(error)
            return
        if result is None:
            self._terminal.note("(stopped)")
            return
        if result.session_restored is True:
            self._terminal.note("(the server had to bring the conversation back to a worker)")
        if result.finish_reason == "context":
            self._terminal.note("(the answer was cut: the model's context is full)")
        if self._args.verbose:
            self._terminal.note(f"({about(result)})")

    async def _answer(self, line: str) -> RunResult | None:
        """The answer; where the conversation is lost, that of a new one."""
        params = {"model": self._model, "prompt": line, **options.generation(self._args)}
        if self.session is None:
            return await answer(self._client, self._terminal, params)
        try:
            return await answer(self._client, self._terminal, {**params, "session": self.session.id})
        except SessionLost as error:
            self._terminal.error(error)
            await self.begin()
            if self.session is None:
                raise
            self._terminal.note("(this is a new conversation: the model does not remember the lines before)")
            return await answer(self._client, self._terminal, {**params, "session": self.session.id})

    async def end(self) -> None:
        """Close the session and the connection."""
        if self.session is not None:
            with contextlib.suppress(RkvisorError, TimeoutError):
                async with asyncio.timeout(FAREWELL_S):
                    await self.session.close()
        self._client.close()
