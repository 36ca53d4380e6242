"""What the kernel tells about this machine: its boot, its kills for want of memory, its NPU driver."""

from __future__ import annotations

import contextlib
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_VMSTAT = Path("/proc/vmstat")
_CGROUP = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")
_DRIVER = (Path("/sys/module/rknpu/version"), Path("/sys/kernel/debug/rknpu/version"))


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def boot_id() -> str:
    """Of the running kernel, "" where it does not tell."""
    return _read(_BOOT_ID).strip()


def npu_driver() -> str | None:
    """The version of the rknpu driver, None without one."""
    for path in _DRIVER:
        text = _read(path).strip()
        if text:
            return text
    return None


def counted_kills(text: str) -> int | None:
    """The number behind ``oom_kill`` in *text*, of the form of /proc/vmstat and of a cgroup's memory.events."""
    for line in text.splitlines():
        name, _, number = line.partition(" ")
        if name == "oom_kill":
            with contextlib.suppress(ValueError):
                return int(number)
    return None


class OomKills:
    """Counts the kernel's kills for want of memory: in our control group where that is told, else on the machine."""

    def __init__(self) -> None:
        path = next((line[3:] for line in _read(_CGROUP).splitlines() if line.startswith("0::")), "")
        events = _CGROUPS / path.lstrip("/") / "memory.events"
        self._path = events if counted_kills(_read(events)) is not None else _VMSTAT
        self._seen = counted_kills(_read(self._path))

    def since_last(self) -> int | None:
        """How many there were since the last call (at first: since rkvisord began); None where nothing tells."""
        before, self._seen = self._seen, counted_kills(_read(self._path))
        return None if before is None or self._seen is None else self._seen - before
