"""How often a process is sampled after its requests (supervisor/memory/pace.py)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rkvisor.supervisor.memory.pace import BURST, GAP_EACH_S, GAP_S, Pace


def test_a_young_process_is_sampled_after_each_request() -> None:
    pace = Pace(interval_s=1.0)
    assert all(pace.admit(1, index * GAP_S * 1.01) for index in range(BURST))


def test_two_samples_are_a_gap_apart_and_each_process_has_its_own() -> None:
    pace = Pace(interval_s=1.0)
    assert pace.admit(1, 0.0)
    assert not pace.admit(1, GAP_S * 0.99)
    assert pace.admit(2, GAP_S * 0.99)
    assert pace.admit(1, GAP_S)


def test_in_the_long_run_there_is_one_in_each_interval() -> None:
    pace = Pace(interval_s=2.0)
    admitted = sum(pace.admit(1, index / 10) for index in range(10_000))
    assert BURST + 499 <= admitted <= BURST + 501


def test_a_rest_fills_the_burst_again_and_no_more() -> None:
    pace = Pace(interval_s=1000.0)
    for begin_s in (0.0, 1e6):
        assert sum(pace.admit(1, begin_s + index * 0.1) for index in range(2 * BURST)) == BURST


def test_each_process_has_a_burst_of_its_own() -> None:
    pace = Pace(interval_s=1000.0)
    for incarnation in (1, 2):
        assert sum(pace.admit(incarnation, index * 0.1) for index in range(2 * BURST)) == BURST


def test_many_processes_are_further_apart_until_they_are_gone() -> None:
    pace = Pace(interval_s=1.0)
    many = 16
    for incarnation in range(many):
        assert pace.admit(incarnation, 0.0)
    assert pace.gap_s == GAP_EACH_S * many
    assert not pace.admit(0, GAP_EACH_S * many * 0.99)
    for incarnation in range(1, many):
        pace.forget(incarnation)
    assert pace.gap_s == GAP_S
    assert pace.admit(0, GAP_EACH_S * many * 0.99)


def test_one_that_is_forgotten_and_was_never_known_is_no_error() -> None:
    Pace(interval_s=1.0).forget(7)


@given(st.lists(st.floats(0.0, 5.0), min_size=1, max_size=200), st.floats(0.05, 10.0))
def test_no_window_has_more_than_a_burst_and_its_share(waits: list[float], interval_s: float) -> None:
    pace, now_s, admitted = Pace(interval_s), 0.0, []
    for wait_s in waits:
        now_s += wait_s
        if pace.admit(1, now_s):
            admitted.append(now_s)
    for first, begin_s in enumerate(admitted):
        for last in range(first, len(admitted)):
            assert last - first + 1 <= BURST + 1 + (admitted[last] - begin_s) / interval_s
