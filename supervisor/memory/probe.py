"""Reading ``/proc/PID`` of one process.  No policy; ``proc.py`` says what the texts mean.

The directory is held open, so that a pid which the kernel gave to another process meanwhile is not read for this one.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from rkvisor.supervisor.memory.proc import (
    Descriptors,
    Mappings,
    Status,
    buffers_of,
    classify_descriptor,
    parse_mappings,
    parse_status,
)

#: Bytes asked for at once; the kernel gives a page at a time of the long texts.
_CHUNK = 65_536


class Probe:
    """pid: of a living process.  Raises OSError where it is gone.  All reads raise OSError once it is."""

    def __init__(self, pid: int):
        self._folder = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._status = self._open("status")
        except OSError:
            os.close(self._folder)
            raise

    def _open(self, name: str, flags: int = 0) -> int:
        return os.open(name, os.O_RDONLY | os.O_CLOEXEC | flags, dir_fd=self._folder)

    def _read(self, name: str) -> bytes:
        fd = self._open(name)
        try:
            chunks = []
            while chunk := os.read(fd, _CHUNK):
                chunks.append(chunk)
        finally:
            os.close(fd)
        return b"".join(chunks)

    def status(self) -> Status | None:
        """Costs some microseconds whatever the size of the process."""
        return parse_status(os.pread(self._status, 8192, 0))

    def count_descriptors(self) -> int:
        """From Linux 6.2 on the size of the folder is their number; before, they are listed."""
        size = os.stat("fd", dir_fd=self._folder).st_size
        return size or len(self._list("fd"))

    def _list(self, name: str) -> list[str]:
        fd = self._open(name, os.O_DIRECTORY)
        try:
            return os.listdir(fd)  # noqa: PTH208  a descriptor, not a path
        finally:
            os.close(fd)

    def descriptors(self) -> Descriptors:
        """Every descriptor looked at: some microseconds each.  One that is closed meanwhile is passed over.

        Of a process whose descriptors may not be read, ``dmabuf_bytes`` is None.
        """
        kinds: dict[str, int] = {}
        texts = []
        try:
            numbers = self._list("fd")
        except PermissionError:
            return Descriptors(dmabuf_bytes=None)
        for number in numbers:
            with contextlib.suppress(FileNotFoundError):
                kind = classify_descriptor(os.readlink(f"fd/{number}", dir_fd=self._folder))
                kinds[kind] = kinds.get(kind, 0) + 1
                if kind in ("dmabuf", "device"):
                    texts.append(self._read(f"fdinfo/{number}"))
        dmabuf, npu = buffers_of(texts)
        return Descriptors(kinds=kinds, dmabuf_bytes=dmabuf, npu_bytes=npu)

    def mappings(self, model: str, *, is_thorough: bool) -> Mappings:
        """The address space by class.

        is_thorough: from smaps, for which the kernel walks the page tables (7 ms at 2 GiB) and keeps the process from
        changing its mappings meanwhile; only for one that is idle.
        """
        return parse_mappings(self._read("smaps" if is_thorough else "maps"), os.fsencode(model))

    def close(self) -> None:
        """No read any more."""
        os.close(self._status)
        os.close(self._folder)


def available_bytes() -> int:
    """What new programs of this machine can take without swapping (MemAvailable), 0 where the kernel does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError), Path("/proc/meminfo").open("rb") as file:
        for line in file:
            if line.startswith(b"MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0
