"""``rkvisor``, the user's command: subcommands, each in a module of its own, and what their ends mean to a shell.

Exit status: 0 done, 1 an error of the server, 2 wrong usage, 3 no server, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from types import ModuleType

from rkvisor.client import options
from rkvisor.client.errors import BadEndpoint, NoEndpoint, NoServer
from rkvisor.client.terminal import Terminal
from rkvisor.protocol.errors import RkvisorError

DONE, FAILED, USAGE, NO_SERVER, INTERRUPTED = 0, 1, 2, 3, 130
SUBCOMMANDS = ("run", "chat", "doctor")


def main(argv: list[str] | None = None) -> int:
    """Run the command.  Returns the exit status."""
    subcommands = {name: importlib.import_module(f"rkvisor.client.command_{name}") for name in SUBCOMMANDS}
    args = parser(subcommands).parse_args(argv)
    try:
        return int(subcommands[args.subcommand].run(args))
    except RkvisorError as error:
        Terminal().error(error)
        return exit_status(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the answer has gone; without this the interpreter would complain again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def parser(subcommands: dict[str, ModuleType]) -> argparse.ArgumentParser:
    """The command line."""
    whole = argparse.ArgumentParser(
        prog="rkvisor",
        description="Talk to the models that rkvisord serves.",
        epilog="Exit status: 0 done, 1 an error of the server, 2 wrong usage, 3 no server, 130 Ctrl-C.",
    )
    options.add_server(whole)
    below = whole.add_subparsers(dest="subcommand", required=True, metavar="SUBCOMMAND")
    for name, module in subcommands.items():
        text = getattr(module, "DESCRIPTION", module.SUMMARY)
        one = below.add_parser(name, help=module.SUMMARY, description=text)
        module.add_arguments(one)
        options.add_server(one, default=argparse.SUPPRESS)
    return whole


def exit_status(error: RkvisorError) -> int:
    """What an error means to a shell."""
    if isinstance(error, BadEndpoint) or error.name in ("NO_MODEL", "NO_PROMPT"):
        return USAGE
    if isinstance(error, NoEndpoint | NoServer):
        return NO_SERVER
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
