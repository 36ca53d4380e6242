"""The estimator (design §7): what it says of traces that it knows, and what must not matter to it."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rkvisor.supervisor.memory.estimate import Report, SeriesEstimate, _grows, estimate
from rkvisor.supervisor.memory.explained import explain
from rkvisor.supervisor.memory.growth import envelope, judge, without_steps
from rkvisor.supervisor.memory.sample import Mark, Sample, series_of
from rkvisor.supervisor.memory.search import Policy, search
from rkvisor.supervisor.memory.slope import theil_sen
from rkvisor.supervisor.memory.standing import MORE_REQUESTS, MORE_S, Standing, settle
from rkvisor.supervisor.memory.thinning import YOUNG, Track, by_age, by_axis, without_spikes

KB, MB = 1024, 1024 * 1024
BASE = 50 * MB


def sample(n: int, anon: float = BASE, **more: object) -> Sample:
    """Of request *n*, one a second, twenty tokens each."""
    known: dict[str, object] = {
        "at_s": 1000.0 + n,
        "wall_s": float(n),
        "requests": n,
        "tokens_in": 10 * n,
        "tokens_out": 10 * n,
        "rss_bytes": int(anon),
        "rss_anon_bytes": int(anon),
        "descriptors": 17,
    }
    return Sample(**{**known, **more})  # type: ignore[arg-type]


def leaking(rate: float, count: int = 400, base: float = BASE) -> list[Sample]:
    """*rate* bytes of anonymous memory a request."""
    return [sample(n, base + rate * n) for n in range(count)]


def series(report: Report, name: str = "anon") -> SeriesEstimate:
    return next(one for one in report.series if one.name == name)


def track(values: list[float]) -> Track:
    axis = [float(n) for n in range(len(values))]
    return Track(axis, axis, axis, values)


# Samples and series.


def test_memory_that_is_swapped_out_still_counts() -> None:
    """A leak that is swapped out hides from RSS (design §7)."""
    one = sample(0, 3 * MB, swap_bytes=2 * MB)
    assert series_of(one, "anon") == 5 * MB


def test_the_model_file_is_no_part_of_what_a_process_maps() -> None:
    one = sample(0, rss_file_bytes=9 * MB, rss_shmem_bytes=2 * MB, model_file_bytes=8 * MB)
    assert series_of(one, "file") == 3 * MB
    assert series_of(replace(one, model_file_bytes=99 * MB), "file") == 0


def test_a_series_that_there_is_not_is_refused() -> None:
    with pytest.raises(KeyError):
        series_of(sample(0), "rss")


# Verdicts.


def test_a_process_without_samples_or_with_few_is_warming_up() -> None:
    assert estimate([]).verdict == "warming_up"
    assert estimate([sample(n) for n in range(30)]).verdict == "warming_up"


def test_a_process_that_holds_what_it_held_is_clean() -> None:
    report = estimate([sample(n) for n in range(300)])
    assert report.verdict == "clean"
    assert [one.per_request.value for one in report.series] == [0.0] * 4


@pytest.mark.parametrize("rate", [4 * KB, 16 * KB, 1 * MB])
def test_a_leak_is_found_with_its_rate_and_what_explains_it(rate: int) -> None:
    found = series(estimate(leaking(rate)))
    assert found.verdict == "leaking"
    assert found.explained_by == "requests"
    assert found.per_request.value == pytest.approx(rate, rel=0.01)
    assert found.per_token.value == pytest.approx(rate / 20, rel=0.01)
    assert found.per_hour.value == pytest.approx(rate * 3600, rel=0.01)
    assert found.per_request.low <= rate <= found.per_request.high
    assert found.grown == pytest.approx(rate * 399, rel=0.05)


def test_a_leak_is_called_one_when_a_megabyte_is_lost_and_a_slow_one_when_two_are() -> None:
    """Slow: a megabyte takes more than 300 requests; pools that fill are as slow."""
    assert estimate(leaking(KB, 400)).verdict == "clean"
    assert estimate(leaking(4 * KB, 310)).verdict == "leaking"
    assert estimate(leaking(2 * KB, 900)).verdict == "clean"
    assert estimate(leaking(2 * KB, 1100)).verdict == "leaking"
    assert estimate(leaking(KB, 1900)).verdict == "clean"
    assert estimate(leaking(KB, 2200)).verdict == "leaking"


def test_each_series_leaks_by_itself() -> None:
    """S0.12, S1.43: descriptors, dma-buf, shared memory and swap are looked at one by one."""
    whose = {
        "file": lambda n: sample(n, rss_shmem_bytes=16 * KB * n),
        "dmabuf": lambda n: sample(n, dmabuf_bytes=16 * KB * n),
        "descriptors": lambda n: sample(n, descriptors=17 + n // 10),
        "anon": lambda n: sample(n, BASE, swap_bytes=16 * KB * n),
    }
    for name, make in whose.items():
        report = estimate([make(n) for n in range(400)])
        assert {one.name for one in report.series if one.verdict == "leaking"} == {name}
    assert series(report).per_request.value == pytest.approx(16 * KB, rel=0.01)


def test_memory_that_goes_with_time_and_not_with_requests_is_told_so() -> None:
    """Bursts of requests, and pauses in which it grows on."""
    samples, at_s, n = [], 0.0, 0
    for index in range(400):
        at_s, n = (at_s + 60, n) if index % 10 == 0 else (at_s + 1, n + 1)
        samples.append(sample(n, BASE + 8 * KB * at_s, at_s=at_s))
    found = series(estimate(samples))
    assert (found.verdict, found.explained_by) == ("leaking", "time")
    assert found.per_hour.value == pytest.approx(8 * KB * 3600, rel=0.03)


def test_memory_that_goes_with_tokens_is_told_so() -> None:
    samples, tokens, chance = [], 0, random.Random(1)
    for n in range(400):
        tokens += chance.choice((20, 20, 20, 2000))
        samples.append(sample(n, BASE + 256 * tokens, tokens_in=0, tokens_out=tokens))
    found = series(estimate(samples))
    assert (found.verdict, found.explained_by) == ("leaking", "tokens")
    assert found.per_token.value == pytest.approx(256, rel=0.03)


def test_warm_up_is_no_leak_and_what_comes_after_it_may_be_one() -> None:
    warm = [sample(n, BASE + 80 * MB * (1 - math.exp(-n / 20))) for n in range(500)]
    assert estimate(warm).verdict == "clean"
    both = [replace(one, rss_anon_bytes=one.rss_anon_bytes + 16 * KB * n) for n, one in enumerate(warm)]
    found = series(estimate(both))
    assert found.verdict == "leaking"
    assert found.per_request.value == pytest.approx(16 * KB, rel=0.1)
    assert found.since_s > 1000.0


def test_growth_that_flattens_for_ever_is_no_leak() -> None:
    for count in range(200, 900, 50):
        assert estimate([sample(n, BASE + MB * math.log(n + 1)) for n in range(count)]).verdict != "leaking"


def test_steps_and_teeth_are_no_leak() -> None:
    assert estimate([sample(n, BASE + 30 * MB * (n > 200) + 5 * MB * (n > 300)) for n in range(400)]).verdict == "clean"
    assert estimate([sample(n, BASE + 100 * KB * (n % 40)) for n in range(400)]).verdict == "clean"


def test_a_leak_is_found_beneath_teeth_and_across_a_step() -> None:
    toothed = [sample(n, BASE + 32 * KB * n + 64 * KB * (n % 40)) for n in range(600)]
    assert series(estimate(toothed)).per_request.value == pytest.approx(32 * KB, rel=0.1)
    stepped = [sample(n, BASE + 32 * KB * n + 50 * MB * (n > 250)) for n in range(500)]
    found = series(estimate(stepped))
    assert found.verdict == "leaking"
    assert found.per_request.value == pytest.approx(32 * KB, rel=0.1)


def test_a_leak_that_arrives_in_arenas_is_found_with_its_mean_rate() -> None:
    stairs = [sample(n, BASE + (16 * KB * n // (132 * KB)) * 132 * KB) for n in range(450)]
    found = series(estimate(stairs))
    assert found.verdict == "leaking"
    assert found.per_request.value == pytest.approx(16 * KB, rel=0.1)


def test_a_leak_that_begins_late_is_found_and_its_rate_is_not_that_of_the_whole_life() -> None:
    samples = [sample(n, BASE + 64 * KB * max(0, n - 3000)) for n in range(3300)]
    found = series(estimate(samples))
    assert found.verdict == "leaking"
    assert found.per_request.value == pytest.approx(64 * KB, rel=0.1)


def test_a_leak_that_became_faster_is_told_as_fast_as_it_is_now() -> None:
    samples = [sample(n, BASE + 8 * KB * n + 12 * KB * max(0, n - 300)) for n in range(600)]
    found = series(estimate(samples))
    assert found.verdict == "leaking"
    assert found.per_request.value == pytest.approx(20 * KB, rel=0.1)


def test_what_may_be_no_growth_along_the_axis_that_is_told_is_suspect_at_most() -> None:
    values = track([float(n) for n in range(100)])
    sure = judge(values, "requests", 10)
    unsure = replace(sure, slope=replace(sure.slope, low=-0.1))
    assert _grows("anon", "leaking", values, sure, 99.0, ()).verdict == "leaking"
    assert _grows("anon", "leaking", values, unsure, 99.0, ()).verdict == "suspect"


def test_a_swing_that_comes_back_is_no_leak() -> None:
    samples = [sample(n, BASE + 8 * MB * math.sin(n / 40)) for n in range(1000)]
    assert all(estimate(samples[:end]).verdict != "leaking" for end in range(300, 1000, 50))


def test_the_buffers_of_running_requests_are_not_looked_at() -> None:
    busy = [sample(n, BASE + (500 * KB * n if n % 2 else 0), is_idle=n % 2 == 0) for n in range(400)]
    report = estimate(busy)
    assert (report.verdict, series(report).value) == ("clean", BASE)


def test_what_a_mark_or_a_longer_context_explains_is_told_and_is_no_leak() -> None:
    marks = [Mark(at_s=1000.0 + n - 0.5, kind="lora", text=f"l{n}") for n in range(50, 400, 50)]
    loaded = [sample(n, BASE + 4 * MB * (n // 50)) for n in range(400)]
    report = estimate(loaded, marks)
    assert report.verdict == "clean"
    assert [step.text for step in series(report).steps] == [f"l{n}" for n in range(50, 400, 50)]
    filling = [sample(n, BASE + 20 * KB * min(n, 300), context_tokens=min(n, 300) + 1) for n in range(350)]
    assert estimate(filling).verdict == "warming_up"


def test_the_limit_is_reached_when_the_rest_of_it_has_leaked() -> None:
    samples = leaking(16 * KB)
    rest_s = (100 * MB - samples[-1].rss_bytes) / (16 * KB)
    assert estimate(samples, limit_bytes=100 * MB).limit_in_s == pytest.approx(rest_s, rel=0.02)
    assert estimate(samples).limit_in_s is None
    assert estimate(samples, limit_bytes=MB).limit_in_s == 0
    assert estimate([sample(n) for n in range(400)], limit_bytes=100 * MB).limit_in_s is None


# What must not matter.


@settings(max_examples=10, deadline=None)
@given(rate=st.integers(4, 512), base=st.integers(0, 4096), later_s=st.integers(0, 10**6), seed=st.integers(0, 2**32))
def test_neither_what_was_held_before_nor_the_clock_matters(rate: int, base: int, later_s: int, seed: int) -> None:
    chance = random.Random(seed)
    noise = [chance.gauss(0, 16 * KB) for _ in range(350)]
    plain = [sample(n, BASE + rate * KB * n + noise[n]) for n in range(350)]
    moved = [replace(one, rss_anon_bytes=one.rss_anon_bytes + base * MB, at_s=one.at_s + later_s) for one in plain]
    one, other = series(estimate(plain)), series(estimate(moved))
    assert one.verdict == other.verdict
    assert other.per_request.value == pytest.approx(one.per_request.value, rel=0.01)
    assert other.per_hour.value == pytest.approx(one.per_hour.value, rel=0.01)


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


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), size=st.sampled_from([4, 32, 256, 2048]))
def test_noise_that_returns_is_never_called_a_leak(seed: int, size: int) -> None:
    chance = random.Random(seed)
    samples = [sample(n, 4 * BASE + chance.gauss(0, size * KB)) for n in range(600)]
    assert estimate(samples).verdict != "leaking"


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


# The parts.


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


def test_the_envelope_is_everything_without_teeth_and_their_feet_with_them() -> None:
    assert envelope([1, 2, 3, 4]) == [0, 1, 2, 3]
    toothed = [float(n % 10 * 100 + n) for n in range(50)]
    assert envelope(toothed)[:4] == [0, 10, 20, 30]


def test_low_points_tell_of_a_leak_only_where_the_teeth_are_smaller_than_what_leaks() -> None:
    """Low points rise always: they are the lowest of all that follows."""

    def toothed(height: float) -> Track:
        return track([10.0 * n + height * (n // 12 % 2) for n in range(240)])

    assert judge(toothed(1000), "requests", 10).faults == ()
    assert judge(toothed(2000), "requests", 10).faults == ("noise",)


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
    held = [value + 900 * (n in (40, 41, 150)) for n, value in enumerate(values)]
    calm = without_spikes(held)
    assert [n for n in range(200) if calm[n] != values[n]] == [40, 41, 150]
    assert max(map(abs, calm[:100])) < 5
    assert (without_spikes([]), without_spikes([3.0]), without_spikes([1.0] * 9)) == ([], [3.0], [1.0] * 9)


def test_samples_that_repeat_the_one_before_do_not_make_noise_look_like_spikes() -> None:
    noise = random.Random("repeated")
    levels = [noise.gauss(0, 1) for _ in range(60)]
    values = [level for level in levels for _ in range(4)]
    assert without_spikes(values) == values


def test_what_is_given_back_later_is_no_step_whatever_came_with_it() -> None:
    """A buffer that was held through a pause began with a longer context than any before."""
    held = [BASE + 20 * KB * n + 8 * MB * (200 <= n < 230) for n in range(400)]
    samples = [sample(n, held[n], context_tokens=1 + (n >= 200)) for n in range(400)]
    assert explain(samples, [], held)[1] == ()
    kept = [BASE + 20 * KB * n + 8 * MB * (n >= 200) for n in range(400)]
    (step,) = explain(samples, [], kept)[1]
    assert step.height == pytest.approx(8 * MB, rel=0.05)


# What is said.


def said_of(
    estimates: Sequence[str], standing: Standing, requests: int = MORE_REQUESTS, gap_s: float = 1.0
) -> list[str]:
    """What is said after each of *estimates*, so many *requests* and seconds apart."""
    said = []
    for n, estimated in enumerate(estimates, 1):
        standing = settle(standing, estimated, n * requests, n * gap_s)  # type: ignore[arg-type]
        said.append(standing.verdict)
    return said


@pytest.mark.parametrize(("requests", "gap_s"), [(MORE_REQUESTS, 1.0), (0, MORE_S)], ids=["requests", "time"])
def test_leaking_is_said_after_three_estimates_and_taken_back_after_three(requests: int, gap_s: float) -> None:
    said = said_of(("clean", *("leaking",) * 4, *("clean",) * 4), Standing(), requests, gap_s)
    assert said == ["clean", "suspect", "suspect", "leaking", "leaking", "leaking", "leaking", "clean", "clean"]


def test_a_single_doubt_does_not_begin_the_count_anew_when_it_is_over() -> None:
    assert said_of(("clean", "clean", "leaking", "clean", "clean"), Standing("leaking"))[-1] == "leaking"


def test_three_looks_at_the_same_requests_are_one() -> None:
    """An estimate a minute of a process that serves little: none sees more than the one before."""
    assert set(said_of(["leaking"] * 9, Standing(), requests=0, gap_s=60.0)) == {"suspect"}
    assert set(said_of(["clean"] * 9, Standing("leaking", requests=0, at_s=0.0), requests=0, gap_s=60.0)) == {"leaking"}
    said = said_of(["leaking"] * 30, Standing(), requests=3, gap_s=60.0)
    assert said.index("leaking") == 14, "the first, the one 21 requests later, and the one 21 requests after that"


def test_what_is_said_between_two_that_count_does_not_begin_the_count_anew() -> None:
    said = said_of(
        ["leaking", "clean", "leaking", "clean", "leaking", "clean"], Standing(), requests=MORE_REQUESTS // 2
    )
    assert said == ["suspect", "clean", "suspect", "clean", "leaking", "leaking"]
