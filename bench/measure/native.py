"""The C programs beside the measurements, built with gcc when they are needed, against pyzmq's own libzmq."""

from __future__ import annotations

import subprocess
from pathlib import Path

import zmq

from measure.machine import ROOT

CACHE = ROOT / ".cache" / "bench"
SOURCES = ROOT / "bench" / "native"
_FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra"]


def libzmq() -> Path:
    """The libzmq that this process has loaded through pyzmq."""
    zmq.zmq_version()
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = Path(line.rpartition(" ")[2])
        if path.name.startswith("libzmq"):
            return path
    raise RuntimeError("cannot find the libzmq that pyzmq loads: none is mapped")


def build(name: str, *extra: str, output: str | None = None) -> Path:
    """Compile ``native/NAME.c`` unless that was done; the path of what came out."""
    source, target = SOURCES / f"{name}.c", CACHE / (output or name)
    if target.is_file() and target.stat().st_mtime > source.stat().st_mtime:
        return target
    CACHE.mkdir(parents=True, exist_ok=True)
    subprocess.run(["gcc", *_FLAGS, "-o", str(target), str(source), *extra], check=True)
    return target


def echo_peer() -> Path:
    """The stand-in for a worker process."""
    library = libzmq()
    return build("echo_peer", str(library), f"-Wl,-rpath,{library.parent}")


def doomed_runtime() -> Path:
    """An RKLLM runtime that dies in rkllm_init."""
    return build("doomed_runtime", "-shared", "-fPIC", output="doomed_runtime.so")


def doomed_child() -> Path:
    """A program that dies at once."""
    return build("doomed_child")
