"""Starting, watching and ending worker processes: exec, pidfd, lifeline, captured output.  No policy.

A process is exec'ed from the main thread (its PR_SET_PDEATHSIG is tied to the thread that spawned it), gets one end of
a socketpair as its lifeline, and a pipe as its stdout and stderr.  Its death is seen through a pidfd.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from loguru import logger

from rkvisor.protocol.crash_note import parse_note
from rkvisor.protocol.link import Header, LoadFailed, Ready
from rkvisor.protocol.page import SIZE_BYTES, Last, Page
from rkvisor.supervisor.crashes.classes import SIGTERM_WORDS
from rkvisor.supervisor.workers.watchdog import DUMP_S

#: Lines of the runtime's output kept per process, for error data and crash reports.
LOG_LINES = 200
#: Bytes of one kept line.
LOG_LINE_BYTES = 500
#: How long a process may take to die once its lifeline said so, seconds: many times what a note and a core take.
DYING_S = 2.0
#: Bytes of a crash note: twice what a worker can write.
NOTE_BYTES = 65536


def signal_name(number: int) -> str:
    """ "SIGSEGV", or "signal 35"."""
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a process ended.

    status: as of ``subprocess``: an exit code ≥ 0, or minus the signal.  note: of its crash handler, b"" without.
    peak_rss_bytes: the most resident memory it ever had, at least that of rkvisord when it was started.
    """

    status: int
    note: bytes
    peak_rss_bytes: int = 0

    @property
    def signal(self) -> int | None:
        """The signal that ended it, or None where it exited."""
        return -self.status if self.status < 0 else None

    def describe(self) -> str:
        """ "SIGSEGV", or "exit status 1"."""
        return f"exit status {self.status}" if self.signal is None else signal_name(self.signal)


class Owner(Protocol):
    """Who is told what a process does."""

    def on_hello(self, process: Process) -> None: ...

    def on_ready(self, process: Process) -> None: ...

    def on_load_failed(self, process: Process, failed: LoadFailed) -> None: ...

    def on_job(self, process: Process, header: Header, parts: list[bytes]) -> None: ...

    def on_sign(self, process: Process) -> None: ...

    def on_exit(self, process: Process, exit_: Exit) -> None: ...


class Process:
    """One exec'ed worker process.

    ready: what it said when its model was loaded.  has_failed: it said that it cannot load it.  page: the memory shared
    with it, while it lives.  last: once it is gone, what stood in the page; died_running: and whether a run was under
    way. unanswered: pings since its last sign of life. started_s, taken_s, loading_s: when it was started, when it
    became a worker, when it was told to load, on the monotonic clock, 0 before. sent: the signals that we sent it.
    trouble: what ailed it when it died. is_doomed: its lifeline told that it is dying. owed, owed_s: control calls
    that it has not answered, and since when it has been at the first of them (at the earliest: a run may come
    before it). on_sign: told that it is doomed, once; on_exit: told once, at its end.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        endpoint: str,
        incarnation: int,
        epoch: str,
        owner: Owner,
        on_sign: Callable[[Process], None],
        on_exit: Callable[[Process, Exit], None],
    ):
        self._on_sign = on_sign
        self._on_exit = on_exit
        self._loop = loop
        self.incarnation = incarnation
        self.owner = owner
        self.routing_id = b"p%d" % incarnation
        self.has_hello = False
        self.ready: Ready | None = None
        self.is_gone = self.is_doomed = False
        self.has_failed = False
        self.last = Last()
        self.died_running = False
        self.unanswered = self.owed = 0
        self.owed_s = 0.0
        self.started_s = loop.time()
        self.taken_s = self.loading_s = 0.0
        self.sent: set[int] = set()
        self.trouble = ""
        self.log: deque[str] = deque(maxlen=LOG_LINES)
        self._untold = 0
        self._partial = b""
        self._note = b""
        self._spawn(endpoint, epoch)

    def _spawn(self, endpoint: str, epoch: str) -> None:
        ours, theirs = socket.socketpair()
        page_fd = os.memfd_create(f"rkvisor-{self.incarnation}", os.MFD_CLOEXEC)
        os.truncate(page_fd, SIZE_BYTES)
        self.page = Page(mmap.mmap(page_fd, SIZE_BYTES))
        read_fd, write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(write_fd, True)
        words = [sys.executable, "-P", "-m", "rkvisor.worker", endpoint, str(self.incarnation), epoch]
        try:
            self._popen = subprocess.Popen(
                [*words, str(theirs.fileno()), str(os.getpid()), str(page_fd)],
                stdin=subprocess.DEVNULL,
                stdout=write_fd,
                stderr=write_fd,
                pass_fds=[theirs.fileno(), page_fd],
                start_new_session=True,
            )
        except OSError:
            ours.close()
            os.close(read_fd)
            raise
        finally:
            theirs.close()
            os.close(write_fd)
            os.close(page_fd)
        ours.setblocking(False)
        self.pid = self._popen.pid
        self._lifeline = ours
        self._log_fd = read_fd
        self._pidfd = os.pidfd_open(self.pid)
        self._loop.add_reader(self._pidfd, self._on_death)
        self._loop.add_reader(self._log_fd, self._read_log)
        self._loop.add_reader(self._lifeline, self._on_lifeline)

    def _read_log(self) -> bool:
        """Read what waits in the pipe.  Returns whether anything did."""
        try:
            chunk = os.read(self._log_fd, 65536)
        except BlockingIOError:
            return False
        if not chunk:
            self._loop.remove_reader(self._log_fd)
            return False
        *lines, self._partial = (self._partial + chunk).split(b"\n")
        if len(self._partial) > LOG_LINE_BYTES:
            lines.append(self._partial)
            self._partial = b""
        for line in lines:
            self._keep(line)
        return True

    def _keep(self, line: bytes) -> None:
        text = line[:LOG_LINE_BYTES].decode(errors="replace")
        self.log.append(text)
        self._untold += 1
        logger.debug("process {}: {}", self.pid, text)

    def _on_lifeline(self) -> None:
        """It is dying: its handler writes its note, or the kernel has closed its end.  The pidfd tells when it is gone;
        a handler that hangs, because what it looks at is broken, gets no more than DYING_S for it."""
        if not self._read_lifeline():
            self._loop.remove_reader(self._lifeline)
        if not self.is_doomed:
            self.is_doomed = True
            self._loop.call_later(DYING_S, self.send_signal, signal.SIGKILL)
            self._on_sign(self)

    def _read_lifeline(self) -> bool:
        """Read what waits of its note.  Returns whether more may come."""
        try:
            chunk = self._lifeline.recv(65536)
        except BlockingIOError:
            return True
        except ConnectionResetError:
            return False
        self._note = (self._note + chunk)[:NOTE_BYTES]
        return bool(chunk)

    def dying_of(self) -> int | None:
        """The signal that its note tells of so far, if any."""
        note = parse_note(self._note)
        return note.signal or None if note is not None else None

    def was_ended_from_outside(self) -> bool:
        """Whether its note or its last words tell that somebody else sent the signal: no request is to blame."""
        note = parse_note(self._note)
        if note is not None and note.sender not in (None, self.pid, os.getpid()):
            return True
        return signal.SIGTERM not in self.sent and any(SIGTERM_WORDS in line for line in self.last_log())

    def _on_death(self) -> None:
        pid, how, usage = os.wait4(self.pid, os.WNOHANG)
        if not pid:
            return
        self._popen.returncode = status = os.waitstatus_to_exitcode(how)
        for _ in range(16):  # what it said last: up to 1 MiB
            if not self._read_log():
                break
        if self._partial:
            self._keep(self._partial)
        self._read_lifeline()
        self._close()
        self.is_gone = True
        self._on_exit(self, Exit(status=status, note=self._note, peak_rss_bytes=usage.ru_maxrss * 1024))

    def _close(self) -> None:
        for fd in (self._pidfd, self._log_fd, self._lifeline.fileno()):
            self._loop.remove_reader(fd)
        os.close(self._pidfd)
        os.close(self._log_fd)
        self._lifeline.close()
        self.last = self.page.last()
        self.died_running = self.page.rested().is_running
        self.page.close()

    @property
    def last_job(self) -> int:
        """Once it is gone, the number of the request that it began last; 0 before."""
        return self.last.job

    def begun_job(self) -> int:
        """The number of the request that it began last, while it lives; 0 once it is gone."""
        return 0 if self.is_gone else self.page.job

    def last_log(self, lines: int = 10) -> list[str]:
        """The last *lines* of its output, those that wait in the pipe included."""
        if not self.is_gone:
            self._read_log()
        return list(self.log)[-lines:]

    def take_log(self, lines: int = 10) -> list[str]:
        """The last *lines* of what it said since this was asked before: those of the work that ended just now."""
        if not self.is_gone:
            self._read_log()
        found = list(self.log)[-min(lines, self._untold) :] if self._untold else []
        self._untold = 0
        return found

    def load_time_left_s(self, now_s: float, budget_s: float) -> float:
        """How much of *budget_s* it has left to come up and load; waiting for the loads of others does not count."""
        if self.has_hello and not self.loading_s:
            return budget_s
        return (self.loading_s or max(self.started_s, self.taken_s)) + budget_s - now_s

    def dump(self, wait_s: float = DUMP_S) -> None:
        """End it with SIGABRT, whose handler dumps the stacks; a stopped process does not take that, so SIGKILL after
        *wait_s*."""
        self.send_signal(signal.SIGABRT)
        self._loop.call_later(wait_s, self.send_signal, signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        """Signal the process, if it still lives: through the pidfd, so that it never reaches another."""
        if not self.is_gone:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)
                self.sent.add(number)
