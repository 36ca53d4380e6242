"""rkvisord: reads the configuration, takes the locks, opens the sockets, starts the workers, stops in good order."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import secrets
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import zmq
from loguru import logger

from rkvisor.supervisor import config as configuration
from rkvisor.supervisor.config import Config, ConfigError
from rkvisor.supervisor.directories import Directories, DirectoryError
from rkvisor.supervisor.log import Log
from rkvisor.supervisor.server import Server
from rkvisor.supervisor.version import version

#: Where the configuration is looked for when ``-c`` does not say.
SEARCH = ("rkvisor.toml", "/etc/rkvisor/rkvisor.toml")


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="rkvisord", description="Serve LLMs from RKLLM worker processes.")
    parser.add_argument("-c", "--config", metavar="FILE", help=f"configuration (default: {', then '.join(SEARCH)})")
    parser.add_argument("--check-config", action="store_true", help="read the configuration, say what is wrong, exit")
    parser.add_argument(
        "--log-level", choices=("trace", "debug", "info", "warning", "error"), help="overrides the file"
    )
    parser.add_argument("--version", action="version", version=version())
    return parser.parse_args(argv)


def find_config(named: str | None) -> Path:
    """The configuration file.  Raises ConfigError where there is none."""
    candidates = [named] if named else list(SEARCH)
    for candidate in candidates:
        path = Path(candidate)
        if path.is_file():
            return path.absolute()
    looked = ", ".join(str(Path(one).absolute()) for one in candidates)
    raise ConfigError(f"cannot find a configuration: no file at {looked}; name one with -c FILE")


def read_config(named: str | None) -> Config:
    """Read and check the configuration.  Raises ConfigError."""
    path = find_config(named)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    config = configuration.parse(text, path)
    configuration.check_files(config)
    return config


@contextlib.contextmanager
def logging(level: str) -> Iterator[None]:
    """Log to stderr inside, without the values of variables: they may be prompts.

    What others write to ``sys.stderr`` meanwhile (warnings, asyncio's complaints) takes the same way: it must not wait.
    """
    logger.remove()
    form = "{time:YYYY-MM-DD HH:mm:ss.SSS} {level: <7} {message}"
    with Log(sys.stderr.fileno()) as log, contextlib.redirect_stderr(log):
        logger.add(log.put, level=level.upper(), format=form, backtrace=False, diagnose=False)
        yield


def main(argv: list[str] | None = None) -> int:
    """Run rkvisord.  Exit status: 0 after a stop that was asked for, 2 where it cannot start."""
    args = arguments(argv)
    try:
        config = read_config(args.config)
        if args.check_config:
            print(f"{config.file}: ok, {len(config.models)} model(s)")
            return 0
        os.umask(0o077)  # what is written is for this user; sockets for clients are opened to their group
        with logging(args.log_level or config.supervisor.log_level), Directories(config) as directories:
            return asyncio.run(serve(config, directories))
    except (ConfigError, DirectoryError) as error:
        print(f"rkvisord: {error}", file=sys.stderr)
        return 2


def on_hangup(file: str) -> None:
    """SIGHUP: say whether the configuration could be used.  It takes effect when rkvisord is started again."""
    try:
        read_config(file)
    except ConfigError as error:
        logger.error("SIGHUP: {}; rkvisord goes on with what it read at its start", error)
    else:
        logger.info("SIGHUP: {} can be used; changes take effect when rkvisord is started again", file)


async def serve(config: Config, directories: Directories) -> int:
    """Serve until a signal or the admin says stop.  Returns the exit status."""
    loop = asyncio.get_running_loop()
    try:
        server = Server(loop, config, directories.node, secrets.token_hex(8), random.Random())
    except zmq.ZMQError as error:
        print(f"rkvisord: cannot listen: {error}; see [listen] in {config.file}", file=sys.stderr)
        return 2
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    loop.add_signal_handler(signal.SIGHUP, on_hangup, config.file)
    loop.add_signal_handler(signal.SIGUSR1, server.log_state)
    loop.add_signal_handler(signal.SIGUSR2, server.log_state)
    server.start()
    logger.info("rkvisord {} is up: pid {}, {}", version(), os.getpid(), ", ".join(config.listen.clients))
    await server.stopped
    return 0


if __name__ == "__main__":
    sys.exit(main())
