"""The life of a worker: a pure state machine, without clock, process or socket.

``step`` is the only transition function: it returns the next state and the effects that the shell must carry out, in
order.  Phase names are supervisord's.  RUNNING means that READY was received; a worker has *settled* when it stayed up
for startsecs or answered a request.  A settled worker that dies is replaced at once; one that dies before it settled
waits, longer each time, and after ``startretries`` such deaths in a row it is FATAL until an operator acts.

The diagram in ``docs/lifecycle.md`` is rendered from ``TABLE`` by ``to_mermaid`` and compared in a test.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto


class Phase(Enum):
    """supervisord's process states; the value is its state code."""

    STOPPED = 0
    STARTING = 10
    RUNNING = 20
    BACKOFF = 30
    STOPPING = 40
    EXITED = 100
    FATAL = 200


class Stage(Enum):
    """How far a stop has come: requests may finish; they are aborted; SIGTERM was sent; SIGKILL was sent."""

    DRAIN = auto()
    ABORT = auto()
    TERM = auto()
    KILL = auto()


class Turn(Enum):
    """Where a worker is on its way to a new process that it gets without having failed (recycling).

    PREPARE: it serves; the replacement loads.  SWAP: the replacement is ready; the request at hand may finish, no other
    begins.  STOP_FIRST: it is being stopped, the same way, because there is no room for two; then it starts again.
    """

    NONE = auto()
    PREPARE = auto()
    SWAP = auto()
    STOP_FIRST = auto()


@dataclass(frozen=True, slots=True)
class Start:
    """An operator or autostart asked for the worker."""


@dataclass(frozen=True, slots=True)
class Stop:
    """An operator asked the worker to stop."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The process sent READY: its model is loaded."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The worker answered a request: it has settled, however young it is."""


@dataclass(frozen=True, slots=True)
class Drained:
    """No request is left on a worker that is being stopped, or whose replacement is ready."""


@dataclass(frozen=True, slots=True)
class Recycle:
    """The worker shall get a new process.  has_room: for the replacement beside the old process."""

    has_room: bool


@dataclass(frozen=True, slots=True)
class Prepared:
    """The replacement is ready, or is_ready is False: there is none (any more), and the worker goes on as it is."""

    is_ready: bool = True


@dataclass(frozen=True, slots=True)
class Exited:
    """The process is gone.

    is_permanent: it said that another try would fail alike (no such model file, wrong kind of model).
    is_expected: its exit code is one of ``exitcodes``.
    """

    is_permanent: bool = False
    is_expected: bool = False


@dataclass(frozen=True, slots=True)
class TimerFired:
    """A timer armed in generation ``generation`` came due."""

    generation: int


Event = Start | Stop | Ready | Answered | Drained | Recycle | Prepared | Exited | TimerFired


class Effect(Enum):
    """What the shell does.  The ARM effects start one timer; a later transition makes it stale."""

    SPAWN = auto()
    PREPARE = auto()
    SWAP = auto()
    DRAIN = auto()
    ABORT = auto()
    TERM = auto()
    DUMP = auto()
    KILL = auto()
    ARM_START_TIMEOUT = auto()
    ARM_SETTLE = auto()
    ARM_BACKOFF = auto()
    ARM_STOP = auto()
    ARM_ABORT = auto()
    ARM_KILL = auto()


@dataclass(frozen=True, slots=True)
class Policy:
    """startretries: unsettled deaths in a row before FATAL, ≥ 0.  autorestart: "true", "false" or "unexpected"."""

    startretries: int = 3
    autorestart: str = "true"


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """failures: unsettled deaths in a row.  settled: see above.  stage: of a stop.  turn: of a recycling.
    generation: bumps on every step."""

    phase: Phase = Phase.STOPPED
    failures: int = 0
    settled: bool = False
    stage: Stage = Stage.DRAIN
    turn: Turn = Turn.NONE
    generation: int = 0

    @property
    def serves_again(self) -> bool:
        """Whether what waits will be served without anybody's help."""
        return self.phase in _SERVING or self.turn is Turn.STOP_FIRST


class IllegalTransition(Exception):
    """The event has no meaning in the current phase; nothing changed."""


P, E = Phase, Effect
_SERVING = (P.RUNNING, P.STARTING, P.BACKOFF)  # a tuple: hashing an enum runs Python
_SPAWN = (E.SPAWN, E.ARM_START_TIMEOUT)
#: (phase, event type) → (next phase, effects), before ``_refine``; an absent pair is illegal.
TABLE: dict[tuple[Phase, type[Event]], tuple[Phase, tuple[Effect, ...]]] = {
    **{(p, Start): (P.STARTING, _SPAWN) for p in (P.STOPPED, P.EXITED, P.FATAL, P.BACKOFF)},
    (P.STARTING, Ready): (P.RUNNING, (E.ARM_SETTLE,)),
    (P.STARTING, TimerFired): (P.STARTING, (E.DUMP, E.ARM_START_TIMEOUT)),
    (P.STARTING, Exited): (P.BACKOFF, (E.ARM_BACKOFF,)),
    (P.STARTING, Stop): (P.STOPPING, (E.TERM, E.ARM_KILL)),
    (P.RUNNING, TimerFired): (P.RUNNING, ()),
    (P.RUNNING, Answered): (P.RUNNING, ()),
    (P.RUNNING, Exited): (P.BACKOFF, (E.ARM_BACKOFF,)),
    (P.RUNNING, Stop): (P.STOPPING, (E.DRAIN, E.ARM_STOP)),
    (P.RUNNING, Recycle): (P.RUNNING, (E.PREPARE,)),
    (P.RUNNING, Prepared): (P.RUNNING, (E.DRAIN,)),
    (P.RUNNING, Drained): (P.RUNNING, (E.SWAP, E.ARM_SETTLE)),
    (P.BACKOFF, TimerFired): (P.STARTING, _SPAWN),
    (P.BACKOFF, Stop): (P.STOPPED, ()),
    (P.STOPPING, Drained): (P.STOPPING, (E.TERM, E.ARM_KILL)),
    (P.STOPPING, Answered): (P.STOPPING, ()),
    (P.STOPPING, Ready): (P.STOPPING, ()),
    (P.STOPPING, Stop): (P.STOPPING, (E.ARM_STOP,)),
    (P.STOPPING, TimerFired): (P.STOPPING, (E.KILL, E.ARM_KILL)),
    (P.STOPPING, Exited): (P.STOPPED, ()),
}


def step(state: Lifecycle, event: Event, policy: Policy) -> tuple[Lifecycle, tuple[Effect, ...]]:
    """The state after *event* and the effects to run, in order.

    Raises:
        IllegalTransition: *event* has no meaning in ``state.phase``; nothing changed.
    """
    if isinstance(event, TimerFired) and event.generation != state.generation:
        return state, ()  # a timer that lost its race; arming never needs cancelling
    try:
        phase, effects = TABLE[state.phase, type(event)]
    except KeyError:
        raise IllegalTransition(f"{type(event).__name__} while {state.phase.name}") from None
    after, effects = _refine(state, event, replace(state, phase=phase), effects, policy)
    if not effects and (after.phase, after.settled, after.turn) == (state.phase, state.settled, state.turn):
        return state, ()  # nothing happened: a timer that is armed stays valid
    settled = after.settled and after.phase is P.RUNNING
    turn = after.turn if after.phase in (P.RUNNING, P.STOPPING) else Turn.NONE
    return replace(after, settled=settled, turn=turn, generation=state.generation + 1), effects


def _refine(
    state: Lifecycle, event: Event, after: Lifecycle, effects: tuple[Effect, ...], policy: Policy
) -> tuple[Lifecycle, tuple[Effect, ...]]:
    """What the table cannot say: counting of failures, giving up, the stages of a stop."""
    match state.phase, event:
        case P.RUNNING, TimerFired() | Answered():
            return replace(after, failures=0, settled=True), effects
        case P.STARTING | P.RUNNING, Exited():
            return _after_death(state, event, after, policy)
        case P.STOPPING, Drained() if state.stage not in (Stage.DRAIN, Stage.ABORT):
            return state, ()
        case (P.STOPPING, Drained()) | (P.STARTING, Stop()):
            return replace(after, stage=Stage.TERM), effects
        case P.RUNNING, Stop():
            return replace(after, stage=Stage.DRAIN, turn=Turn.NONE), effects
        case (P.RUNNING, Recycle() | Prepared() | Drained()) | (P.STOPPING, Stop()):
            return _turn(state, event, after, effects)
        case P.STOPPING, Exited() if state.turn is Turn.STOP_FIRST:
            return replace(after, phase=P.STARTING, failures=0), _SPAWN
        case P.STOPPING, TimerFired() if state.stage is Stage.DRAIN:
            return replace(after, stage=Stage.ABORT), (E.ABORT, E.ARM_ABORT)
        case P.STOPPING, TimerFired() if state.stage is Stage.ABORT:
            return replace(after, stage=Stage.TERM), (E.TERM, E.ARM_KILL)
        case P.STOPPING, TimerFired():
            return replace(after, stage=Stage.KILL), effects
        case _, Start() | Stop():
            return replace(after, failures=0), effects
    return after, effects


def _turn(
    state: Lifecycle, event: Event, after: Lifecycle, effects: tuple[Effect, ...]
) -> tuple[Lifecycle, tuple[Effect, ...]]:
    """A recycling goes on.  It begins only once the worker has settled; no timer runs then that it could disturb."""
    match event, state.turn:
        case Recycle(has_room=True), Turn.NONE if state.settled:
            return replace(after, turn=Turn.PREPARE), effects
        case Recycle(), Turn.NONE if state.settled:  # as a stop, but that no request is aborted
            return replace(after, phase=P.STOPPING, stage=Stage.DRAIN, turn=Turn.STOP_FIRST), (E.DRAIN,)
        case Prepared(is_ready=True), Turn.PREPARE:
            return replace(after, turn=Turn.SWAP), effects
        case Prepared(is_ready=False), Turn.PREPARE | Turn.SWAP:
            return replace(after, turn=Turn.NONE), ()
        case Drained(), Turn.SWAP:
            return replace(after, turn=Turn.NONE, settled=False), effects
        case Stop(), Turn.STOP_FIRST:  # an operator wants it down: from now on as any stop
            return replace(after, turn=Turn.NONE), effects if state.stage is Stage.DRAIN else (E.ARM_KILL,)
        case Stop(), _:
            raise IllegalTransition(f"Stop while {state.phase.name}")
    return state, ()


def _after_death(
    state: Lifecycle, event: Exited, after: Lifecycle, policy: Policy
) -> tuple[Lifecycle, tuple[Effect, ...]]:
    if event.is_permanent:
        return replace(after, phase=P.FATAL, failures=state.failures + 1), ()
    is_up = state.phase is P.RUNNING
    if is_up and (policy.autorestart == "false" or (policy.autorestart == "unexpected" and event.is_expected)):
        return replace(after, phase=P.EXITED, failures=0), ()
    if is_up and state.settled:
        return replace(after, phase=P.STARTING, failures=0), _SPAWN
    failures = state.failures + 1
    if failures > policy.startretries:
        return replace(after, phase=P.FATAL, failures=failures), ()
    return replace(after, phase=P.BACKOFF, failures=failures), (E.ARM_BACKOFF,)


def to_mermaid() -> str:
    """``TABLE`` as a Mermaid state diagram, with the transitions that ``_after_death`` adds."""
    edges = [(a.name, b.name, event.__name__) for (a, event), (b, _) in TABLE.items()]
    edges += [
        ("RUNNING", "STARTING", "Exited, settled"),
        ("RUNNING", "EXITED", "Exited, autorestart says no"),
        ("STARTING", "FATAL", "Exited, retries used up or permanent"),
        ("RUNNING", "FATAL", "Exited, retries used up or permanent"),
        ("RUNNING", "STOPPING", "Recycle, without room for two"),
        ("STOPPING", "STARTING", "Exited, recycled"),
    ]
    return "\n".join(["stateDiagram-v2", "    [*] --> STOPPED", *(f"    {a} --> {b}: {e}" for a, b, e in edges), ""])
