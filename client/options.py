"""The options that ``rkvisor``'s subcommands share: where the server is, which model, how to generate."""

from __future__ import annotations

import argparse
from typing import Any

#: option → (member of rkllm.run's params, type, metavar, help)
_GENERATION: dict[str, tuple[str, type, str, str]] = {
    "--max-new-tokens": ("max_new_tokens", int, "N", "end after N tokens"),
    "--temperature": ("temperature", float, "T", "0 always takes the likeliest token"),
    "--top-k": ("top_k", int, "K", "choose among the K likeliest tokens"),
    "--top-p": ("top_p", float, "P", "choose among the likeliest tokens that make up P of the probability"),
    "--repeat-penalty": ("repeat_penalty", float, "X", "above 1 makes repetition less likely"),
}


def add_server(parser: argparse.ArgumentParser, default: Any = None) -> None:
    """``-s`` and ``-c``, accepted before and behind the subcommand."""
    group = parser.add_argument_group("server")
    group.add_argument(
        "-s",
        "--server",
        metavar="ENDPOINT",
        default=default,
        help="tcp://HOST:PORT or ipc://PATH; otherwise $RKVISOR_ENDPOINT, then a configuration file",
    )
    group.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        default=default,
        help="its configuration; else ./rkvisor.toml, then /etc/rkvisor/rkvisor.toml",
    )


def add_generation(parser: argparse.ArgumentParser) -> None:
    """Model and sampling."""
    parser.add_argument("-m", "--model", metavar="MODEL", help="may be left out where the server has exactly one")
    group = parser.add_argument_group("generation")
    for option, (member, kind, metavar, text) in _GENERATION.items():
        group.add_argument(option, dest=member, type=kind, metavar=metavar, help=text)
    group.add_argument("--stop", action="append", metavar="TEXT", help="end before TEXT; may be given several times")
    group.add_argument("--thinking", action="store_true", help="let a reasoning model think first")
    group.add_argument("--deadline", type=_seconds, metavar="S", help="fail after S seconds, waiting included")


def generation(args: argparse.Namespace) -> dict[str, Any]:
    """The params of ``rkllm.run`` that the options give; what was not said is left to the server."""
    members = [member for member, *_ in _GENERATION.values()] + ["stop"]
    params = {member: getattr(args, member) for member in members if getattr(args, member) is not None}
    if args.thinking:
        params["enable_thinking"] = True
    if args.deadline is not None:
        params["deadline_ms"] = args.deadline
    return params


def _seconds(text: str) -> int:
    """Seconds as milliseconds."""
    try:
        milliseconds = round(float(text) * 1000)
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds") from error
    if milliseconds < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not more than 0 seconds")
    return milliseconds
