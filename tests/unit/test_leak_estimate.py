"""The estimator (design §7): what it says of traces that it knows, and what must not matter to it."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.samples import BASE, KB, MB, leaking, sample, series, track
from rkvisor.supervisor.memory.estimate import _grows, estimate
from rkvisor.supervisor.memory.growth import judge
from rkvisor.supervisor.memory.limits import Limit
from rkvisor.supervisor.memory.sample import Mark, series_of

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
    assert estimate(samples, limits=[Limit("max_rss", 100 * MB)]).limit_in_s == pytest.approx(rest_s, rel=0.02)
    assert estimate(samples).limit_in_s is None
    assert estimate(samples, limits=[Limit("max_rss", MB)]).limit_in_s == 0
    assert estimate([sample(n) for n in range(400)], limits=[Limit("max_rss", 100 * MB)]).limit_in_s is None


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
@given(seed=st.integers(0, 2**32), size=st.sampled_from([4, 32, 256, 2048]))
def test_noise_that_returns_is_never_called_a_leak(seed: int, size: int) -> None:
    chance = random.Random(seed)
    samples = [sample(n, 4 * BASE + chance.gauss(0, size * KB)) for n in range(600)]
    assert estimate(samples).verdict != "leaking"
