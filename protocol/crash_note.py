"""The note that a dying process writes to its lifeline, and the Python stacks that it leaves in its log.  Pure.

A note is lines of text, written in this order by a signal handler (``cython_ext/crash/``) that may die at any of them:

    rkvisor-crash 1
    signal 11                    number of the signal
    code 1                       si_code; ≤ 0 where somebody sent the signal
    sender 4711                  pid of who sent it          (code ≤ 0)
    address 0xd0                 the fault's address         (code > 0; SIGSYS: "syscall 42")
    page_bytes 4096
    statm 22701 3518 1729 …      /proc/self/statm, in pages: size, resident, shared, …
    thread 4712                  the thread that got the signal
    name runner
    register rip 0x7f… PATH+0x…  every general register; PATH+offset where it points into code
    frame 0x7f… PATH+0x…         its stack, the innermost first
    end

A signal from rkvisord, which ends a worker that hangs, reaches any thread; then a second block from ``thread`` to
``end`` tells where the runner was.
The offset is the address within the file, as ``addr2line -e PATH`` takes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

MAGIC = "rkvisor-crash 1"
RUNNER = "runner"


@dataclass(frozen=True, slots=True)
class Frame:
    """A place in code.  path, offset: of the file that the address lies in; "" and 0 where that is unknown."""

    address: int
    path: str = ""
    offset: int = 0

    @property
    def module(self) -> str:
        """The file's name without its folders."""
        return self.path.rpartition("/")[2]

    def __str__(self) -> str:
        return f"{self.module}+{self.offset:#x}" if self.path else f"{self.address:#x}"


@dataclass(slots=True, kw_only=True)
class Thread:
    """One thread at the time of the note.  frames: the innermost first.  is_whole: the walk came to its end."""

    number: int
    name: str = ""
    registers: dict[str, int] = field(default_factory=dict)
    frames: list[Frame] = field(default_factory=list)
    is_whole: bool = False


@dataclass(slots=True, kw_only=True)
class Note:
    """What was read of a note; all of it may be missing.  threads: first the one that got the signal."""

    signal: int = 0
    code: int = 0
    sender: int | None = None
    address: int | None = None
    syscall: int | None = None
    rss_bytes: int = 0
    threads: list[Thread] = field(default_factory=list)

    @property
    def place(self) -> Thread | None:
        """The thread to look at: where the model runs if the signal came from outside, else the one that failed."""
        if self.sender is not None:
            for thread in self.threads:
                if thread.name == RUNNER:
                    return thread
        return self.threads[0] if self.threads else None


def _frame(words: list[str]) -> Frame:
    """From ``["0x7f…", "PATH+0x…"]``, the latter being optional; a path may contain blanks.  Raises ValueError."""
    address = int(words[0], 16)
    path, plus, offset = " ".join(words[1:]).rpartition("+")
    return Frame(address, path, int(offset, 16)) if plus else Frame(address)


def _thread_line(thread: Thread, key: str, words: list[str]) -> None:
    match key:
        case "name":
            thread.name = " ".join(words)
        case "register":
            thread.registers[words[0]] = int(words[1], 16)
        case "frame":
            thread.frames.append(_frame(words))
        case "end":
            thread.is_whole = True


def _line(note: Note, key: str, words: list[str], page_bytes: int) -> int:
    match key:
        case "signal":
            note.signal = int(words[0])
        case "code":
            note.code = int(words[0])
        case "sender":
            note.sender = int(words[0])
        case "syscall":
            note.syscall = int(words[0])
        case "address":
            note.address = int(words[0], 16)
        case "page_bytes":
            return int(words[0])
        case "statm":
            note.rss_bytes = int(words[1]) * page_bytes
        case "thread":
            note.threads.append(Thread(number=int(words[0])))
        case _ if note.threads:
            _thread_line(note.threads[-1], key, words)
    return page_bytes


def parse_note(raw: bytes) -> Note | None:
    """The note in *raw*, as far as it goes; None if there is none.  Never raises: a broken line is passed over."""
    lines = raw.decode(errors="replace").split("\n")
    if lines[0] != MAGIC:
        return None
    note = Note()
    page_bytes = 0
    for line in lines[1:-1]:  # the last is what was being written when the process died, or nothing
        key, *words = line.split(" ")
        try:
            page_bytes = _line(note, key, words, page_bytes)
        except (ValueError, IndexError):
            continue
    return note


_FATAL = "Fatal Python error: "
_STACK = re.compile(r"(Current thread|Thread) 0x[0-9a-f]+ (\[.*\] )?\(most recent call first\):")
_IN_STACK = re.compile(r'  File ".*", line \d+|  \.\.\.|  <no Python frame>|  <truncated rest of calls>|$')
_PANIC = re.compile(r"PANIC at |Traceback \(most recent call last\):")
_IN_PANIC = re.compile(r"  |\w[\w.]*(: |$)|During handling of|The above exception|Traceback \(most recent|$")


def split_log(lines: Iterable[str]) -> tuple[list[str], list[str]]:
    """The runtime's own lines, and those with which Python told of its end (faulthandler's, a panic's traceback).

    Other threads may have written between the latter; what does not look like part of a stack stays with the runtime.
    """
    own: list[str] = []
    stacks: list[str] = []
    inside: re.Pattern[str] | None = None
    for line in lines:
        if line.startswith(_FATAL) or _STACK.fullmatch(line):
            inside = _IN_STACK
        elif line.startswith("Extension modules: "):
            inside = None
        elif _PANIC.match(line):
            inside = _IN_PANIC
        elif inside is None or not inside.match(line):
            own.append(line)
            continue
        if line:
            stacks.append(line)
    return own, stacks
