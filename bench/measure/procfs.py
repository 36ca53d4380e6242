"""What /proc says of a process: CPU time, wake-ups, memory of its own."""

from __future__ import annotations

from pathlib import Path


def _tasks(pid: int) -> list[Path]:
    return list(Path(f"/proc/{pid}/task").iterdir())


def cpu_s(pid: int) -> float:
    """Seconds on a CPU of all living threads, to the nanosecond (schedstat), user and system together."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in _tasks(pid)) / 1e9


def wakeups(pid: int) -> int:
    """How often threads of *pid* went to sleep of their own will, which is how often they were woken."""
    total = 0
    for task in _tasks(pid):
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                total += int(line.split()[1])
    return total


def uss_mb(pid: int) -> float:
    """Memory that would be free if *pid* ended, MB (10⁶ bytes): private pages of smaps_rollup."""
    kib = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(("Private_Clean", "Private_Dirty", "Private_Hugetlb")):
            kib += int(line.split()[1])
    return kib * 1024 / 1e6


def children(pid: int) -> list[int]:
    """Living children of all threads of *pid*."""
    return [int(word) for task in _tasks(pid) for word in (task / "children").read_text().split()]
