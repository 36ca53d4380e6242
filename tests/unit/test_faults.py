"""Whom a death is charged to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rkvisor.supervisor.requests.faults import FaultWindow


@dataclass(eq=False)
class FakeJob:
    """What the window sees of a job."""

    charged: int = 0
    is_alone: bool = False


def window(window_s: float = 2.0) -> Any:
    return FaultWindow(window_s)


def test_a_single_death_is_charged_to_its_request() -> None:
    job = FakeJob()
    assert window().died("demo:0", job, 0.0)
    assert (job.charged, job.is_alone) == (1, False)


def test_a_death_without_a_request_charges_nobody() -> None:
    assert not window().died("demo:0", None, 0.0)


def test_a_request_that_its_process_had_not_begun_is_no_suspect() -> None:
    job = FakeJob()
    assert not window().died("demo:0", job, 0.0, is_suspect=False)
    assert (job.charged, job.is_alone) == (0, False)


def test_a_charge_that_was_never_made_is_not_taken_back() -> None:
    faults, innocent, other = window(), FakeJob(charged=1), FakeJob()
    faults.died("demo:0", innocent, 0.0, is_suspect=False)
    faults.died("demo:1", other, 0.1)
    assert (innocent.charged, other.charged) == (1, 0)


def test_two_workers_that_die_together_charge_nobody_and_their_requests_run_alone() -> None:
    faults, one, two = window(), FakeJob(), FakeJob()
    assert faults.died("demo:0", one, 0.0)
    assert not faults.died("demo:1", two, 2.0)
    assert (one.charged, two.charged) == (0, 0)
    assert one.is_alone
    assert two.is_alone


def test_deaths_further_apart_than_the_window_have_causes_of_their_own() -> None:
    faults, one, two = window(), FakeJob(), FakeJob()
    assert faults.died("demo:0", one, 0.0)
    assert faults.died("demo:1", two, 2.001)
    assert (one.charged, two.charged) == (1, 1)
    assert not one.is_alone
    assert not two.is_alone


def test_an_idle_worker_that_dies_nearby_makes_it_a_common_fault_too() -> None:
    for order in ((0, 1), (1, 0)):
        faults, job = window(), FakeJob()
        deaths = [("demo:0", job), ("demo:1", None)]
        for index in order:
            faults.died(*deaths[index], 0.0)
        assert (job.charged, job.is_alone) == (0, True)


def test_one_worker_that_dies_twice_has_two_suspects() -> None:
    faults, one, two = window(), FakeJob(), FakeJob()
    assert faults.died("demo:0", one, 0.0)
    assert faults.died("demo:0", two, 0.1)
    assert (one.charged, two.charged) == (1, 1)


def test_one_request_that_ends_one_worker_after_another_is_charged_each_time() -> None:
    faults, job = window(), FakeJob()
    assert faults.died("demo:0", job, 0.0)
    assert faults.died("demo:1", job, 0.1)
    assert job.charged == 2


def test_a_request_that_runs_alone_is_charged_whatever_happens_beside_it() -> None:
    faults, guilty, other = window(), FakeJob(), FakeJob()
    faults.died("demo:0", guilty, 0.0)
    faults.died("demo:1", other, 0.0)
    faults.started(guilty)
    assert faults.died("demo:2", guilty, 0.1)
    assert guilty.charged == 1


def test_a_charge_is_taken_back_once_and_never_below_nothing() -> None:
    faults, one, two, three = window(), FakeJob(), FakeJob(), FakeJob()
    faults.died("demo:0", one, 0.0)
    faults.died("demo:1", two, 0.1)
    one.charged = 5
    faults.died("demo:2", three, 0.2)
    assert (one.charged, two.charged, three.charged) == (5, 0, 0)


def test_requests_that_run_alone_run_one_at_a_time() -> None:
    faults, one, two, free = window(), FakeJob(is_alone=True), FakeJob(is_alone=True), FakeJob()
    assert faults.may_run(one)
    faults.started(one)
    assert not faults.may_run(two)
    assert faults.may_run(free)
    faults.ended(free)
    assert not faults.may_run(two)
    faults.ended(one)
    assert faults.may_run(two)


def test_the_death_of_a_request_that_ran_alone_lets_the_next_one_run() -> None:
    faults, one, two = window(), FakeJob(is_alone=True), FakeJob(is_alone=True)
    faults.started(one)
    faults.died("demo:0", one, 0.0)
    assert faults.may_run(two)


@pytest.mark.parametrize("window_s", [0.0, 0.5, 10.0])
def test_the_width_of_the_window_is_the_operators(window_s: float) -> None:
    faults, one, two = window(window_s), FakeJob(), FakeJob()
    faults.died("demo:0", one, 0.0)
    faults.died("demo:1", two, window_s + 0.001)
    assert (one.charged, two.charged) == (1, 1)


class Deaths(RuleBasedStateMachine):
    """Any order of dispatches and deaths: charges are bounded by a request's own deaths."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: Any = FaultWindow(2.0)
        self.jobs = [FakeJob() for _ in range(4)]
        self.deaths = dict.fromkeys(range(4), 0)
        self.running: dict[int, int] = {}
        self.now_s = 0.0

    @rule(seconds=st.sampled_from([0.1, 1.0, 1.9, 2.0, 3.0]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @rule(job=st.integers(0, 3), worker=st.integers(0, 2))
    def dispatch(self, job: int, worker: int) -> None:
        if worker in self.running or job in self.running.values() or not self.faults.may_run(self.jobs[job]):
            return
        self.running[worker] = job
        self.faults.started(self.jobs[job])

    @rule(worker=st.integers(0, 2))
    def finish(self, worker: int) -> None:
        if worker in self.running:
            self.faults.ended(self.jobs[self.running.pop(worker)])

    @rule(worker=st.integers(0, 2), had_begun=st.sampled_from([True, True, False]))
    def die(self, worker: int, had_begun: bool) -> None:
        job = self.running.pop(worker, None)
        before = [one.charged for one in self.jobs]
        suspect = None if job is None else self.jobs[job]
        is_charged = self.faults.died(f"demo:{worker}", suspect, self.now_s, is_suspect=had_begun)
        if job is not None and had_begun:
            self.deaths[job] += 1
        for index, one in enumerate(self.jobs):
            if index == job and is_charged:
                assert one.charged == before[index] + 1
            else:
                assert one.charged <= before[index], "a death is charged to nobody but its own request"

    @invariant()
    def nobody_is_charged_more_than_its_own_deaths(self) -> None:
        for index, job in enumerate(self.jobs):
            assert 0 <= job.charged <= self.deaths[index]

    @invariant()
    def somebody_may_always_run_when_nothing_does(self) -> None:
        if not self.running:
            assert all(self.faults.may_run(job) for job in self.jobs)


class TestDeaths(Deaths.TestCase):
    settings = settings(max_examples=150, stateful_step_count=40)
