import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkvisor.supervisor.workers.backoff import Backoff, delay_s

PLAIN = Backoff(initial_s=0.1, factor=2.0, max_s=5.0, jitter=0.0)

policies = st.builds(
    lambda initial_s, more_s, factor, jitter: Backoff(
        initial_s=initial_s, factor=factor, max_s=initial_s + more_s, jitter=jitter
    ),
    st.floats(0.001, 3600),
    st.floats(0, 86_400),
    st.floats(1, 100),
    st.floats(0, 1),
)
draws = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(
    ("failures", "expected_s"),
    [(0, 0.0), (1, 0.1), (2, 0.2), (3, 0.4), (4, 0.8), (5, 1.6), (6, 3.2), (7, 5.0), (8, 5.0), (10**9, 5.0)],
)
def test_each_delay_is_twice_the_one_before_up_to_the_cap(failures: int, expected_s: float) -> None:
    assert delay_s(PLAIN, failures, 0.5) == pytest.approx(expected_s)


def test_jitter_is_applied_before_the_cap() -> None:
    policy = Backoff(initial_s=1.0, factor=2.0, max_s=8.0, jitter=0.1)
    assert delay_s(policy, 3, 0.5) == pytest.approx(4.2)
    assert delay_s(policy, 4, 0.999) == 8.0


def test_the_defaults_are_those_of_the_design() -> None:
    assert Backoff() == Backoff(initial_s=0.1, factor=2.0, max_s=5.0, jitter=0.1)


@given(policies, st.integers(1, 10**6), draws)
def test_a_delay_lies_between_the_first_delay_and_the_cap(policy: Backoff, failures: int, draw: float) -> None:
    assert policy.initial_s <= delay_s(policy, failures, draw) <= policy.max_s


@given(policies, st.integers(1, 2000), draws)
def test_delays_never_shrink_as_failures_go_on(policy: Backoff, failures: int, draw: float) -> None:
    assert delay_s(policy, failures, draw) <= delay_s(policy, failures + 1, draw)


@given(policies, st.integers(1, 50), draws)
def test_chance_adds_at_most_the_jitter_and_takes_nothing_away(policy: Backoff, failures: int, draw: float) -> None:
    calm = delay_s(policy, failures, 0.0)
    assert calm <= delay_s(policy, failures, draw) <= calm * (1 + policy.jitter) * (1 + 1e-9)
