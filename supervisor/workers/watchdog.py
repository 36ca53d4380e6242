"""When a request counts as hung, and what is done about it, step by step (design §5).  Pure; times are passed in.

A hang is seen by progress, not by heartbeats: libzmq's own are answered by its I/O thread even while Python hangs.  Any
callback of the runtime is progress.  Before the first, the budget scales with the prompt; an abort is waited for within
the same budgets, because the vendor's runtime does not interrupt a prefill.

    overdue → rkllm_abort → 2 s → SIGABRT (its handler dumps the stacks) → 1 s → SIGKILL → patience (D state)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto

#: After rkllm_abort; after SIGABRT; between further SIGKILLs at a process that the kernel does not let go (seconds).
ABORT_S, DUMP_S, KILL_S = 2.0, 1.0, 10.0
#: How long a run may still call back after its abort was asked for: the budget of a control call.
OBEY_S = 5.0


class Step(Enum):
    """What was done last, and so what comes next."""

    WATCH = auto()
    ABORT = auto()
    DUMP = auto()
    KILL = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """One run.  All times on the monotonic clock, seconds.

    first_s: budget until the first callback.  next_s: between two.  begun_s: when the run was dispatched.  progress_s:
    of the last callback that was seen, or begun_s.  abort_s: when somebody asked for its abort, or None.  acted_s: when
    ``step`` was taken.  scale: of the waits behind each step.
    is_restoring: the turns before it in its session may be replayed first, so that a callback is no sign that it has
    begun; each gives it the first budget again.
    """

    first_s: float
    next_s: float
    begun_s: float
    progress_s: float
    abort_s: float | None = None
    scale: float = 1.0
    step: Step = Step.WATCH
    acted_s: float = 0.0
    is_restoring: bool = False

    @property
    def has_begun(self) -> bool:
        """Whether the runtime called back at all in this run."""
        return self.progress_s > self.begun_s and not self.is_restoring

    @property
    def due_s(self) -> float:
        """When the next step is due."""
        match self.step:
            case Step.ABORT:
                return self.acted_s + ABORT_S * self.scale
            case Step.DUMP:
                return self.acted_s + DUMP_S * self.scale
            case Step.KILL:
                return self.acted_s + KILL_S * self.scale
        quiet_s = self.progress_s + (self.next_s if self.has_begun else self.first_s)
        if self.abort_s is not None and self.has_begun:
            return min(quiet_s, self.abort_s + OBEY_S * self.scale)
        return quiet_s


def look(watch: Watch, progress_s: float, now_s: float) -> tuple[Watch, Step | None]:
    """Look at a run again: the watch after it, and the step to take now, if any.

    progress_s: when the process called back last, in this run or before.  Progress saves a run that was only watched;
    once a step was taken, the run is over, and only its end is waited for.
    """
    watch = replace(watch, progress_s=max(watch.progress_s, progress_s))
    if now_s < watch.due_s:
        return watch, None
    following = {Step.WATCH: Step.ABORT, Step.ABORT: Step.DUMP, Step.DUMP: Step.KILL, Step.KILL: Step.KILL}
    step = following[watch.step]
    if watch.step is Step.WATCH and watch.abort_s is not None:
        step = Step.DUMP  # rkllm_abort was asked for already
    return replace(watch, step=step, acted_s=now_s), step
