"""What lies where a socket is wanted.  One rule: rkvisord takes a path that nothing has, or a socket that is dead.

libzmq unlinks whatever it finds at the path of an ``ipc://`` endpoint before it binds (seen: a user's file was gone, a
program that lived was deaf), so everybody who binds, or tells whether rkvisord could, asks here first.
"""

from __future__ import annotations

import errno
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rkvisor.supervisor.config.checks import worker_endpoint
from rkvisor.supervisor.config.sections import Config

_KINDS = (
    (stat.S_ISREG, "a file"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a pipe"),
)


class Obstacle(NamedTuple):
    """Why no socket may be bound at a path, and the way out."""

    text: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.text}; {self.remedy}"


def wanted(config: Config) -> Iterator[tuple[str, Path]]:
    """Every socket in the file system: (section and key that name it, path)."""
    listen = config.listen
    named = [("clients", one) for one in listen.clients] + [("admin", listen.admin)]
    named += [("events", one) for one in listen.events]
    for key, endpoint in named:
        if endpoint.startswith("ipc://"):
            yield f"[listen]: {key}", Path(endpoint.removeprefix("ipc://"))
    yield "[supervisor]: run_dir", Path(worker_endpoint(config).removeprefix("ipc://"))


def in_the_way(path: Path) -> Obstacle | None:
    """What is at *path* that is no socket; None where that is free or a socket.

    Raises OSError where it cannot be told.
    """
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISSOCK(mode):
        return None
    kind = next((words for is_kind, words in _KINDS if is_kind(mode)), "a device")
    return Obstacle(f"{path} is {kind}, not a socket", "name another path, or move it away")


def answered(path: Path) -> Obstacle | None:
    """That a program listens on the socket *path*; None where nobody does.

    Only a refused connection is a proof that a socket is dead: a full queue, a datagram socket and a missing right are
    none.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
        one.setblocking(False)
        code = one.connect_ex(bytes(path))
    if code in (errno.ECONNREFUSED, errno.ENOENT, errno.ENOTDIR):
        return None
    if code in (errno.EACCES, errno.EPERM):
        return Obstacle(f"{path} is a socket that this user may not open", "name another path")
    return Obstacle(f"{path} is a socket on which another program answers", "name another path, or stop that program")


def refusal(path: Path) -> Obstacle | None:
    """Why no socket may be bound at *path*, None where one may.  Raises OSError where it cannot be told."""
    return in_the_way(path) or answered(path)


def remove(path: Path) -> None:
    """Unlink *path* where it is a socket, and nothing else.  Raises OSError."""
    if path.is_socket() and not path.is_symlink():
        path.unlink(missing_ok=True)
