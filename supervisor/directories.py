"""The run and state directories: made, locked before any socket is bound, and left clean.

A second bind on an ipc path succeeds and deafens the first daemon (seen), so both directories are locked with flock;
the kernel drops the locks with the process, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
from pathlib import Path
from types import TracebackType
from typing import Self

from rkvisor.supervisor.config import Config, sockets
from rkvisor.supervisor.config.checks import one_folder


class DirectoryError(Exception):
    """A directory cannot be used; the message says which and why."""


def open_to_group(endpoint: str) -> None:
    """Let the group of the run directory connect to a bound ``ipc://`` endpoint (the umask keeps everybody out)."""
    Path(endpoint.removeprefix("ipc://")).chmod(0o660)


class Directories:
    """Context manager: locked inside.  node: UUID of this installation, kept in the state directory."""

    def __init__(self, config: Config):
        self._run = Path(config.supervisor.run_dir)
        self._state = Path(config.supervisor.state_dir)
        self._config = config
        self._sockets = list(sockets.wanted(config))
        self._locks: list[int] = []
        self.node = ""

    def __enter__(self) -> Self:
        try:
            self._make(self._run, 0o750)
            self._make(self._run / "private", 0o700)
            self._make(self._state, 0o700)
            if self._run.samefile(self._state):  # by a link; what is written alike is refused with the file
                raise DirectoryError(f"cannot use {self._config.file}: [supervisor]: {one_folder(self._config)}")
            for _, socket in self._sockets:
                self._make(socket.parent, 0o750)
            for folder in (self._state, self._run):
                self._lock(folder / "lock")
            self._clear()
            self.node = self._read_node(self._state / "node")
        except OSError as error:
            self._unlock()
            raise DirectoryError(f"cannot use {error.filename}: {error.strerror}") from error
        except DirectoryError:
            self._unlock()
            raise
        return self

    @staticmethod
    def _make(folder: Path, mode: int) -> None:
        if not folder.is_dir():
            folder.mkdir(mode=mode, parents=True)
            folder.chmod(mode)

    def _clear(self) -> None:
        """Refuse before anything is removed, then remove the sockets of a daemon that was killed."""
        for where, socket in self._sockets:
            obstacle = sockets.refusal(socket)
            if obstacle is not None:
                raise DirectoryError(f"cannot use {self._config.file}: {where}: {obstacle}")
        for _, socket in self._sockets:
            sockets.remove(socket)

    def _lock(self, path: Path) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._locks.append(fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(fd, 32).decode(errors="replace").strip() or "unknown"
            text = f"cannot start a second rkvisord on {path.parent}: pid {holder} holds {path}"
            raise DirectoryError(f"{text}; stop it, or set another directory") from error
        os.truncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)

    @staticmethod
    def _read_node(path: Path) -> str:
        with contextlib.suppress(OSError, ValueError):
            return str(uuid.UUID(path.read_text().strip()))
        node = str(uuid.uuid4())
        path.write_text(node + "\n")
        return node

    def _unlock(self) -> None:
        while self._locks:
            os.close(self._locks.pop())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, socket in self._sockets:
            with contextlib.suppress(OSError):
                sockets.remove(socket)
        (self._run / "lock").unlink(missing_ok=True)
        self._unlock()
