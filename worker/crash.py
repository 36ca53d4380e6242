"""What a worker does so that its death can be understood: crash notes, Python's stacks, a last sign of its memory.

The note is written by ``librkvisor_crash.so``, on a stack of its own, to the lifeline; ``protocol/crash_note.py`` says
what stands in it.  It chains to faulthandler, which writes the Python stacks to stderr.  Without the library a worker
runs all the same: its wait status and its log lines still tell of its end.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys
import threading
import traceback
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import NoReturn

LIBRARY = "librkvisor_crash.so"
#: EX_SOFTWARE of sysexits.h: the process ends itself because its own code failed.
PANIC_STATUS = 70

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class CrashNotes:
    """lifeline: descriptor that notes are written to.  Covers the thread that makes it."""

    def __init__(self, lifeline: int):
        faulthandler.enable(file=sys.stderr, all_threads=True)
        for number in (signal.SIGSYS, signal.SIGTRAP):  # which enable() leaves out
            faulthandler.register(number, file=sys.stderr, all_threads=True)
        self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        self._library = self._load()
        if self._library is not None:
            self._library.rkvisor_crash_install(lifeline)

    @staticmethod
    def _load() -> ctypes.CDLL | None:
        spec = find_spec("rkvisor.cython_ext")
        if spec is None or spec.origin is None:
            return None
        try:
            return ctypes.CDLL(str(Path(spec.origin).parent / LIBRARY))
        except OSError as error:
            print(f"rkvisor: no crash notes: {error}", file=sys.stderr, flush=True)
            return None

    def cover_runner(self) -> None:
        """Cover the calling thread, which runs the model, too: an overflow of its stack then leaves a note."""
        if self._library is not None:
            self._library.rkvisor_crash_thread(1)

    def refresh(self) -> None:
        """Libraries were loaded: let notes name them."""
        if self._library is not None:
            self._library.rkvisor_crash_refresh()

    def rss_bytes(self) -> int:
        """Resident memory of this process.  Costs two or three microseconds."""
        return self.resident()[0]

    def resident(self) -> tuple[int, int]:
        """Resident memory of this process, and how much of it is pages of files and of shared memory."""
        words = os.pread(self._statm, 128, 0).split()
        return int(words[1]) * _PAGE_BYTES, int(words[2]) * _PAGE_BYTES


def set_panic_hooks() -> None:
    """An exception that nobody caught ends the process, in whatever thread, and says where it came from."""
    sys.excepthook = _panic
    threading.excepthook = lambda args: _panic(args.exc_type, args.exc_value, args.exc_traceback)


def _panic(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> NoReturn:
    frames = traceback.extract_tb(trace)
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "unknown"
    print(f"PANIC at {place}: {kind.__name__}: {error}", file=sys.stderr)
    traceback.print_exception(kind, error, trace, file=sys.stderr)
    sys.stderr.flush()
    os._exit(PANIC_STATUS)
