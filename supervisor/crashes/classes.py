"""What kind of cause a death had, and what to look at first: rules as data, the first that fits (S3.25, S3.26).  Pure.

systematic: a defect that will strike again at the same place.  environmental: something outside of the process.
resource-based: something ran out.  timing-based: a hang, or a race.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rkvisor.protocol.crashes import CrashClass, Evidence
from rkvisor.protocol.rkllm_log import classify as rkllm_code

#: A fault within so many bytes of the stack pointer is an overflow of the stack: the largest frame that is usual.
STACK_BYTES = 65536
#: Exit status of a worker whose own code failed (``worker/crash.py``).
PANIC_STATUS = 70
_EXHAUSTED = (
    "std::bad_alloc",
    "MemoryError",
    "Cannot allocate memory",
    "out of memory",
    "Out of memory",
    "Too many open files",
    "No space left on device",
)
#: What a worker says before it obeys (``worker/main.py``).
SIGTERM_WORDS = "rkvisor: ending because of SIGTERM"
_DEVICE = ("RKLLM_DEVICE_ERROR",)
_WRONG_MODEL = ("RKLLM_MODEL_NOT_FOUND", "RKLLM_INVALID_PARAM")
_WRONG_ABI = "the commonest cause at this point is a library of another ABI family: see abi in the model's section"


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """earlier: known deaths of the same signature.  others: other workers that died within the fault window."""

    earlier: int = 0
    others: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """hint: what to tell the operator where ``fits`` holds."""

    kind: CrashClass
    hint: str
    fits: Callable[[Evidence, Context], bool]


def is_stack_overflow(evidence: Evidence) -> bool:
    """Whether the fault's address lies beside the stack pointer."""
    pointer = evidence.registers.get("rsp") or evidence.registers.get("sp")
    if evidence.signal != "SIGSEGV" or pointer is None or evidence.address is None:
        return False
    return abs(int(pointer.split()[0], 16) - int(evidence.address, 16)) <= STACK_BYTES


def _log_has(evidence: Evidence, parts: tuple[str, ...]) -> bool:
    return any(part in line for line in (*evidence.log, *evidence.python_stacks) for part in parts)


RULES: tuple[Rule, ...] = (
    Rule(
        "resource-based",
        "killed by the kernel for want of memory: a smaller model or context, fewer workers, or max_rss",
        lambda e, _: e.oom == "confirmed",
    ),
    Rule(
        "resource-based",
        "a SIGKILL that rkvisord did not send: most likely the kernel, for want of memory (see dmesg)",
        lambda e, _: e.oom == "presumed",
    ),
    Rule("timing-based", "it hung; the frames tell where it waited", lambda e, _: bool(e.trouble)),
    Rule(
        "resource-based",
        "its stack ran over: endless recursion, or a small RLIMIT_STACK",
        lambda e, _: is_stack_overflow(e),
    ),
    Rule("resource-based", "memory ran out: see the log", lambda e, _: rkllm_code(e.log) == "RKLLM_MEMORY_ERROR"),
    Rule("resource-based", "a resource ran out: see the log", lambda e, _: _log_has(e, _EXHAUSTED)),
    Rule("environmental", "another process sent the signal", lambda e, _: e.sender is not None),
    Rule("environmental", "somebody sent it SIGTERM", lambda e, _: e.status == 0 and _log_has(e, (SIGTERM_WORDS,))),
    Rule(
        "environmental",
        "several workers died at once: look for one cause outside of them, such as a reset of the NPU",
        lambda e, c: c.others > 0,
    ),
    Rule(
        "environmental",
        "the NPU or its driver failed: see the log",
        lambda e, _: rkllm_code(e.log) == "RKLLM_DEVICE_ERROR",
    ),
    Rule(
        "environmental",
        "the model does not fit the runtime: see the log",
        lambda e, _: rkllm_code(e.log) in _WRONG_MODEL,
    ),
    Rule(
        "environmental",
        "an instruction that this processor does not know: a library built for another one",
        lambda e, _: e.signal == "SIGILL",
    ),
    Rule("environmental", "a system call that a sandbox forbids", lambda e, _: e.signal == "SIGSYS"),
    Rule(
        "environmental",
        "a mapped file became shorter, or its file system is full: was a model or library replaced in place?",
        lambda e, _: e.signal == "SIGBUS" and e.code == "BUS_ADRERR",
    ),
    Rule("systematic", "rkvisor's own code failed: please report the traceback", lambda e, _: e.status == PANIC_STATUS),
    Rule("systematic", "it died at the same place before", lambda e, c: c.earlier > 0),
    Rule(
        "timing-based",
        "it died while it was being stopped: a race in the runtime's teardown",
        lambda e, _: e.phase == "stopping",
    ),
    Rule(
        "systematic",
        f"it died while it loaded the model; {_WRONG_ABI}",
        lambda e, _: e.phase == "loading" and e.signal in ("SIGSEGV", "SIGBUS"),
    ),
    Rule(
        "systematic",
        f"it died in its first request; {_WRONG_ABI}",
        lambda e, _: e.phase == "prefill" and not e.requests and e.signal in ("SIGSEGV", "SIGBUS"),
    ),
    Rule("systematic", "the runtime gave up by itself: see the log's last lines", lambda e, _: e.signal == "SIGABRT"),
    Rule("systematic", "the runtime, or a library of it, called exit()", lambda e, _: e.status is not None),
    Rule("timing-based", "it died while it had nothing to do: a thread of the runtime", lambda e, _: e.phase == "idle"),
    Rule("systematic", "the runtime failed at the place that the frames name", lambda e, _: bool(e.frames)),
    Rule(
        "systematic",
        "it left no note: a stack that ran over in a thread of the runtime, or memory that was overwritten",
        lambda e, _: True,
    ),
)


def classify(evidence: Evidence, context: Context) -> Rule:
    """The first rule that fits; the last one always does."""
    return next(rule for rule in RULES if rule.fits(evidence, context))
