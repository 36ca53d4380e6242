"""What the estimator is made of: slopes, thinning, steps, teeth, and what makes growth a leak."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.samples import BASE, KB, MB, leaking, sample, series, track
from rkvisor.supervisor.memory.estimate import estimate
from rkvisor.supervisor.memory.explained import explain, rare
from rkvisor.supervisor.memory.growth import Growth, _is_firm, falls_back, judge, low_points, without_steps
from rkvisor.supervisor.memory.sample import Mark, Sample, series_of
from rkvisor.supervisor.memory.search import Policy, _is_curved, search
from rkvisor.supervisor.memory.slope import Slope, theil_sen
from rkvisor.supervisor.memory.thinning import YOUNG, Track, by_age, by_axis, without_spikes


@settings(max_examples=10, deadline=None)
@given(
    points=st.lists(st.tuples(st.integers(0, 10**6), st.integers(-(10**6), 10**6)), min_size=2, max_size=40),
    factor=st.integers(1, 1000),
    shift=st.integers(-(10**6), 10**6),
)
def test_a_slope_scales_and_shifts_with_its_values_and_turns_with_their_sign(
    points: list[tuple[int, int]], factor: int, shift: int
) -> None:
    xs, ys = [float(x) for x, _ in points], [float(y) for _, y in points]
    one = theil_sen(xs, ys)
    scaled = theil_sen(xs, [factor * y + shift for y in ys])
    turned = theil_sen(xs, [-y for y in ys])
    assert scaled.value == pytest.approx(factor * one.value, rel=1e-6, abs=1e-6)
    assert turned.value == pytest.approx(-one.value, rel=1e-6, abs=1e-6)
    assert one.low <= one.value <= one.high


def test_an_outlier_does_not_move_a_slope() -> None:
    xs = [float(n) for n in range(20)]
    ys = [3 * x for x in xs]
    assert theil_sen(xs, [1e9 if x == 7 else y for x, y in zip(xs, ys, strict=True)]).value == pytest.approx(
        3, rel=0.01
    )


def test_noise_widens_the_interval_and_neighbours_that_are_alike_widen_it_more() -> None:
    xs = [float(n) for n in range(40)]
    noise = random.Random(1).choices(range(10), k=40)
    scattered = theil_sen(xs, [x + one for x, one in zip(xs, noise, strict=True)])
    lumpy = theil_sen(xs, [x + one for x, one in zip(xs, sorted(noise[:20]) + sorted(noise[20:]), strict=True)])
    assert theil_sen(xs, xs).high == theil_sen(xs, xs).low == 1.0
    assert lumpy.high - lumpy.low > 3 * (scattered.high - scattered.low) > 0


def test_young_samples_are_kept_and_old_ones_merged() -> None:
    whole = track([float(n) for n in range(5000)])
    thin = by_age(whole)
    assert len(thin) < 1100
    assert list(thin.values[-YOUNG:]) == list(whole.values[-YOUNG:])
    assert thin.values[0] < 100
    assert list(thin.values) == sorted(thin.values)


def test_points_are_spread_evenly_over_an_axis_whatever_was_sampled_how_often() -> None:
    axis = [0.0] * 500 + [float(n) for n in range(100)]
    thin = by_axis(Track(axis, axis, axis, [float(n) for n in range(600)]), "requests", 10)
    assert len(thin) == 10
    assert thin.requests[0] == 0.0
    assert thin.values[0] == pytest.approx(255, abs=5)


def test_two_steps_that_stand_out_are_taken_out_and_regular_ones_are_not() -> None:
    clean, steps = without_steps(range(8), [0, 1, 2, 103, 104, 105, 206, 207])
    assert [index for index, _ in steps] == [3, 6]
    assert clean == [0, 1, 2, 3, 4, 5, 6, 7]
    assert without_steps(range(8), [0, 0, 9, 9, 18, 18, 27, 27])[1] == ()


def test_a_rise_over_a_long_way_is_no_step_and_one_that_falls_back_is_none_either() -> None:
    assert without_steps([0, 60, 120, 121, 122, 123, 124], [0.0, 60, 120, 121, 122, 123, 124])[1] == ()
    held = [0.0, 1, 2, 3, 104, 5, 6, 7, 8]
    assert without_steps(range(9), held) == (held, ())


def test_pieces_in_which_nobody_looked_lie_between_their_neighbours() -> None:
    """What is old was looked at once a minute: a leak at one request a second is even all the same."""
    xs = [0, 125, 245, *range(250, 480)]
    old = Track([float(x) for x in xs], xs, xs, [7.0 * x for x in xs])
    assert judge(old, "requests", 10).faults == ()


def test_a_buffer_that_was_held_still_now_and_then_shows_in_no_point_of_few_samples() -> None:
    """Medians of three at least."""
    assert len(by_axis(track([0.0] * 100), "requests")) == 33
    values = [10.0 * n + 900 * (n % 16 == 8) for n in range(100)]
    assert judge(track(values), "requests", 10).error < 60


def test_what_stands_still_in_a_pause_does_not_go_with_time() -> None:
    values = track([7.0 * min(n, 165) for n in range(200)])
    assert judge(values, "requests", 10).faults == ()
    assert judge(values, "time", 10).faults == ("uneven",)


def test_requests_before_the_oldest_sample_count_as_life() -> None:
    """The first minute's samples become one: a life of 320 requests of which 200 are seen may be judged."""
    assert estimate(leaking(16 * KB, 320)[120:]).verdict == "leaking"
    young = [replace(one, requests=one.requests - 120) for one in leaking(16 * KB, 320)[120:]]
    assert estimate(young).verdict == "suspect"


def test_of_a_fast_life_few_old_samples_are_kept_and_its_leak_is_found_all_the_same() -> None:
    """Seventy requests a second: what is kept of the first minutes are two samples."""
    ns = [0, 2700, *range(5400, 6100, 3)]
    assert estimate([sample(n, BASE + 16 * KB * n, at_s=n / 70) for n in ns]).verdict == "leaking"


def test_low_points_are_all_of_what_rises_and_the_feet_of_teeth() -> None:
    assert low_points([1, 2, 3, 4]) == [0, 1, 2, 3]
    assert low_points([]) == []
    toothed = [float(n % 10 * 100 + n) for n in range(50)]
    assert low_points(toothed)[:4] == [0, 10, 20, 30]
    assert falls_back(toothed)
    assert not falls_back([float(n) for n in range(50)])
    assert not falls_back([])


def test_low_points_tell_of_a_leak_only_where_the_teeth_are_smaller_than_what_leaks() -> None:
    """Low points rise always: they are the lowest of all that follows."""

    def toothed(height: float) -> Track:
        return track([10.0 * n + height * (n // 12 % 2) for n in range(240)])

    assert judge(toothed(1000), "requests", 10).faults == ()
    assert judge(toothed(2000), "requests", 10).faults == ("noise",)


def saw(rate: float, height: float, seed: int = 1, period: int = 30, count: int = 450) -> Track:
    """A leak beneath teeth of an allocator, of unequal lengths."""
    chance, values, begin, length = random.Random(seed), [], 0, period
    for n in range(count):
        if n >= begin + length:
            begin, length = n, round(period * chance.uniform(0.7, 1.3))
        values.append(rate * n + height * (n - begin) / period + chance.uniform(0, 20))
    return track(values)


def test_a_leak_beneath_teeth_that_are_too_close_together_shows_in_the_low_points() -> None:
    found = []
    for seed in range(40):
        one = saw(10.0, 1600.0, seed)
        assert not falls_back(by_axis(one, "requests").values)  # a point is the median of a third of a tooth
        growth = judge(one, "requests", 10)
        if not growth.faults:
            found.append(growth.slope.value)
    assert len(found) >= 35  # 11 of all points
    assert found == pytest.approx([10.0] * len(found), rel=0.15)


def test_where_the_low_points_are_not_firm_the_doubts_of_all_points_remain() -> None:
    growth = judge(saw(10.0, 2400.0, seed=13), "requests", 10)
    assert set(growth.faults) & {"noise", "uneven"}


@given(st.integers(0, 10_000), st.integers(5, 60), st.floats(0.0, 5000.0))
def test_teeth_alone_are_no_leak(seed: int, period: int, height: float) -> None:
    assert judge(saw(0.0, height, seed, period), "requests", 100).faults


def test_low_points_are_firm_if_they_are_straight_and_everywhere() -> None:
    xs = [float(n) for n in range(101)]
    low = list(range(0, 101, 5))
    slope = Slope(10.0, 9.0, 11.0, 0.0)
    firm = Growth("requests", xs, [10.0 * x for x in xs], slope, (), (), error=100.0, ratio=1.2)
    assert _is_firm(firm, low)
    assert not _is_firm(replace(firm, error=150.0), low)
    assert not _is_firm(replace(firm, steps=((50, 100.0),)), low)
    assert not _is_firm(replace(firm, ratio=1.4), low)
    assert not _is_firm(replace(firm, ratio=0.7), low)
    assert _is_firm(firm, [n for n in low if not 40 < n < 60])
    assert not _is_firm(firm, [n for n in low if not 35 < n < 60])


def test_low_points_that_rise_faster_and_faster_are_a_curve() -> None:
    def toothed(power: float) -> Track:
        return track([2400 * (n / 240) ** power + 700 * (n // 12 % 2) for n in range(240)])

    assert falls_back(by_axis(toothed(1.7), "requests").values)
    assert judge(toothed(1.5), "requests", 10).faults == ()
    assert judge(toothed(1.7), "requests", 10).faults == ("uneven",)


def test_growth_says_why_it_is_no_leak() -> None:
    assert judge(track([0.0] * 100), "requests", 10).faults == ("small",)
    assert "uneven" in judge(track([float(n // 25) * 100 for n in range(100)]), "requests", 1).faults
    spurt = [n + 5.0 * min(12, max(0, n - 50)) for n in range(100)]
    assert "uneven" in judge(track(spurt), "requests", 1).faults
    assert "flattens" in judge(track([1000 * (1 - math.exp(-n / 30)) for n in range(100)]), "requests", 1).faults
    assert judge(track([7.0 * n for n in range(100)]), "requests", 10).faults == ()


def test_what_would_have_grown_anyhow_is_not_explained() -> None:
    """A leak that goes on while contexts grow keeps its rate."""
    samples = [sample(n, BASE + 64 * KB * n, context_tokens=1 + n // 100) for n in range(400)]
    adjusted, steps, begin = explain(samples, [], [series_of(one, "anon") for one in samples])
    assert (steps, begin) == ((), 0)
    assert adjusted[-1] - adjusted[0] == 64 * KB * 399


def test_old_samples_are_far_apart_and_what_leaks_between_two_is_not_explained() -> None:
    """A longer context comes in one of the long ways between samples that are a minute apart."""
    ns = [*range(0, 300, 60), *range(300, 540)]
    for hurries in (False, True):  # many requests in a short time, or in a long one
        samples = [
            sample(n, BASE + 64 * KB * n, context_tokens=1 + (n >= 120), at_s=float(index if hurries else n))
            for index, n in enumerate(ns)
        ]
        assert explain(samples, [], [series_of(one, "anon") for one in samples])[1] == ()
    stepped = [replace(one, rss_anon_bytes=one.rss_anon_bytes + 20 * MB * (one.requests >= 120)) for one in samples]
    (step,) = explain(stepped, [], [series_of(one, "anon") for one in stepped])[1]
    assert step.height == pytest.approx(20 * MB, rel=0.05)


def test_pieces_of_a_leak_are_not_explained_by_a_longer_context_that_comes_with_one() -> None:
    held = [(16 * KB * n // (512 * KB)) * 512 * KB for n in range(600)]
    samples = [sample(n, BASE + held[n], context_tokens=1 + n // 96) for n in range(600)]
    assert explain(samples, [], [series_of(one, "anon") for one in samples])[1] == ()


def test_a_time_of_filling_is_no_evidence() -> None:
    samples = [sample(n, BASE + 64 * KB * min(n, 100), context_tokens=1 + min(n, 100)) for n in range(200)]
    adjusted, _, begin = explain(samples, [], [series_of(one, "anon") for one in samples])
    assert begin == 100
    assert adjusted[-1] == adjusted[begin]


def test_a_short_stretch_at_the_end_of_a_long_slope_is_not_judged_alone() -> None:
    values = [BASE + 60 * MB * (1 - math.exp(-n / 500)) for n in range(1200)]
    flat = track(values)
    assert not judge(flat.part(1000), "requests", MB).faults
    assert search(flat, "requests", Policy(), MB) is None


def test_a_warm_up_before_a_leak_does_not_hide_it_and_a_curve_that_flattens_is_none() -> None:
    warm = [sample(n, BASE + 60 * MB * (1 - math.exp(-n / 10)) + 16 * KB * n) for n in range(450)]
    assert series(estimate(warm)).verdict == "leaking"
    pool = [sample(n, BASE + 2 * MB * math.log(1 + n)) for n in range(450)]
    assert series(estimate(pool)).verdict != "leaking"


def test_a_large_step_that_a_leak_along_time_leaves_out_does_not_make_requests_explain_it() -> None:
    """Requests come at twice the pace in the later half; time goes on evenly, but for one buffer made larger."""
    times = [n if n < 250 else 250 + (n - 250) / 2 for n in range(500)]
    samples = [sample(n, BASE + 16 * KB * at_s + 4 * MB * (n > 100), at_s=at_s) for n, at_s in enumerate(times)]
    found = series(estimate(samples))
    assert (found.verdict, found.explained_by) == ("leaking", "time")
    assert found.per_hour.value == pytest.approx(16 * KB * 3600, rel=0.05)


def test_a_held_buffer_is_taken_out_and_steps_and_noise_stay() -> None:
    noise = random.Random("spikes")
    values = [float(noise.gauss(0, 1) + 50 * (n >= 100)) for n in range(200)]
    assert without_spikes(values) == values
    held = [value + 60 * (n in (40, 41, 150)) for n, value in enumerate(values)]
    calm = without_spikes(held)
    assert [n for n in range(200) if calm[n] != values[n]] == [40, 41, 150]
    assert max(map(abs, calm[:100])) < 5
    assert (without_spikes([]), without_spikes([3.0]), without_spikes([1.0] * 9)) == ([], [3.0], [1.0] * 9)


def test_samples_that_repeat_the_one_before_do_not_make_noise_look_like_spikes() -> None:
    noise = random.Random("repeated")
    levels = [noise.gauss(0, 1) for _ in range(60)]
    values = [level for level in levels for _ in range(4)]
    assert without_spikes(values) == values
    still = [*levels, *[0.0] * 300]
    assert without_spikes(still)[2:58] == levels[2:58]


def test_buffers_that_are_held_now_and_then_do_not_hide_a_leak() -> None:
    chance = random.Random(3)
    held = [BASE + 48 * KB * n + 30 * MB * (chance.random() < 0.2) for n in range(150)]
    assert series(estimate([sample(3 * n, held[n]) for n in range(150)])).verdict == "leaking"


def test_a_stretch_with_little_before_it_is_the_whole_life_and_straight_or_tells_nothing() -> None:
    whole = track([float(n) for n in range(440)])
    straight = judge(whole, "requests", 0.0)
    assert not _is_curved(whole, 0, straight, Policy())
    assert not _is_curved(whole, 95, judge(whole.part(95), "requests", 0.0), Policy())
    assert _is_curved(whole, 125, judge(whole.part(125), "requests", 0.0), Policy()), "a quarter of the life was before"
    assert _is_curved(whole.part(0, 300), 0, straight, Policy()), "shorter than two stretches"
    xs = [*(n / 4 for n in range(200)), *map(float, range(50, 450, 2))]
    early = Track(xs, xs, xs, xs)  # half of the samples are of the first ninth of the life
    assert not _is_curved(early, 200, judge(early.part(200), "requests", 0.0), Policy())
    assert _is_curved(whole, 0, replace(straight, ratio=0.79), Policy())


def test_what_is_given_back_later_is_no_step_whatever_came_with_it() -> None:
    """A buffer that was held through a pause began with a longer context than any before."""
    held = [BASE + 20 * KB * n + 8 * MB * (200 <= n < 230) for n in range(400)]
    samples = [sample(n, held[n], context_tokens=1 + (n >= 200)) for n in range(400)]
    assert explain(samples, [], held)[1] == ()
    kept = [BASE + 20 * KB * n + 8 * MB * (n >= 200) for n in range(400)]
    (step,) = explain(samples, [], kept)[1]
    assert step.height == pytest.approx(8 * MB, rel=0.05)


def marked(every: int, height: float, rate: float = 0.0) -> tuple[list[Sample], list[Mark]]:
    """400 samples with some noise and *rate* a request; every so many, a mark with which *height* comes."""
    chance = random.Random(7)
    held = [BASE + rate * n + height * (n // every) + chance.gauss(0, 100 * KB) for n in range(400)]
    marks = [Mark(at_s=1000.0 + n - 0.5, kind="lora") for n in range(every, 400, every)]
    return [sample(n, held[n]) for n in range(400)], marks


def test_what_rose_at_marks_only_is_suspect_at_most_though_none_of_it_stood_out() -> None:
    samples, marks = marked(every=20, height=160 * KB)
    assert explain(samples, marks, [one.rss_anon_bytes for one in samples])[1] == ()
    assert estimate(samples).verdict == "leaking"
    found = series(estimate(samples, marks))
    assert (found.verdict, found.reasons) == ("suspect", ("marks",))


def test_marks_do_not_hide_what_leaks_between_them() -> None:
    samples, marks = marked(every=50, height=4 * MB, rate=16 * KB)
    found = series(estimate(samples, marks))
    assert found.verdict == "leaking"
    assert found.per_request.value == pytest.approx(16 * KB, rel=0.1)


@pytest.mark.parametrize("every", [1, 2])
def test_a_mark_at_nearly_every_request_excuses_nothing(every: int) -> None:
    """rkvisord knows the last 64 of them."""
    samples, marks = marked(every, height=every * 16 * KB)
    assert series(estimate(samples, marks[-64:])).verdict == "leaking"
    assert rare(samples, marks[-15:]) == marks[-15:], "some in a row are no habit"
    apart = marked(every=4, height=0.0)[1][-64:]
    assert rare(samples, apart) == apart


def test_a_small_rise_at_a_mark_counts_as_given_back_only_where_noise_does_not_fall_as_far() -> None:
    """Generously read, it belongs to the mark; a large one that is gone again does not."""
    samples, marks = marked(every=20, height=160 * KB)
    values = [float(one.rss_anon_bytes) for one in samples]
    steps = explain(samples, marks, values, is_generous=True)[1]
    assert sum(step.height for step in steps) == pytest.approx(19 * 160 * KB, rel=0.25)
    held = [BASE + 8 * MB * (100 <= n < 200) + 0.0 for n in range(400)]
    (lora,) = [mark for mark in marks if mark.at_s == 1099.5]
    assert explain(samples, [lora], held, is_generous=True)[1] == ()
