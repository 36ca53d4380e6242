"""How a worker gets a new process though nothing failed, and how each of its stops begins."""

from __future__ import annotations

import pytest

from rkvisor.supervisor.workers.lifecycle import (
    Answered,
    Drained,
    Effect,
    Event,
    Exited,
    Lifecycle,
    Phase,
    Policy,
    Prepared,
    Ready,
    Recycle,
    Stage,
    Start,
    Stop,
    TimerFired,
    Turn,
    step,
)


def run(*events: Event | str, policy: Policy | None = None) -> tuple[Lifecycle, list[Effect]]:
    """A worker after *events*, and all effects on the way.  "timer": the one that was armed last."""
    state, effects = Lifecycle(), []
    for event in events:
        one = TimerFired(state.generation) if isinstance(event, str) else event
        state, more = step(state, one, policy or Policy())
        effects += more
    return state, effects


SETTLED: tuple[Event | str, ...] = (Start(), Ready(), Answered())
TURNS: list[tuple[str, tuple[Event | str, ...], Phase, Turn, tuple[Effect, ...]]] = [
    ("it serves while its replacement loads", (Recycle(True),), Phase.RUNNING, Turn.PREPARE, (Effect.PREPARE,)),
    ("one replacement is enough", (Recycle(True), Recycle(True), Recycle(False)), Phase.RUNNING, Turn.PREPARE, ()),
    ("it drains when that is ready", (Recycle(True), Prepared()), Phase.RUNNING, Turn.SWAP, (Effect.DRAIN,)),
    ("idle while it loads is no news", (Recycle(True), Drained()), Phase.RUNNING, Turn.PREPARE, ()),
    ("a second replacement is none", (Recycle(True), Prepared(), Prepared()), Phase.RUNNING, Turn.SWAP, ()),
    ("one that nobody asked for is none", (Prepared(),), Phase.RUNNING, Turn.NONE, ()),
    ("none came up: it goes on", (Recycle(True), Prepared(False)), Phase.RUNNING, Turn.NONE, ()),
    ("it died when it was ready", (Recycle(True), Prepared(), Prepared(False)), Phase.RUNNING, Turn.NONE, ()),
    (
        "it takes its place",
        (Recycle(True), Prepared(), Drained()),
        Phase.RUNNING,
        Turn.NONE,
        (Effect.SWAP, Effect.ARM_SETTLE),
    ),
    ("no room: it drains without a limit", (Recycle(False),), Phase.STOPPING, Turn.STOP_FIRST, (Effect.DRAIN,)),
    (
        "and ends",
        (Recycle(False), Drained()),
        Phase.STOPPING,
        Turn.STOP_FIRST,
        (Effect.TERM, Effect.ARM_KILL),
    ),
    (
        "and starts again",
        (Recycle(False), Drained(), Exited()),
        Phase.STARTING,
        Turn.NONE,
        (Effect.SPAWN, Effect.ARM_START_TIMEOUT),
    ),
    (
        "a death on the way is one",
        (Recycle(False), Exited()),
        Phase.STARTING,
        Turn.NONE,
        (Effect.SPAWN, Effect.ARM_START_TIMEOUT),
    ),
    ("stopped for good while it drains", (Recycle(False), Stop()), Phase.STOPPING, Turn.NONE, (Effect.ARM_STOP,)),
    ("or while it ends", (Recycle(False), Drained(), Stop()), Phase.STOPPING, Turn.NONE, (Effect.ARM_KILL,)),
    ("then it stays down", (Recycle(False), Drained(), Stop(), Exited()), Phase.STOPPED, Turn.NONE, ()),
    (
        "stopped while another loads",
        (Recycle(True), Stop()),
        Phase.STOPPING,
        Turn.NONE,
        (Effect.DRAIN, Effect.ARM_STOP),
    ),
    ("and stays down", (Recycle(True), Stop(), Drained(), Exited()), Phase.STOPPED, Turn.NONE, ()),
    (
        "a death while another loads",
        (Recycle(True), Exited()),
        Phase.STARTING,
        Turn.NONE,
        (Effect.SPAWN, Effect.ARM_START_TIMEOUT),
    ),
]


@pytest.mark.parametrize(("events", "phase", "turn", "last"), [one[1:] for one in TURNS], ids=[one[0] for one in TURNS])
def test_a_worker_gets_a_new_process(
    events: tuple[Event | str, ...], phase: Phase, turn: Turn, last: tuple[Effect, ...]
) -> None:
    before, _ = run(*SETTLED, *events[:-1])
    last_event = events[-1]
    assert not isinstance(last_event, str)
    state, effects = step(before, last_event, Policy())
    assert (state.phase, state.turn, effects) == (phase, turn, last)
    assert state.failures == 0
    is_news = bool(effects) or (state.turn, state.phase) != (before.turn, before.phase)
    assert (state.generation != before.generation) is is_news


@pytest.mark.parametrize("has_room", [True, False])
def test_a_worker_that_has_not_settled_is_not_recycled(has_room: bool) -> None:
    """Its timer would be lost, and a new process would be no better."""
    state, _ = run(Start(), Ready())
    assert step(state, Recycle(has_room), Policy()) == (state, ())


def test_the_new_process_has_to_settle_itself() -> None:
    state, _ = run(*SETTLED, Recycle(True), Prepared(), Drained())
    assert not state.settled
    state, effects = step(state, Exited(), Policy())
    assert (state.phase, effects) == (Phase.BACKOFF, (Effect.ARM_BACKOFF,))


def test_settling_forgives_deaths_after_a_recycling_too() -> None:
    state, _ = run(*SETTLED, Recycle(True), Prepared(), Drained(), Exited(), "timer", Ready(), "timer")
    assert (state.phase, state.settled, state.failures) == (Phase.RUNNING, True, 0)


@pytest.mark.parametrize("events", [(Recycle(True),), (Recycle(True), Prepared())])
def test_a_recycling_that_a_death_ended_does_not_come_back(events: tuple[Event, ...]) -> None:
    state, _ = run(*SETTLED, *events, Exited(), Ready(), Answered())
    assert state.turn is Turn.NONE
    assert step(state, Recycle(True), Policy())[1] == (Effect.PREPARE,)


def test_who_waits_for_a_worker_that_turns_is_served() -> None:
    """Only a worker that is stopped for good, or given up, leaves them without an answer."""
    assert run(*SETTLED, Recycle(False))[0].serves_again
    assert run(*SETTLED, Recycle(False), Drained())[0].serves_again
    assert not run(*SETTLED, Recycle(False), Stop())[0].serves_again
    assert not run(*SETTLED, Stop())[0].serves_again
    assert run(Start(), Exited())[0].serves_again


def test_each_stop_begins_with_its_first_stage() -> None:
    """Whatever stage the stop before it had come to."""
    once = (Start(), Ready(), Stop(), Drained(), "timer", Exited())
    state, effects = run(*once, Start(), Ready(), Stop(), "timer")
    assert (state.stage, effects[-2:]) == (Stage.ABORT, [Effect.ABORT, Effect.ARM_ABORT])
    state, effects = run(*once, Start(), Ready(), Answered(), Recycle(False), Stop(), "timer")
    assert (state.stage, effects[-2:]) == (Stage.ABORT, [Effect.ABORT, Effect.ARM_ABORT])
