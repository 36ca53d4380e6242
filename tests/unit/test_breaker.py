"""The circuit breaker: when it opens, whom it lets through, and that every way out of it leads back (S2.21–S2.23)."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rkvisor.supervisor.requests.breaker import Breaker, Circuit


def opened(threshold: int = 3, now_s: float = 0.0) -> Breaker:
    breaker = Breaker(threshold=threshold, open_s=30.0)
    for _ in range(threshold):
        breaker = breaker.failed(now_s)
    return breaker


def test_failures_in_a_row_open_it_and_a_success_between_them_does_not() -> None:
    breaker = Breaker(threshold=3)
    for _ in range(5):
        breaker = breaker.failed(0.0).failed(0.0).succeeded()
    assert (breaker.circuit, breaker.failures) == (Circuit.CLOSED, 0)
    assert breaker.failed(0.0).failed(0.0).circuit is Circuit.CLOSED
    assert breaker.failed(0.0).failed(0.0).failed(0.0).circuit is Circuit.OPEN


def test_while_it_is_open_nobody_passes_and_all_are_told_when_to_come_again() -> None:
    breaker = opened(now_s=100.0)
    assert breaker.admit(129.9) == (breaker, False)
    assert breaker.retry_after_s(110.0) == 20.0
    assert breaker.retry_after_s(131.0) == 0.0
    assert breaker.admit(130.0)[1]


def test_one_probe_passes_and_no_other_beside_it() -> None:
    probing, is_admitted = opened().admit(30.0)
    assert (is_admitted, probing.circuit, probing.is_probing) == (True, Circuit.HALF_OPEN, True)
    assert probing.admit(1000.0) == (probing, False)
    assert probing.retry_after_s(31.0) > 0


def test_the_success_of_the_probe_closes_it() -> None:
    probing, _ = opened().admit(30.0)
    assert probing.succeeded() == Breaker(threshold=3, open_s=30.0, opened_s=0.0)


def test_the_failure_of_the_probe_opens_it_for_as_long_again() -> None:
    probing, _ = opened().admit(40.0)
    again = probing.failed(41.0)
    assert (again.circuit, again.opened_s, again.is_probing) == (Circuit.OPEN, 41.0, False)
    assert not again.admit(70.9)[1]
    assert again.admit(71.0)[1]


def test_the_probe_of_a_breaker_that_was_brought_back_needs_no_row_of_failures() -> None:
    brought_back = Breaker(threshold=3, circuit=Circuit.HALF_OPEN, failures=0, is_probing=True)
    assert brought_back.failed(7.0).circuit is Circuit.OPEN


def test_a_probe_that_told_nothing_lets_the_next_one_pass() -> None:
    probing, _ = opened().admit(30.0)
    waiting = probing.abandoned()
    assert (waiting.circuit, waiting.is_probing) == (Circuit.HALF_OPEN, False)
    assert waiting.admit(30.0)[1]
    assert waiting.abandoned() is waiting


def test_failures_while_it_is_open_do_not_put_off_the_probe() -> None:
    breaker = opened(now_s=0.0).failed(20.0).failed(29.0)
    assert (breaker.opened_s, breaker.failures) == (0.0, 5)
    assert breaker.admit(30.0)[1]


@pytest.mark.parametrize("threshold", [1, 2, 7])
def test_its_threshold_is_the_number_of_failures_that_open_it(threshold: int) -> None:
    breaker = Breaker(threshold=threshold)
    for _ in range(threshold - 1):
        breaker = breaker.failed(0.0)
        assert breaker.admit(0.0) == (breaker, True)
    assert breaker.failed(0.0).circuit is Circuit.OPEN


class Machine(RuleBasedStateMachine):
    """Beside the breaker a plain account of what happened, in other words than its own."""

    @initialize(threshold=st.integers(1, 4))
    def begin(self, threshold: int) -> None:
        self.now_s = 50.0
        self.breaker = Breaker(threshold=threshold, open_s=10.0)
        self.row = 0
        self.shut_until_s: float | None = None
        self.probe = False

    @rule(seconds=st.sampled_from([0.0, 0.5, 9.75, 10.0, 25.0]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @rule()
    def ask(self) -> None:
        expected = self.shut_until_s is None or (self.now_s >= self.shut_until_s and not self.probe)
        self.breaker, is_admitted = self.breaker.admit(self.now_s)
        assert is_admitted is expected
        if is_admitted and self.shut_until_s is not None:
            self.probe = True

    @rule()
    def succeed(self) -> None:
        self.breaker = self.breaker.succeeded()
        self.row, self.shut_until_s, self.probe = 0, None, False

    @rule()
    def fail(self) -> None:
        is_half_open = self.breaker.circuit is Circuit.HALF_OPEN
        self.breaker = self.breaker.failed(self.now_s)
        self.row += 1
        if is_half_open or (self.shut_until_s is None and self.row >= self.breaker.threshold):
            self.shut_until_s = self.now_s + 10.0
        self.probe = False

    @precondition(lambda self: self.probe)
    @rule()
    def abandon(self) -> None:
        self.breaker = self.breaker.abandoned()
        self.probe = False

    @invariant()
    def what_it_says_is_what_happened(self) -> None:
        if not hasattr(self, "breaker"):
            return
        assert (self.breaker.circuit is Circuit.CLOSED) == (self.shut_until_s is None)
        assert self.breaker.is_probing == self.probe
        assert self.breaker.failures == self.row
        left_s = self.breaker.retry_after_s(self.now_s)
        assert left_s == 0.0 if self.shut_until_s is None else left_s >= 0.0
        if self.breaker.circuit is Circuit.OPEN:
            assert left_s == max(0.0, (self.shut_until_s or 0.0) - self.now_s)

    @invariant()
    def there_is_a_way_back(self) -> None:
        if not hasattr(self, "breaker"):
            return
        resting = self.breaker.abandoned()
        later, is_admitted = resting.admit(self.now_s + 10.5)
        assert is_admitted
        assert later.succeeded().circuit is Circuit.CLOSED


TestMachine = Machine.TestCase
