"""Crash reports and dead letters as they are stored and as ``system.crashes`` and ``admin.dead_letters`` give them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

#: Why processes die (requirements S3.26).
CrashClass = Literal["systematic", "environmental", "resource-based", "timing-based"]
#: What the process was doing.
Phase = Literal["blank", "loading", "idle", "prefill", "generating", "stopping"]

MAX_CRASHES = 1000


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What a death left behind, before anything is concluded from it.  None, "" and 0: not known.

    signal, code: by name, "SIGSEGV" and "SEGV_MAPERR".  status: of an exit.  sender: pid that sent the signal from
    outside.  trouble: what ailed it before, such as a hang.  phase: what it was doing.  uptime_s: as this worker.
    requests: runs that it brought to an end.  request_digest: hex, of the request that it had begun.
    frames: the native stack that matters, the innermost first, "library.so+0xoffset"; other_frames: of the thread that
    the signal reached, if it was another.  files: of the libraries in frames.  python_stacks: faulthandler's lines.
    log: the runtime's last lines, without those.  rss_bytes: at its death, or after its last request where no note
    tells; peak_rss_bytes: ever.  oom: "confirmed" by the kernel's counters, or "presumed".
    """

    worker: str
    model: str
    pid: int
    incarnation: int
    signal: str | None = None
    status: int | None = None
    code: str | None = None
    address: str | None = None
    sender: int | None = None
    trouble: str = ""
    phase: Phase = "idle"
    uptime_s: float = 0.0
    requests: int = 0
    request_digest: str | None = None
    frames: list[str] = []
    other_frames: list[str] = []
    files: dict[str, str] = {}
    registers: dict[str, str] = {}
    python_stacks: list[str] = []
    log: list[str] = []
    rss_bytes: int = 0
    peak_rss_bytes: int = 0
    oom: Literal["", "presumed", "confirmed"] = ""
    runtime: str = ""
    family: str | None = None
    runtime_version: str | None = None
    npu: dict[str, Any] = {}


class CrashReport(Evidence, frozen=True, kw_only=True):
    """One death, understood as far as possible.

    time: Unix seconds, by a clock that may have been wrong; boot_id: of the kernel.  error: in one sentence.
    signature: the same for deaths of one cause.  hint: what to look at first.
    """

    id: str
    time: float
    boot_id: str
    error: str
    severity: Literal["error", "critical"]
    signature: str
    class_: CrashClass = msgspec.field(name="class")
    hint: str = ""


class CrashGroup(msgspec.Struct, kw_only=True):
    """All known deaths of one signature.  first, last: Unix seconds."""

    signature: str
    class_: CrashClass = msgspec.field(name="class")
    count: int
    first: float
    last: float
    workers: list[str]


class CrashList(msgspec.Struct, kw_only=True):
    """crashes: newest first.  groups: the most recent first."""

    crashes: list[CrashReport]
    groups: list[CrashGroup]


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A request that ended every process that ran it.

    digest: hex SHA-256 of what it asks to compute.  time: Unix seconds.  quarantined_s: for how long it is still
    refused.  error: what its client was told.  payload: its params as JSON text, kept only with store_prompts = true.
    """

    digest: str
    model: str
    principal: str
    time: float
    deaths: int
    quarantined_s: float = 0.0
    error: dict[str, Any] = {}
    payload: str | None = None


class DeadLetterList(msgspec.Struct, kw_only=True):
    """Newest first."""

    dead_letters: list[DeadLetter]


class Released(msgspec.Struct, kw_only=True):
    """released: digests that may run again."""

    released: list[str]


class Purged(msgspec.Struct, kw_only=True):
    """purged: number of dead letters that were thrown away."""

    purged: int


Limit = Annotated[int, Meta(ge=1, le=MAX_CRASHES)]
#: A whole digest, or enough of its beginning to mean one only.
MIN_DIGEST_CHARS = 4
Digest = Annotated[str, Meta(min_length=MIN_DIGEST_CHARS, max_length=64)]
