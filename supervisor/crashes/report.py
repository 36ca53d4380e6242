"""From what a dead process left to a crash report: reading, naming, and putting together.  Pure.

A report never depends on the crash handler having run: without a note, the wait status, the log and the page that the
process shared still say how it ended, what it did and what it said.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rkvisor.protocol.crash_note import Frame, Note, Thread, parse_note, split_log
from rkvisor.protocol.crashes import CrashReport, Evidence, Phase
from rkvisor.protocol.page import Last
from rkvisor.supervisor.crashes.classes import Context, classify
from rkvisor.supervisor.crashes.signature import signature, telling

#: The runtime's last lines, and those of Python's stacks, that a report keeps.
LOG_LINES, STACK_LINES = 50, 100

#: Signals that a note can be about; the numbers are Linux's on both processors.
_NAMES = {4: "SIGILL", 5: "SIGTRAP", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 11: "SIGSEGV", 31: "SIGSYS"}
_SENT = {0: "SI_USER", -1: "SI_QUEUE", -6: "SI_TKILL", 0x80: "SI_KERNEL"}
_CODES: dict[str, tuple[str, ...]] = {
    "SIGILL": ("ILL_ILLOPC", "ILL_ILLOPN", "ILL_ILLADR", "ILL_ILLTRP", "ILL_PRVOPC", "ILL_PRVREG"),
    "SIGFPE": ("FPE_INTDIV", "FPE_INTOVF", "FPE_FLTDIV", "FPE_FLTOVF", "FPE_FLTUND", "FPE_FLTRES", "FPE_FLTINV"),
    "SIGSEGV": ("SEGV_MAPERR", "SEGV_ACCERR", "SEGV_BNDERR", "SEGV_PKUERR"),
    "SIGBUS": ("BUS_ADRALN", "BUS_ADRERR", "BUS_OBJERR", "BUS_MCEERR_AR", "BUS_MCEERR_AO"),
    "SIGTRAP": ("TRAP_BRKPT", "TRAP_TRACE"),
    "SIGSYS": ("SYS_SECCOMP",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """The facts of one death, as rkvisord has them.

    status: as of ``subprocess``, how: the same in words ("SIGSEGV").  note, log: raw.  digest: of the request that it
    had begun.  rss_bytes: after its last request.  supervisor_pid: rkvisord's own.  was_ours: rkvisord sent the signal
    that ended it.  oom_kills: of the kernel since rkvisord looked last, None where it does not tell.
    """

    worker: str
    model: str
    pid: int
    incarnation: int
    status: int
    how: str
    note: bytes = b""
    log: list[str] = field(default_factory=list)
    trouble: str = ""
    phase: Phase = "idle"
    uptime_s: float = 0.0
    requests: int = 0
    digest: bytes | None = None
    rss_bytes: int = 0
    peak_rss_bytes: int = 0
    supervisor_pid: int = 0
    was_ours: bool = False
    oom_kills: int | None = None
    runtime: str = ""
    family: str | None = None
    runtime_version: str | None = None
    npu: Mapping[str, Any] = field(default_factory=dict)


def phase_of(last: Last, job: int | None, *, was_told: bool, is_ready: bool, was_stopping: bool) -> Phase:
    """What a process did when it died.

    job: number of the request that it had been given, which it may not have begun.  was_told: to load a model.
    """
    if was_stopping and job is None:
        return "stopping"
    if not is_ready:
        return "loading" if was_told else "blank"
    if job is None or last.job != job:
        return "idle"
    return "prefill" if last.progress == last.base else "generating"


def code_name(signal: str, code: int) -> str:
    """``SEGV_MAPERR`` of SIGSEGV's si_code 1; the number where it has no name."""
    if code in _SENT:
        return _SENT[code]
    names = _CODES.get(signal, ())
    return names[code - 1] if 0 < code <= len(names) else str(code)


def _files(*threads: Thread | None) -> dict[str, str]:
    return {frame.module: frame.path for thread in threads if thread for frame in thread.frames if frame.path}


def shown(frames: list[Frame]) -> list[str]:
    """Each frame as text; a recursion is told of once, with its depth."""
    told: list[str] = []
    for frame, group in itertools.groupby(str(frame) for frame in frames):
        count = len(list(group))
        told.append(frame if count == 1 else f"{frame} ({count} times)")
    return told


def _noted(note: Note, death: Death) -> dict[str, Any]:
    """What the note says, as members of the evidence."""
    place, got = note.place, note.threads[0] if note.threads else None
    name = _NAMES.get(note.signal, f"signal {note.signal}")
    other = got if got is not place else None
    return {
        "signal": name,
        "code": code_name(name, note.code),
        "address": None if note.address is None else f"{note.address:#x}",
        "sender": note.sender if note.sender not in (None, death.pid, death.supervisor_pid) else None,
        "frames": shown(place.frames) if place else [],
        "other_frames": shown(other.frames) if other else [],
        "files": _files(place, other),
        "registers": {key: f"{value:#x}" for key, value in place.registers.items()} if place else {},
        "rss_bytes": note.rss_bytes or death.rss_bytes,
    }


def _oom(death: Death) -> str:
    """A SIGKILL that nobody here sent, and that came without a fault before it."""
    if death.how != "SIGKILL" or death.was_ours or death.note:
        return ""
    return "confirmed" if death.oom_kills else "presumed"


def gather(death: Death) -> Evidence:
    """What *death* left behind, read.

    The note's signal counts even where the wait status says SIGKILL: a process that takes long to die of the first may
    be killed meanwhile.
    """
    note = parse_note(death.note)
    log, stacks = split_log(death.log)
    members: dict[str, Any] = {
        "signal": death.how if death.status < 0 else None,
        "rss_bytes": death.rss_bytes,
    }
    if note is not None and death.status < 0:
        members |= _noted(note, death)
    return Evidence(
        worker=death.worker,
        model=death.model,
        pid=death.pid,
        incarnation=death.incarnation,
        status=death.status if death.status >= 0 else None,
        trouble=death.trouble,
        phase=death.phase,
        uptime_s=round(death.uptime_s, 3),
        requests=death.requests,
        request_digest=death.digest.hex() if death.digest is not None else None,
        python_stacks=stacks[-STACK_LINES:],
        log=log[-LOG_LINES:],
        peak_rss_bytes=death.peak_rss_bytes,
        oom=_oom(death),  # type: ignore[arg-type]
        runtime=death.runtime,
        family=death.family,
        runtime_version=death.runtime_version,
        npu=dict(death.npu),
        **members,
    )


def describe(evidence: Evidence) -> str:
    """The death in one sentence."""
    how = evidence.signal or f"exit status {evidence.status}"
    doing = {
        "blank": "before it loaded a model",
        "loading": "while it loaded its model",
        "idle": "while it had nothing to do",
        "prefill": "in the prefill of a request",
        "generating": "while it generated",
        "stopping": "while it was being stopped",
    }[evidence.phase]
    where = "".join(f" at {frame}" for frame in telling(evidence.frames)[:1] if evidence.sender is None)
    trouble = f" ({evidence.trouble})" if evidence.trouble else ""
    return f"{evidence.worker}: process {evidence.pid} ended with {how}{where} {doing}{trouble}"


def conclude(evidence: Evidence, context: Context, *, id: str, time: float, boot_id: str, key: str = "") -> CrashReport:
    """The report of *evidence*.  key: its signature, where it is known already."""
    rule = classify(evidence, context)
    members = {name: getattr(evidence, name) for name in Evidence.__struct_fields__}
    return CrashReport(
        **members,
        id=id,
        time=round(time, 3),
        boot_id=boot_id,
        error=describe(evidence),
        severity="critical" if rule.kind == "resource-based" else "error",
        signature=key or signature(evidence),
        class_=rule.kind,
        hint=rule.hint,
    )
