"""When a run counts as hung: by its progress alone, step by step, and never while it is within its budget."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkvisor.supervisor.workers.budgets import first_token_budget_s
from rkvisor.supervisor.workers.watchdog import ABORT_S, DUMP_S, KILL_S, OBEY_S, Step, Watch, look

BEGUN_S = 100.0


def watch(first_s: float = 30.0, next_s: float = 10.0, **fields: float) -> Watch:
    return Watch(first_s=first_s, next_s=next_s, begun_s=BEGUN_S, progress_s=BEGUN_S, **fields)  # type: ignore[arg-type]


def test_a_run_without_a_callback_has_its_first_budget() -> None:
    assert look(watch(), 0.0, BEGUN_S + 29.9) == (watch(), None)
    assert look(watch(), 0.0, BEGUN_S + 30.0)[1] is Step.ABORT


def test_any_callback_begins_the_budget_of_the_next() -> None:
    one = watch()
    for count in range(1, 50):
        when_s = BEGUN_S + 9.0 * count
        one, step = look(one, when_s, when_s + 8.9)
        assert step is None
    assert look(one, when_s, when_s + 10.0)[1] is Step.ABORT


def test_what_is_called_back_in_a_replay_renews_the_first_budget_and_begins_nothing() -> None:
    one, step = look(watch(is_restoring=True), BEGUN_S + 20.0, BEGUN_S + 49.9)
    assert (step, one.has_begun) == (None, False)
    aborted = replace(one, abort_s=BEGUN_S + 21.0)
    assert look(aborted, BEGUN_S + 20.0, BEGUN_S + 49.9)[1] is None
    assert look(one, BEGUN_S + 20.0, BEGUN_S + 50.0)[1] is Step.ABORT


@pytest.mark.parametrize("scale", [1.0, 0.1, 20.0])
def test_the_steps_follow_each_other_and_the_last_repeats(scale: float) -> None:
    one, now_s, steps = watch(scale=scale), BEGUN_S + 30.0, []
    for wait_s in (0.0, ABORT_S, DUMP_S, KILL_S, KILL_S):
        if wait_s:
            assert look(one, 0.0, now_s + (wait_s - 0.01) * scale)[1] is None
        now_s += wait_s * scale
        one, step = look(one, 0.0, now_s)
        steps.append(step)
    assert steps == [Step.ABORT, Step.DUMP, Step.KILL, Step.KILL, Step.KILL]


def test_progress_does_not_save_a_run_that_was_aborted() -> None:
    one, _ = look(watch(), 0.0, BEGUN_S + 30.0)
    one, step = look(one, BEGUN_S + 31.0, BEGUN_S + 30.0 + ABORT_S)
    assert step is Step.DUMP


def test_a_client_s_abort_must_be_obeyed_once_the_runtime_calls_back_but_not_during_a_prefill() -> None:
    asked = watch(abort_s=BEGUN_S + 1.0)
    assert look(asked, 0.0, BEGUN_S + 29.9)[1] is None, "a prefill cannot be interrupted"
    assert look(asked, 0.0, BEGUN_S + 30.0)[1] is Step.DUMP, "an abort was asked for already"
    begun, step = look(asked, BEGUN_S + 5.0, BEGUN_S + 5.0)
    assert step is None
    assert look(begun, BEGUN_S + 5.9, BEGUN_S + 1.0 + OBEY_S)[1] is Step.DUMP, "tokens that go on are no obedience"


@pytest.mark.parametrize(("tokens", "seconds"), [(16384, 226.0), (4096, 60.0), (128, 2.0)])
def test_a_long_prefill_within_its_budget_is_never_touched(tokens: int, seconds: float) -> None:
    one = watch(first_s=first_token_budget_s(tokens, 72.5))
    for tenth in range(int(seconds * 10)):
        one, step = look(one, 0.0, BEGUN_S + tenth / 10)
        assert step is None
    assert look(one, BEGUN_S + seconds, BEGUN_S + seconds)[1] is None


@given(st.floats(0.01, 20.0), st.lists(st.floats(0.001, 15.0), max_size=40))
def test_on_every_scale_a_step_comes_exactly_when_it_is_due(scale: float, waits: list[float]) -> None:
    one = watch(30.0 * scale, 10.0 * scale, scale=scale)
    now_s, quiet_since_s, is_begun = BEGUN_S, BEGUN_S, False
    for wait_s in waits:
        now_s += wait_s * scale
        overdue = now_s >= quiet_since_s + (10.0 if is_begun else 30.0) * scale
        one, step = look(one, quiet_since_s, now_s)
        if overdue:
            assert step is Step.ABORT
            return
        assert step is None
        assert one.due_s > now_s
        quiet_since_s, is_begun = now_s, True
