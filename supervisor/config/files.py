"""Files that the configuration names: those that must be there before anything starts, small ones, seen at a glance;
and those that must not be there, because a socket will.

A model's own file is not among them: its worker says what ails it, and the other models run meanwhile.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from rkvisor.supervisor.config import sockets
from rkvisor.supervisor.config.checks import ConfigError
from rkvisor.supervisor.config.sections import Config

KEYS = ("tokenizer", "chat_template")


def check_files(config: Config) -> None:
    """Raise ConfigError for the first file that is missing, or in the way of a socket, naming the key."""
    for name, model in config.models.items():
        for key in KEYS:
            path = getattr(model, key)
            if path is not None and not Path(path).is_file():
                raise ConfigError(f"cannot use {config.file}: [models.{name}]: {key} = {path!r} is no file")
    for where, socket in sockets.wanted(config):
        with contextlib.suppress(OSError):  # what cannot be looked at is told of when the directories are made
            obstacle = sockets.in_the_way(socket)
            if obstacle is not None:
                raise ConfigError(f"cannot use {config.file}: {where}: {obstacle}")
