"""``rkvisor run``: one prompt, one answer on stdout."""

from __future__ import annotations

import argparse
import asyncio
import io
import sys

import msgspec

from rkvisor.client import options
from rkvisor.client.aio import AsyncClient
from rkvisor.client.answering import about, answer, choose_model
from rkvisor.client.terminal import Terminal
from rkvisor.protocol.errors import ClientError
from rkvisor.protocol.run import RunResult

SUMMARY = "answer one prompt"
CONNECT_TIMEOUT_S = 1.0


class NoPrompt(ClientError):
    """There is nothing to ask."""

    name = "NO_PROMPT"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``rkvisor run``."""
    parser.add_argument("prompt", nargs="?", metavar="PROMPT", help="the prompt; - or nothing reads it from stdin")
    parser.add_argument("--json", action="store_true", help="print the whole result as one line of JSON")
    parser.add_argument("--no-stream", action="store_true", help="print the answer when it is complete")
    parser.add_argument("-v", "--verbose", action="store_true", help="say on stderr how the answer came about")
    options.add_generation(parser)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand.  Returns 0, or 130 after Ctrl-C; raises RkvisorError."""
    prompt = read_prompt(args.prompt)
    result = asyncio.run(_ask(args, prompt))
    if result is None:
        return 130
    terminal = Terminal()
    if args.json:
        print(msgspec.json.encode(result).decode(), flush=True)
    if result.finish_reason == "context":
        terminal.note("rkvisor: the answer was cut: the model's context is full")
    if args.verbose:
        terminal.note(f"({about(result)})")
    return 0


def read_prompt(given: str | None) -> str:
    """The prompt of the command line or of stdin, without the newline that ends it.  Raises NoPrompt."""
    if given is not None and given != "-":
        return given
    if given is None and sys.stdin.isatty():
        raise NoPrompt("cannot run without a prompt: give it as an argument, or on stdin (- reads from a terminal)")
    try:
        text = sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise NoPrompt(f"cannot read the prompt from stdin: byte {error.start} is not valid UTF-8") from error
    text = text.removesuffix("\n")
    if not text:
        raise NoPrompt("cannot run without a prompt: stdin is empty")
    return text


async def _ask(args: argparse.Namespace, prompt: str) -> RunResult | None:
    async with AsyncClient(args.server, config=args.config, connect_timeout_s=CONNECT_TIMEOUT_S) as client:
        try:
            model = await choose_model(client, args.model)
        except asyncio.CancelledError:
            return None
        params = {"model": model, "prompt": prompt, **options.generation(args)}
        out = io.StringIO() if args.json else None
        return await answer(client, Terminal(out), params, is_stream=not (args.json or args.no_stream))
