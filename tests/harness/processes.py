"""What ``/proc`` tells of rkvisord and its processes: children, titles, descriptors, memory.

A process may be gone at any moment: then there is nothing to tell, and that is no error.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from pathlib import Path


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def parent_and_state(pid: int) -> tuple[int, str]:
    """The pid of its parent, and its state letter; (0, "") where it is gone."""
    words = _read(pid, "stat").rpartition(")")[2].split()
    return (int(words[1]), words[0]) if words else (0, "")


def children(pid: int) -> list[int]:
    """Its children, zombies too."""
    pids = [int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit()]
    return [one for one in pids if parent_and_state(one)[0] == pid]


def is_gone(pid: int) -> bool:
    """Whether it runs no more; nobody may have waited for it yet."""
    return parent_and_state(pid)[1] in ("", "Z", "X")


def title(pid: int) -> str:
    """As the process names itself, e.g. ``rkvisor: demo:0 [running]``."""
    return _read(pid, "cmdline").replace("\0", " ").strip()


def is_running(pid: int) -> bool:
    """Whether it is a worker's that has a request in the runtime, by its title."""
    return title(pid).endswith("[running]")


def _links(pid: int) -> list[str]:
    """What its descriptors are open on."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(entry.readlink()))
    return found


def descriptors(pid: int) -> int:
    """How many it has open, but for those that it watches processes through."""
    return sum(not link.startswith("/proc/") for link in _links(pid))


def watched(pid: int) -> set[int]:
    """The processes that it watches through ``/proc``, itself not counted."""
    found = {int(match[1]) for link in _links(pid) if (match := re.match(r"/proc/(\d+)", link))}
    return found - {pid}


def private_bytes(pid: int) -> int:
    """RssAnon: what only it uses."""
    for line in _read(pid, "status").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def send(pid: int, number: signal.Signals) -> None:
    """Signal it, if it is still there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
