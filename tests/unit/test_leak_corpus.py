"""A slice of the corpus of labelled traces, judged as rkvisord does it; all of it: ``make leaks``."""

from __future__ import annotations

import random

import pytest
from leaks import traces
from leaks.corpus import CLEAN, LEAKS
from leaks.judging import Watch, judge, judge_seed
from leaks.looking import INTERVAL_S, Held, looked_at, moments
from leaks.traces import KB, Leak, Life, Trace

from rkvisor.supervisor.memory.pace import BURST
from rkvisor.supervisor.memory.sieve import MOST, NEWEST


@pytest.mark.parametrize("kind", CLEAN)
def test_clean_traces_are_never_said_to_leak(kind: str) -> None:
    assert judge_seed(("tuning", kind, 0)).found is None


@pytest.mark.parametrize("kind", [kind for kind in LEAKS if not kind.startswith("1 to 4")])
def test_leaks_are_found_within_500_requests_and_their_slope_within_a_tenth(kind: str) -> None:
    outcome = judge_seed(("tuning", kind, 0))
    assert outcome.found is not None
    assert outcome.found <= 500
    assert outcome.series == (LEAKS[kind][0],)
    assert outcome.error == pytest.approx(0, abs=0.1)


def test_a_slow_leak_is_found_in_time() -> None:
    """2 KB a request, beside noise: not within 500 requests, but within 3000."""
    for seed in range(3):
        chance, leak = random.Random(seed), Leak("anon", 2.0 * KB)
        life = traces.life(chance, 3000)
        held = Held("anon", traces.leaked(chance, life, leak), traces.PAGE, goes_on=False)
        beside = {"anon": traces.noise(chance, life, most=64 * KB)}
        outcome = judge(looked_at(chance, life, beside, Trace("slow", str(seed), leak, (), ()), held))
        assert outcome.found is not None
        assert outcome.last == "leaking"
        assert outcome.error == pytest.approx(0, abs=0.2)


def plain(requests: int, gap_s: float) -> Life:
    """A request every *gap_s*."""
    return Life([gap_s * n for n in range(requests + 1)], [0] * (requests + 1), [0] * (requests + 1), gap_s)


def test_the_corpus_is_looked_at_as_rkvisord_looks() -> None:
    """Of fast requests some are sampled, of slow ones all; and on a timer, in pauses too."""
    fast = list(moments(random.Random(1), plain(2000, 0.05)))
    assert len(fast) == pytest.approx(BURST + 100 / 1.0 + 100 / INTERVAL_S, abs=5)
    slow = list(moments(random.Random(1), plain(20, 60.0)))
    assert len(slow) == pytest.approx(20 + 1200 / INTERVAL_S, abs=3)
    assert all(one.rested_s <= one.at_s for one in slow)
    assert {one.rested_s == one.at_s for one in slow} == {True, False}
    assert [one.at_s for one in slow] == sorted(one.at_s for one in slow)


def test_what_is_judged_is_what_rkvisord_keeps_and_when_it_estimates() -> None:
    life = plain(3000, 1.0)
    still = looked_at(
        random.Random(1), life, {"anon": traces.still(random.Random(1), life)}, Trace("", "", None, (), ())
    )
    watch = Watch()
    estimates = sum(watch.add(one) for one in still.samples)
    assert 3000 / 22 < estimates <= 1 + 3000 / 20
    assert len(still.samples) > 3000
    assert NEWEST < watch.estimate(still).samples <= MOST
