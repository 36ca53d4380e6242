"""What this machine is: its NPU, its memory, its cores, read below a root that tests choose.  Decides nothing."""

from __future__ import annotations

import contextlib
import grp
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rkvisor.worker.checks.npu import Node, Npu

ROOT = Path("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """available_bytes: of memory, the limits of our control group counted.  cores: of the machine, None if not told."""

    npu: Npu
    available_bytes: int | None
    total_bytes: int | None
    cores: int | None


def read(root: Path = ROOT) -> Machine:
    """Everything at once; what cannot be read is left out."""
    available, total = memory_bytes(root)
    return Machine(npu=npu(root), available_bytes=available, total_bytes=total, cores=cores(root))


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


# The NPU.


def npu(root: Path = ROOT) -> Npu:
    """The NPU as the kernel shows it."""
    driver = next((text for text in map(_text, _driver_files(root)) if text.strip()), "").strip()
    nodes = [*_nodes(root, "dev/dri", "renderD*"), *_nodes(root, "dev", "rknpu")]
    compatible = _text(root / "proc/device-tree/compatible")
    return Npu(
        driver=driver.rpartition(":")[2].strip().removeprefix("v") or None,
        nodes=tuple(nodes),
        heaps=tuple(_nodes(root, "dev/dma_heap", "*")),
        chips=tuple(one for one in compatible.split("\0") if one.strip()),
    )


def _driver_files(root: Path) -> tuple[Path, ...]:
    return root / "sys/module/rknpu/version", root / "sys/kernel/debug/rknpu/version"


def _nodes(root: Path, folder: str, pattern: str) -> Iterator[Node]:
    for path in sorted((root / folder).glob(pattern)):
        group = ""
        with contextlib.suppress(OSError, KeyError):
            group = grp.getgrgid(path.stat().st_gid).gr_name
        yield Node(
            path="/" + str(path.relative_to(root)),
            driver=_driver_of(root, path.name),
            group=group,
            is_usable=os.access(path, os.R_OK | os.W_OK),
        )


def _driver_of(root: Path, name: str) -> str:
    """The kernel's driver behind a render node, "" where sysfs does not tell."""
    for line in _text(root / "sys/class/drm" / name / "device/uevent").splitlines():
        if line.startswith("DRIVER="):
            return line.removeprefix("DRIVER=")
    return ""


# Memory and cores.


def memory_bytes(root: Path = ROOT) -> tuple[int | None, int | None]:
    """(available, in all), the smaller of the machine's and of our control group's."""
    told = dict(line.split(":", 1) for line in _text(root / "proc/meminfo").splitlines() if ":" in line)
    available, total = (_kibibytes(told.get(name, "")) for name in ("MemAvailable", "MemTotal"))
    for folder in _groups(root):
        limit = _number(_text(folder / "memory.max"))
        used = _number(_text(folder / "memory.current"))
        if limit is None:
            continue
        total = min(limit, total) if total is not None else limit
        if used is not None:
            left = max(0, limit - used + _reclaimable(folder))
            available = min(left, available) if available is not None else left
    return available, total


def _kibibytes(text: str) -> int | None:
    number = _number(text.strip().removesuffix("kB"))
    return None if number is None else number * 1024


def _number(text: str) -> int | None:
    try:
        return int(text.strip())
    except ValueError:
        return None  # "max", or nothing


def _groups(root: Path) -> Iterator[Path]:
    """Our control group and those above it, of version 2: each may have a limit."""
    path = next((line[3:] for line in _text(root / "proc/self/cgroup").splitlines() if line.startswith("0::")), None)
    if path is None:
        return
    top = root / "sys/fs/cgroup"
    folder = top / path.strip("/")
    while True:
        yield folder
        if folder == top or top not in folder.parents:
            return
        folder = folder.parent


def _reclaimable(folder: Path) -> int:
    """Bytes of the group that are only cached files: the kernel takes them back before it refuses anything."""
    told = dict(line.split() for line in _text(folder / "memory.stat").splitlines() if len(line.split()) == 2)
    return sum(_number(told.get(name, "")) or 0 for name in ("active_file", "inactive_file"))


def cores(root: Path = ROOT) -> int | None:
    """CPUs that are there, used or not; their highest number and one."""
    last = _text(root / "sys/devices/system/cpu/present").strip().rpartition(",")[2].rpartition("-")[2]
    number = _number(last)
    return None if number is None else number + 1
