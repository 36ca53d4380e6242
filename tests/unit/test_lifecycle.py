"""The life of a worker: which events each phase hears, its diagram, its numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.hearing import HEARS
from rkvisor.supervisor.workers.lifecycle import (
    Answered,
    Drained,
    Event,
    Exited,
    IllegalTransition,
    Lifecycle,
    Phase,
    Policy,
    Prepared,
    Ready,
    Recycle,
    Start,
    Stop,
    TimerFired,
    step,
    to_mermaid,
)


def reach(phase: Phase) -> Lifecycle:
    """A state in *phase*, by the shortest way."""
    ways: dict[Phase, list[Event]] = {
        Phase.STOPPED: [],
        Phase.STARTING: [Start()],
        Phase.RUNNING: [Start(), Ready()],
        Phase.BACKOFF: [Start(), Exited()],
        Phase.STOPPING: [Start(), Ready(), Stop()],
        Phase.EXITED: [Start(), Ready(), Exited()],
        Phase.FATAL: [Start(), Exited(is_permanent=True)],
    }
    state = Lifecycle()
    for event in ways[phase]:
        state, _ = step(state, event, Policy(autorestart="false"))
    assert state.phase is phase
    return state


@pytest.mark.parametrize("phase", Phase, ids=lambda phase: phase.name)
def test_each_phase_hears_its_own_events_and_no_others(phase: Phase) -> None:
    state = reach(phase)
    events: list[Event] = [
        Start(),
        Stop(),
        Ready(),
        Answered(),
        Drained(),
        Recycle(has_room=True),
        Prepared(),
        Exited(),
        TimerFired(state.generation),
    ]
    heard = set()
    for event in events:
        try:
            step(state, event, Policy())
        except IllegalTransition:
            continue
        heard.add(type(event))
    assert heard == HEARS[phase]


def test_a_timer_of_another_generation_is_no_news_even_where_timers_are_illegal() -> None:
    state = reach(Phase.FATAL)
    assert step(state, TimerFired(state.generation - 1), Policy()) == (state, ())


def test_ready_alone_does_not_forgive_earlier_deaths() -> None:
    state = Lifecycle()
    policy = Policy(startretries=2)
    for event in (Start(), Exited()):
        state, _ = step(state, event, policy)
    for _ in range(2):
        state, _ = step(state, TimerFired(state.generation), policy)
        state, _ = step(state, Ready(), policy)
        state, _ = step(state, Exited(), policy)
    assert (state.phase, state.failures) == (Phase.FATAL, 3)


def test_a_no_op_while_stopping_does_not_disarm_the_stop() -> None:
    state = reach(Phase.STOPPING)
    for event in (Ready(), Answered()):
        assert step(state, event, Policy()) == (state, ())


def test_the_states_have_supervisords_codes() -> None:
    codes = {"STOPPED": 0, "STARTING": 10, "RUNNING": 20, "BACKOFF": 30, "STOPPING": 40, "EXITED": 100, "FATAL": 200}
    assert {phase.name: phase.value for phase in Phase} == codes


def test_the_diagram_in_the_docs_is_the_tables() -> None:
    page = (Path(__file__).parents[2] / "docs" / "lifecycle.md").read_text()
    drawn = page.split("```mermaid\n")[1].split("```")[0]
    assert drawn == to_mermaid()


def test_the_diagram_shows_every_transition_that_the_machine_makes() -> None:
    drawn = set()
    for line in to_mermaid().splitlines()[2:]:
        edge, _, label = line.strip().partition(": ")
        before, _, after = edge.partition(" --> ")
        drawn.add((before, label.split(",")[0], after))
    made = set()
    for autorestart in ("true", "false", "unexpected"):
        for policy in (Policy(autorestart=autorestart), Policy(startretries=0, autorestart=autorestart)):
            seen = {Lifecycle()}
            todo = list(seen)
            while todo:
                state = todo.pop()
                events: list[Event] = [Start(), Stop(), Ready(), Answered(), Drained(), TimerFired(state.generation)]
                events += [Recycle(True), Recycle(False), Prepared(True), Prepared(False)]
                events += [Exited(is_permanent=p, is_expected=e) for p in (False, True) for e in (False, True)]
                for event in events:
                    try:
                        after, _ = step(state, event, policy)
                    except IllegalTransition:
                        continue
                    made.add((state.phase.name, type(event).__name__, after.phase.name))
                    bare = Lifecycle(after.phase, min(after.failures, 9), after.settled, after.stage, after.turn, 0)
                    if bare not in seen:
                        seen.add(bare)
                        todo.append(bare)
    assert made == drawn
