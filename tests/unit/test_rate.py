"""How often the same thing is told (supervisor/rate.py)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rkvisor.supervisor.rate import Limiter, untold


def test_the_first_few_are_told_and_the_rest_is_counted() -> None:
    limiter = Limiter(burst=3, every_s=60.0)
    assert [limiter.admit("a", 0.0) for _ in range(5)] == [0, 0, 0, None, None]
    assert limiter.admit("a", 60.0) == 2
    assert limiter.admit("a", 60.0) is None
    assert limiter.admit("a", 120.0) == 1


def test_a_loop_of_a_hundred_deaths_within_ten_seconds_is_told_of_five_times() -> None:
    limiter = Limiter(burst=5, every_s=60.0)
    told = [limiter.admit(("SIGSEGV", "demo:0"), i * 0.1) for i in range(100)]
    assert sum(one is not None for one in told) == 5


def test_each_key_has_its_own_rate() -> None:
    limiter = Limiter(burst=1, every_s=60.0)
    assert limiter.admit(("SIGSEGV", "demo:0"), 0.0) == 0
    assert limiter.admit(("SIGSEGV", "demo:0"), 0.0) is None
    assert limiter.admit(("SIGSEGV", "demo:1"), 0.0) == 0
    assert limiter.admit(("SIGABRT", "demo:0"), 0.0) == 0


def test_a_rest_refills_the_burst_and_no_more() -> None:
    limiter = Limiter(burst=2, every_s=10.0)
    for _ in range(2):
        limiter.admit("a", 0.0)
    assert [limiter.admit("a", 1000.0) for _ in range(3)] == [0, 0, None]


def test_the_key_told_of_longest_ago_is_forgotten_beyond_the_bound() -> None:
    limiter = Limiter(burst=1, every_s=60.0, max_keys=2)
    for key in ("a", "b", "a", "c"):
        limiter.admit(key, 0.0)
    assert len(limiter) == 2
    assert limiter.admit("a", 0.0) is None
    assert limiter.admit("b", 0.0) == 0


def test_a_clock_that_stands_still_or_goes_back_admits_nothing_more() -> None:
    limiter = Limiter(burst=1, every_s=10.0)
    assert limiter.admit("a", 100.0) == 0
    assert limiter.admit("a", 50.0) is None
    assert limiter.admit("a", 55.0) is None
    assert limiter.admit("a", 60.0) == 2  # ten seconds of the clock as it is now


@given(st.lists(st.floats(0, 100), max_size=60), st.integers(1, 5), st.floats(0.1, 20))
def test_within_any_span_no_more_than_the_burst_and_one_each_interval_is_told(
    gaps: list[float], burst: int, every_s: float
) -> None:
    limiter = Limiter(burst=burst, every_s=every_s)
    now_s, told, kept_back = 0.0, [], 0
    for gap in gaps:
        now_s += gap
        suppressed = limiter.admit("a", now_s)
        if suppressed is None:
            kept_back += 1
        else:
            assert suppressed == kept_back  # none is lost from the count
            told.append(now_s)
            kept_back = 0
    for first in range(len(told)):
        for last in range(first, len(told)):
            assert last - first + 1 <= burst + (told[last] - told[first]) / every_s + 1e-6


def test_what_was_kept_back_is_said() -> None:
    assert untold(0) == ""
    assert "7 more" in untold(7)
