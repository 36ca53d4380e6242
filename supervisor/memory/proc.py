"""What the texts below ``/proc/PID`` say of a process's memory.  Pure: ``probe.py`` reads them.

Parsing is by regular expressions over the whole text, because it runs in a thread beside the event loop: what costs
little holds the GIL for little.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

#: A line that counts here.  Its line break goes first: the search then skips the others.
_STATUS = re.compile(rb"\n(Vm(?:HWM|RSS|Swap)|Rss(?:Anon|File|Shmem)|Threads):\s*(\d+)")
#: A mapping's first line, or one of its numbers that count here (KiB).
_MAPPING = re.compile(
    rb"^(?:([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \d+ *([^\n]*)|(Rss|Pss|Private_Clean|Private_Dirty|Swap): +(\d+))",
    re.MULTILINE,
)
_FDINFO = re.compile(
    rb"^(ino|size|drm-client-id|drm-total-[\w-]+|drm-memory-[\w-]+):\s*(\S+)(?:[ \t]+(KiB|MiB))?", re.MULTILINE
)
_UNITS = {b"": 1, b"KiB": 1024, b"MiB": 1024 * 1024}


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Of ``/proc/PID/status``; the members are those of ``Sample``."""

    rss_bytes: int
    rss_anon_bytes: int
    rss_file_bytes: int
    rss_shmem_bytes: int
    swap_bytes: int
    hwm_bytes: int
    threads: int


def parse_status(text: bytes) -> Status | None:
    """None where the process has no memory (any more): it ends."""
    found = {name: int(number) for name, number in _STATUS.findall(text)}
    if b"VmRSS" not in found:
        return None
    kib = found.get
    return Status(
        rss_bytes=kib(b"VmRSS", 0) * 1024,
        rss_anon_bytes=kib(b"RssAnon", 0) * 1024,
        rss_file_bytes=kib(b"RssFile", 0) * 1024,
        rss_shmem_bytes=kib(b"RssShmem", 0) * 1024,
        swap_bytes=kib(b"VmSwap", 0) * 1024,
        hwm_bytes=kib(b"VmHWM", 0) * 1024,
        threads=found.get(b"Threads", 0),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Mappings:
    """The address space by class: "heap", "anonymous", "shmem", "memfd", "dmabuf", "device", "model", "library",
    "file", "stack", "kernel".

    size_bytes: of the writable mappings.  The next three are of smaps only, and None of maps.
    resident_bytes: by class, swapped pages included.
    """

    size_bytes: dict[str, int]
    resident_bytes: dict[str, int] | None = None
    pss_bytes: int | None = None
    uss_bytes: int | None = None


def classify_mapping(path: bytes, model: bytes) -> str:
    """The class of a mapping whose last column is *path*.  model: path of the model file, b"" where none is mapped."""
    if not path:
        return "anonymous"
    if path.startswith(b"["):
        name = path.partition(b":")[0].strip(b"[]")
        return {b"heap": "heap", b"stack": "stack", b"anon": "anonymous", b"anon_shmem": "shmem"}.get(name, "kernel")
    if path.startswith((b"/dmabuf:", b"anon_inode:dmabuf")):
        return "dmabuf"
    if path.startswith(b"/memfd:"):
        return "memfd"
    if path.startswith((b"/dev/zero", b"/dev/shm/", b"/SYSV")):
        return "shmem"
    if path.startswith(b"/dev/"):
        return "device"
    if model and path.removesuffix(b" (deleted)") == model:
        return "model"
    return "library" if b".so" in path.rpartition(b"/")[2] else "file"


def parse_mappings(text: bytes, model: bytes = b"") -> Mappings:
    """Of ``/proc/PID/maps``, or of ``smaps``, which has numbers behind each mapping."""
    sizes: dict[str, int] = {}
    resident: dict[str, int] = {}
    pss = uss = 0
    kind = ""
    has_numbers = False
    for low, high, flags, path, name, number in _MAPPING.findall(text):
        if low:
            kind = classify_mapping(path, model)
            if flags[1:2] == b"w":
                sizes[kind] = sizes.get(kind, 0) + int(high, 16) - int(low, 16)
            continue
        has_numbers = True
        if name == b"Pss":
            pss += int(number)
        elif name in (b"Rss", b"Swap"):
            resident[kind] = resident.get(kind, 0) + int(number) * 1024
        else:
            uss += int(number)
    if not has_numbers:
        return Mappings(size_bytes=sizes)
    return Mappings(size_bytes=sizes, resident_bytes=resident, pss_bytes=pss * 1024, uss_bytes=uss * 1024)


def classify_descriptor(target: str) -> str:
    """What a descriptor is, by what ``/proc/PID/fd/N`` points to.

    "dmabuf", "memfd", "device", "socket", "pipe", "eventfd", "file" or "other".
    """
    if target.startswith(("/dmabuf:", "anon_inode:dmabuf")):
        return "dmabuf"
    if target.startswith("/memfd:"):
        return "memfd"
    if target.startswith("/dev/"):
        return "device"
    for kind in ("socket", "pipe"):
        if target.startswith(f"{kind}:["):
            return kind
    if target.startswith("anon_inode:"):
        return "eventfd" if "event" in target else "other"
    return "file" if target.startswith("/") else "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptors:
    """All of a process's descriptors.  kinds: how many of each kind.  dmabuf_bytes, npu_bytes: see ``Sample``."""

    kinds: dict[str, int] = field(default_factory=dict)
    dmabuf_bytes: int | None = 0
    npu_bytes: int | None = None


def buffers_of(fdinfos: Iterable[bytes]) -> tuple[int, int | None]:
    """(bytes of dma-buf, bytes that DRM drivers tell of), from the texts of ``/proc/PID/fdinfo``.

    A buffer or a client behind several descriptors counts once.  The second is None where no driver tells.
    """
    buffers: dict[bytes, int] = {}
    clients: dict[bytes, int] = {}
    for text in fdinfos:
        found = {key: (value, unit) for key, value, unit in _FDINFO.findall(text)}
        if b"size" in found and found[b"size"][0].isdigit():
            key = found[b"ino"][0] if b"ino" in found else b"%d" % len(buffers)
            buffers[key] = int(found[b"size"][0])
        told = _drm_bytes(found, b"drm-total-")
        if told is None:
            told = _drm_bytes(found, b"drm-memory-")
        if told is not None:
            client = found[b"drm-client-id"][0] if b"drm-client-id" in found else b"?%d" % len(clients)
            clients[client] = told
    return sum(buffers.values()), sum(clients.values()) if clients else None


def _drm_bytes(found: dict[bytes, tuple[bytes, bytes]], prefix: bytes) -> int | None:
    told = [
        int(value) * _UNITS[unit] for key, (value, unit) in found.items() if key.startswith(prefix) and value.isdigit()
    ]
    return sum(told) if told else None
