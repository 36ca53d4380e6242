"""The directories and sockets of a configuration: whether rkvisord could use them, as this user, now."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from rkvisor.supervisor.config import Config, sockets
from rkvisor.worker.checks.finding import Finding
from rkvisor.worker.checks.memory import MIB, size

#: Free disk below which the state directory gets into trouble: its databases, their logs, an export of a batch job.
LOW_BYTES, LEAST_BYTES = 512 * MIB, 16 * MIB
#: File systems that a reboot empties.
_VOLATILE = ("tmpfs", "ramfs")
#: File systems in which nobody makes anything, though root's right to write is affirmed (seen: ENOENT and EPERM).
_KERNELS = ("proc", "sysfs")


def check(config: Config) -> list[Finding]:
    """Findings about run_dir, state_dir and the sockets."""
    holder = running(Path(config.supervisor.run_dir))
    state_dir = Path(config.supervisor.state_dir)
    mounts = Path("/proc/mounts")
    found = [*folder("run_dir", Path(config.supervisor.run_dir), mounts), *folder("state_dir", state_dir, mounts)]
    found += disk(state_dir, mounts)
    if holder is not None:
        text = f"rkvisord runs with this configuration's run_dir, pid {holder}"
        return [*found, Finding(about="rkvisord", level="note", text=text)]
    return [*found, *others(config), *ports([*config.listen.clients, *config.listen.events])]


def others(config: Config) -> Iterator[Finding]:
    """Socket paths that somebody else has; rkvisord is not running.  What is no socket is refused with the file."""
    for where, path in sockets.wanted(config):
        obstacle = sockets.answered(path)
        if obstacle is not None:
            text = f"{where}: {obstacle.text}"
            yield Finding(about="socket", level="problem", text=text, remedy=obstacle.remedy)


def running(run_dir: Path) -> str | None:
    """Who holds the lock of the run directory, None where nobody does."""
    try:
        with (run_dir / "lock").open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read(32).decode(errors="replace").strip() or "unknown"
    except OSError:
        pass
    return None


def _existing(path: Path) -> Path:
    """The nearest folder above *path*, itself included, that is there."""
    return next((one for one in (path, *path.parents) if one.exists()), Path("/"))


def folder(key: str, path: Path, mounts: Path) -> Iterator[Finding]:
    """Whether *path* can be written, or made."""
    there = _existing(path)
    remedy = f"set {key} in [supervisor], or give the folder to the user that rkvisord runs as"
    if not there.is_dir():
        yield Finding(about=key, level="problem", text=f"{there} is no folder", remedy=remedy)
    elif not os.access(there, os.W_OK | os.X_OK):
        user = f"user {os.geteuid()}"
        text = f"{path} cannot be {'written' if there == path else 'made'} by {user}: no right to write in {there}"
        yield Finding(about=key, level="problem", text=text, remedy=remedy)
    elif (kind := _file_system(there, mounts)) in _KERNELS:
        text = f"{path} cannot be made: {there} is the kernel's ({kind})"
        yield Finding(about=key, level="problem", text=text, remedy=remedy)
    else:
        yield Finding(about=key, level="ok", text=f"{path}{'' if there == path else ' (will be made)'}")


def disk(state_dir: Path, mounts: Path) -> Iterator[Finding]:
    """Room for the state, on a disk that keeps it."""
    there = _existing(state_dir)
    try:
        free_bytes = shutil.disk_usage(there).free
    except OSError as error:
        text = f"cannot tell the free space of {there}: {error.strerror}"
        yield Finding(about="disk", level="warning", text=text)
        return
    remedy = "free some, or set state_dir to another disk"
    level = "problem" if free_bytes < LEAST_BYTES else "warning" if free_bytes < LOW_BYTES else "ok"
    text = f"{size(free_bytes)} free for the state"
    yield Finding(about="disk", level=level, text=text, remedy="" if level == "ok" else remedy)  # type: ignore[arg-type]
    kind = _file_system(there, mounts)
    if kind in _VOLATILE:
        text = f"{state_dir} lies in memory ({kind}): batch jobs and crash reports do not outlive a reboot"
        yield Finding(about="disk", level="warning", text=text, remedy="set state_dir to a folder on a disk")


def _file_system(path: Path, mounts: Path) -> str:
    """The type of the file system that *path* lies in, "" where it is not told."""
    best, kind = "", ""
    try:
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        fields = line.split()
        if len(fields) < 3:
            continue
        place = fields[1].encode().decode("unicode_escape")
        if len(place) >= len(best) and Path(os.path.realpath(path)).is_relative_to(place):
            best, kind = place, fields[2]
    return kind


def ports(endpoints: list[str]) -> Iterator[Finding]:
    """TCP ports that somebody else has; rkvisord is not running."""
    for endpoint in endpoints:
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        if not endpoint.startswith("tcp://") or not port.isdigit():
            continue
        address = host.strip("[]")
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind(("" if address in ("*", "0.0.0.0") else address, int(port)))
            except OSError as error:
                text = f"{endpoint} cannot be bound: {error.strerror}"
                yield Finding(about="socket", level="problem", text=text, remedy="choose another port in [listen]")
