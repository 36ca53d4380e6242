"""Which events each phase of a worker's life may hear, as design §5 has it."""

from rkvisor.supervisor.workers.lifecycle import (
    Answered,
    Drained,
    Exited,
    Phase,
    Prepared,
    Ready,
    Recycle,
    Start,
    Stop,
    TimerFired,
)

#: What each phase may hear; everything else is illegal there.
HEARS: dict[Phase, set[type]] = {
    Phase.STOPPED: {Start},
    Phase.STARTING: {Ready, TimerFired, Exited, Stop},
    Phase.RUNNING: {TimerFired, Answered, Exited, Stop, Recycle, Prepared, Drained},
    Phase.BACKOFF: {Start, TimerFired, Stop},
    Phase.STOPPING: {Drained, Answered, Ready, TimerFired, Exited},
    Phase.EXITED: {Start},
    Phase.FATAL: {Start},
}
