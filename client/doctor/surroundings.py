"""What the machine gives: kernel, memory, descriptors, clock, NPU.  Read below a root that tests choose."""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from rkvisor.worker.checks import machine as machines
from rkvisor.worker.checks import npu
from rkvisor.worker.checks.finding import Finding
from rkvisor.worker.checks.machine import Machine
from rkvisor.worker.checks.memory import size

#: Every time before this one comes from a clock that was never set (2025-01-01, Unix seconds).
EARLIEST_S = 1_735_689_600
#: Descriptors below which a hard limit gets in the way: clients, workers and the NPU's buffers each take some.
NEEDED_FILES = 4096


def check(root: Path = machines.ROOT) -> list[Finding]:
    """Findings about the machine without its NPU."""
    return [system(root), descriptors(*resource.getrlimit(resource.RLIMIT_NOFILE)), *clock(time.time(), root)]


def system(root: Path) -> Finding:
    """Kernel, processor, memory."""
    machine = machines.read(root)
    parts = [f"{platform.system()} {platform.release()} {os.uname().machine}", f"Python {platform.python_version()}"]
    if machine.cores is not None:
        parts.append(f"{machine.cores} CPUs")
    if machine.total_bytes is not None and machine.available_bytes is not None:
        parts.append(f"{size(machine.available_bytes)} of {size(machine.total_bytes)} memory available")
    if sys.byteorder != "little" or os.uname().machine not in ("aarch64", "x86_64"):
        text = ", ".join(parts)
        return Finding(about="system", level="warning", text=text, remedy="rkvisor is tested on aarch64 and x86-64")
    return Finding(about="system", level="ok", text=", ".join(parts))


def descriptors(soft: int, hard: int) -> Finding:
    """RLIMIT_NOFILE."""
    shown = "unlimited" if hard == resource.RLIM_INFINITY else str(hard)
    text = f"{soft} open files, at most {shown}"
    if hard != resource.RLIM_INFINITY and hard < NEEDED_FILES:
        remedy = f"raise it to {NEEDED_FILES} or more: LimitNOFILE in the systemd unit, or /etc/security/limits.conf"
        return Finding(about="limits", level="warning", text=text, remedy=remedy)
    return Finding(about="limits", level="ok", text=text)


def clock(now_s: float, root: Path) -> Iterator[Finding]:
    """Boards without a battery boot in 1970, and jump when the network is there."""
    if now_s < EARLIEST_S:
        text = f"the clock says {time.strftime('%Y-%m-%d', time.gmtime(now_s))}: it was never set"
        remedy = "start rkvisord behind time-sync.target; ages are bounded, times shown will be wrong"
        yield Finding(about="clock", level="warning", text=text, remedy=remedy)
    elif not any((root / "dev").glob("rtc*")):
        text = "set, but there is no real-time clock: after a boot it is wrong until the network is there"
        yield Finding(about="clock", level="note", text=text)
    else:
        yield Finding(about="clock", level="ok", text="set, with a real-time clock behind it")


def npu_findings(machine: Machine, kind: str, *, is_needed: bool) -> list[Finding]:
    """The NPU.  kind: ``uname -m``.  Without a model that needs it, what it lacks is told but is no problem."""
    found = npu.check(machine.npu, kind)
    if is_needed:
        return found
    is_there = kind == "aarch64" and bool(machine.npu.driver or machine.npu.own_nodes)
    level = "warning" if is_there else "note"
    return [msgspec.structs.replace(one, level=level) if one.level == "problem" else one for one in found]
