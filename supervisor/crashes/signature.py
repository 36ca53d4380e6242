"""Which deaths are one death again: a key from how the process ended and where.  Pure.

The innermost frames make the key, as file and offset, which address space randomisation leaves alone; frames of the C
library, where an abort or a wait ends, say nothing and are passed over.  Without frames the last log line stands in,
its numbers and quotations taken out, and else what the process was doing.
"""

from __future__ import annotations

import re

from rkvisor.protocol.crashes import Evidence
from rkvisor.protocol.rkllm_log import classify

#: Frames that make a signature.
DEPTH = 3
#: An address below is NULL and an offset to it.
NULL_BYTES = 65536
#: Characters of a log line in a signature.
LINE_CHARS = 80
#: Beginnings of the names of libraries that only carry out what others asked for.
_CARRIERS = ("libc.so", "libc-", "libpthread", "ld-linux", "linux-vdso", "libgcc_s", "libstdc++", "libasan", "libubsan")
#: Where the runtime ends and rkvisor's own side begins.
_CALLERS = ("libpython", "python", "_rkllm.", "libffi", "_ctypes.")
#: Log lines of the runtime that tell of no trouble.
_CHATTER = ("I rkllm:", "D rkllm:")
_NUMBER = re.compile(r"0x[0-9a-fA-F]+|\d+")
_QUOTED = re.compile(r"""(?<!\w)'[^']*'|"[^"]*"|`[^'`]*['`]|‘[^’]*’""")


def signature(evidence: Evidence) -> str:
    """The key, such as ``SIGSEGV librkllmrt.so+0x1a2b < librkllmrt.so+0x99``."""
    how = evidence.signal or f"exit {evidence.status}"
    if evidence.trouble:
        how = f"hang, {how}"
    elif evidence.sender is not None:
        return f"{how} from outside"
    if evidence.oom:
        return f"{how} out of memory while {evidence.phase}"
    return f"{how} {where(evidence)}"


def where(evidence: Evidence) -> str:
    """Where it ended: frames, or a log line, or a phase."""
    frames = telling(evidence.frames)
    if frames:
        return " < ".join(frames)
    for line in evidence.python_stacks:
        if line.startswith("PANIC at "):
            return plain(re.sub(r"(?<=PANIC at )\S*/", "", line))
    code = classify(evidence.log)
    if code is not None:
        return code
    last = next((line for line in reversed(evidence.log) if line.strip() and not line.startswith(_CHATTER)), "")
    return plain(last) if last else f"while {evidence.phase}"


def telling(frames: list[str]) -> list[str]:
    """At most ``DEPTH`` frames that tell a cause: without carriers, without repetitions, not beyond the caller."""
    known = [frame.partition(" ")[0] for frame in frames if not _is_adrift(frame)]
    inner = [frame for frame in known if not frame.startswith(_CARRIERS)]
    if not inner:
        return known[:1]
    kept: list[str] = []
    for frame in inner:
        if kept and frame.startswith(_CALLERS):
            break
        if frame not in kept:
            kept.append(frame)
    return kept[:DEPTH]


def _is_adrift(frame: str) -> bool:
    """Whether *frame* lies in no file, and not beside NULL either: such an address differs every time."""
    return frame.startswith("0x") and int(frame.partition(" ")[0], 16) > NULL_BYTES


def plain(line: str) -> str:
    """*line* without what differs from one time to the next."""
    return _NUMBER.sub("#", _QUOTED.sub("'…'", line.strip()))[:LINE_CHARS]
