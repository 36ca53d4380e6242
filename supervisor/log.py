"""The log, written by a thread of its own: its reader may stand still (Ctrl-S, a stuck collector), rkvisord not."""

from __future__ import annotations

import contextlib
import io
import os
import select
import threading
import time
from typing import Self

from rkvisor.supervisor.backlog import Backlog

#: How long the end of rkvisord waits for a reader, seconds.
FAREWELL_S = 1.0


class Log(io.TextIOBase):
    """Context manager: a stream to *fd* whose ``write`` never waits.

    What does not fit into the backlog is dropped, and counted in a line of the log.  At the end what is queued is
    written, within ``FAREWELL_S``.  A ``kill -9`` loses what is queued.
    """

    def __init__(self, fd: int):
        super().__init__()
        self._fd = fd
        self._backlog = Backlog(_note)
        self._changed = threading.Condition()
        self._is_ending = False
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._is_ending = True
            self._changed.notify()
        self._thread.join(FAREWELL_S)

    def writable(self) -> bool:
        """It is."""
        return True

    def put(self, text: str) -> None:
        """Queue *text*, or drop it where there is no room."""
        with self._changed:
            self._backlog.put(str(text))  # of loguru's message, the text alone
            self._changed.notify()

    def write(self, text: str) -> int:
        """As ``put``, for those who want a stream."""
        self.put(text)
        return len(text)

    def _run(self) -> None:
        while (text := self._next()) is not None:
            with contextlib.suppress(OSError):  # nobody reads any more, or the disk is full: there is no one to tell
                self._write(text.encode("utf-8", "backslashreplace"))

    def _next(self) -> str | None:
        """Wait for the next piece; None at the end."""
        with self._changed:
            while (text := self._backlog.take()) is None:
                if self._is_ending:
                    return None
                self._changed.wait()
            return text

    def _write(self, data: bytes) -> None:
        """Write all of *data*, also where somebody has made the terminal nonblocking.  Raises OSError."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                select.select((), (self._fd,), ())


def _note(dropped: int) -> str:
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    return f"{now} WARNING {dropped} line(s) of this log were dropped: who reads it did not keep up\n"
