"""Degraded below the threshold, restored above 1.2 times it, spread over dependencies (requirement S2.27)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkvisor.supervisor.requests.degradation import (
    BUCKET_S,
    MAX_THRESHOLD,
    MIN_OUTCOMES,
    RESTORE,
    WINDOW_S,
    Outcomes,
    below,
    score,
    spread,
)


@pytest.mark.parametrize(
    ("health", "was_below", "is_below"),
    [
        (0.49, False, True),
        (0.5, False, False),
        (0.55, False, False),
        (0.55, True, True),
        (0.6, True, True),
        (0.61, True, False),
        (1.0, True, False),
        (0.0, False, True),
    ],
)
def test_between_the_threshold_and_its_restoring_nothing_changes(
    health: float, was_below: bool, is_below: bool
) -> None:
    assert below(0.5, health, was_below=was_below) is is_below


@given(st.floats(0, 1), st.booleans())
def test_a_threshold_of_zero_is_never_below(health: float, was_below: bool) -> None:
    assert not below(0.0, health, was_below=was_below)


@given(st.floats(0.001, MAX_THRESHOLD - 0.001))
def test_perfect_health_restores_from_every_threshold_that_can_be_configured(threshold: float) -> None:
    assert threshold * RESTORE < 1.0
    assert not below(threshold, 1.0, was_below=True)


def test_the_score_is_of_workers_that_run_and_of_what_they_answered() -> None:
    assert score(2, 2, 1.0) == 1.0
    assert score(1, 2, 1.0) == 0.5
    assert score(2, 2, 0.25) == 0.25
    assert score(0, 4, 1.0) == 0.0


def test_too_few_outcomes_say_nothing_and_old_ones_are_forgotten() -> None:
    outcomes = Outcomes()
    for _ in range(MIN_OUTCOMES - 1):
        outcomes.failed(0.0)
    assert outcomes.share(1.0) == 1.0
    outcomes.answered(BUCKET_S)
    assert outcomes.share(BUCKET_S) == 1 / MIN_OUTCOMES
    assert outcomes.share(WINDOW_S) == 1 / MIN_OUTCOMES, "all of them are within the window"
    assert outcomes.share(WINDOW_S + BUCKET_S) == 1.0, "the failures are too old"


@given(st.lists(st.tuples(st.floats(0, 10), st.booleans()), max_size=500))
def test_outcomes_are_the_share_of_answers_in_bounded_memory(steps: list[tuple[float, bool]]) -> None:
    outcomes, now_s, told = Outcomes(), 0.0, []
    for wait_s, is_answer in steps:
        now_s += wait_s
        (outcomes.answered if is_answer else outcomes.failed)(now_s)
        told.append((now_s, is_answer))
        assert len(outcomes._buckets) <= WINDOW_S / BUCKET_S + 2
        recent = [ok for when_s, ok in told if now_s - when_s < WINDOW_S]
        if all(recent) and all(ok for when_s, ok in told if now_s - when_s < WINDOW_S + 2 * BUCKET_S):
            assert outcomes.share(now_s) == 1.0
        assert 0.0 <= outcomes.share(now_s) <= 1.0


def test_who_depends_on_a_degraded_model_is_degraded_by_it() -> None:
    depends_on = {"chat": ["search"], "search": ["embed"], "embed": [], "other": []}
    calm = dict.fromkeys(depends_on, False)
    assert spread(calm, depends_on) == {}
    assert spread(calm | {"embed": True}, depends_on) == {"embed": "embed", "search": "embed", "chat": "embed"}
    assert spread(calm | {"embed": True, "chat": True}, depends_on)["chat"] == "chat", "its own health comes first"
    assert spread(calm | {"chat": True}, depends_on) == {"chat": "chat"}


@given(st.data())
def test_exactly_those_above_a_sick_model_are_degraded(data: st.DataObject) -> None:
    names = [f"m{i}" for i in range(data.draw(st.integers(1, 8)))]
    depends_on = {
        name: data.draw(st.lists(st.sampled_from(names[:i]), unique=True)) if i else [] for i, name in enumerate(names)
    }
    sick = {name: data.draw(st.booleans()) for name in names}
    reached: set[str] = set()
    for name in names:  # in the order of dependencies
        if sick[name] or reached & set(depends_on[name]):
            reached.add(name)
    found = spread(sick, depends_on)
    assert set(found) == reached
    assert all(sick[cause] for cause in found.values())
