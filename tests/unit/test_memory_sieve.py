"""Which samples of a life are kept: never too many, the newest all, and old ones a share of their age apart."""

from __future__ import annotations

from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkvisor.supervisor.memory.sieve import MOST, NEWEST, ROOM, Kept, Sieve, sift

Moment = tuple[float, int]


def sieved(moments: list[Moment], most: int = MOST, newest: int = NEWEST, room: int = ROOM) -> Sieve[Moment]:
    sieve: Sieve[Moment] = Sieve(most, newest, room)
    for at_s, requests in moments:
        sieve.add(at_s, requests, (at_s, requests))
    return sieve


def test_all_are_kept_until_there_are_too_many() -> None:
    moments = [(5.0 * n, n) for n in range(MOST)]
    assert sieved(moments).samples() == moments
    assert MOST - 2 * ROOM < len(sieved([*moments, (5.0 * MOST, MOST)])) <= MOST - ROOM


@pytest.mark.parametrize("days", [1, 30])
def test_of_a_steady_life_each_age_is_told_by_points_a_small_share_of_it_apart(days: int) -> None:
    moments = [(10.0 * n, 3 * n) for n in range(days * 8640)]
    kept = sieved(moments).samples()
    assert len(kept) <= MOST
    assert kept[-NEWEST:] == moments[-NEWEST:]
    assert kept[0] == moments[0]
    now_s = moments[-1][0]
    for (before_s, _), (after_s, _) in pairwise(kept[:-NEWEST]):
        assert after_s - before_s <= 0.08 * (now_s - before_s)


def test_a_quiet_night_does_not_take_the_place_of_a_busy_hour() -> None:
    """4000 requests in an hour, then nothing but the timer's samples for twelve."""
    busy = [(0.9 * n, n) for n in range(4000)]
    quiet = [(3600 + 5.0 * n, 4000) for n in range(8640)]
    kept = sieved([*busy, *quiet]).samples()
    assert sum(requests < 4000 for _, requests in kept) >= 150
    assert sum(at_s > 3600 for at_s, _ in kept) >= 200


def test_a_busy_minute_does_not_take_the_place_of_a_quiet_night() -> None:
    quiet = [(5.0 * n, n // 100) for n in range(8640)]
    busy = [(43_200 + 0.05 * n, 87 + n) for n in range(1200)]
    kept = sieved([*quiet, *busy]).samples()
    assert sum(at_s < 43_200 for at_s, _ in kept) >= 100


def test_a_sifting_makes_room_so_that_not_each_sample_costs_one() -> None:
    sieve: Sieve[int] = Sieve(100, 20, 16)
    lengths = []
    for n in range(1000):
        sieve.add(float(n), n, n)
        lengths.append(len(sieve))
    siftings = [(before, after) for before, after in pairwise(lengths) if after < before]
    assert siftings
    assert {before for before, _ in siftings} == {100}
    assert all(after <= 100 - 16 for _, after in siftings)


def test_a_life_that_ended_is_thinned_evenly() -> None:
    sieve = sieved([(float(n), n) for n in range(500)])
    sieve.shrink(100)
    kept = [requests for _, requests in sieve.samples()]
    assert (len(kept), kept[0], kept[-1]) == (100, 0, 499)
    assert {after - before for before, after in pairwise(kept)} == {5, 6}
    sieve.shrink(200)
    assert len(sieve) == 100


STEPS = st.lists(st.tuples(st.floats(0, 1e5), st.integers(0, 50)), min_size=1, max_size=150)


def moments_of(steps: list[tuple[float, int]]) -> list[Moment]:
    return list(accumulate(steps, lambda one, step: (one[0] + step[0], one[1] + step[1])))


@given(STEPS)
def test_whatever_comes_they_are_bounded_in_order_and_the_first_and_the_newest_are_there(
    steps: list[tuple[float, int]],
) -> None:
    moments = moments_of(steps)
    sieve = sieved(moments, most=40, newest=10, room=5)
    kept = sieve.samples()
    assert len(kept) == len(sieve) <= 40
    assert kept == sorted(kept)
    assert kept[0] == moments[0]
    assert kept[-10:] == moments[-10:]


@given(STEPS, st.floats(0.01, 0.5))
def test_what_is_sifted_out_follows_one_that_stays_by_less_than_the_share_of_its_age(
    steps: list[tuple[float, int]], share: float
) -> None:
    moments = moments_of(steps)
    kept = sift([Kept(at_s, requests, n) for n, (at_s, requests) in enumerate(moments)], 10, share)
    left = {one.sample for one in kept}
    now_s, now = moments[-1]
    before_s, before = moments[0]
    for n, (at_s, requests) in enumerate(moments[: max(0, len(moments) - 10)]):
        if n in left:
            before_s, before = at_s, requests
        else:
            assert at_s - before_s <= share * (now_s - before_s)
            assert requests - before <= share * (now - before)
