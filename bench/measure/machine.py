"""What the numbers were measured on: written into every result, because they mean little without it."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import zmq

ROOT = Path(__file__).resolve().parents[2]


def cpu_model() -> str:
    """From /proc/cpuinfo; on ARM, which has no name there, the device tree's or the architecture."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.lower().startswith("model name"):
            return line.partition(":")[2].strip()
    tree = Path("/proc/device-tree/model")
    return tree.read_text().strip("\0\n ") if tree.is_file() else platform.machine()


def commit() -> str:
    """Short hash of HEAD, with "+" where tracked files differ from it; "unknown" outside of a repository."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        head = git("rev-parse", "--short", "HEAD")
        changed = git(
            "status", "--porcelain", "--untracked-files=no", "--", "supervisor", "protocol", "worker", "client"
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if changed else "")


def describe() -> dict[str, Any]:
    """The machine, the software and the moment.  load_1m tells whether the machine was quiet."""
    return {
        "machine": {
            "cpu": cpu_model(),
            "cores": len(os.sched_getaffinity(0)),
            "architecture": platform.machine(),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "libzmq": zmq.zmq_version(),
            "pyzmq": zmq.__version__,
            "load_1m": round(os.getloadavg()[0], 2),
        },
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
