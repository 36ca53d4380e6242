from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkvisor.protocol.errors import CATALOGUE
from rkvisor.supervisor.requests.ladder import MAX_ATTEMPTS, POISON_DEATHS, Again, GiveUp, Suspect, after_death

CALM: dict[str, Any] = {
    "streamed": 0,
    "is_greedy": True,
    "may_retry": True,
    "can_force": True,
    "is_tokens": False,
    "charged": 1,
    "attempts": 1,
}


def verdict(**changes: Any) -> str:
    """What happens to a request that differs from a calm one by *changes*: the resume, or the error."""
    decided = after_death(Suspect(**(CALM | changes)))
    return decided.name if isinstance(decided, GiveUp) else f"again {decided.resume}".strip()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "again"),
        ({"is_greedy": False, "can_force": False}, "again"),
        ({"streamed": 1}, "again forced"),
        ({"streamed": 1, "is_greedy": False}, "again forced"),
        ({"streamed": 1, "can_force": False}, "again muted"),
        ({"streamed": 1, "can_force": False, "is_greedy": False}, "WORKER_CRASHED"),
        ({"streamed": 1, "can_force": False, "is_greedy": False, "is_tokens": True}, "again tokens"),
        ({"streamed": 1, "can_force": False, "is_tokens": True}, "again muted"),
        ({"streamed": 1, "is_greedy": False, "is_tokens": True}, "again forced"),
        ({"streamed": 1, "can_force": False, "is_greedy": False, "is_tokens": True, "charged": 2}, "POISON_REQUEST"),
        ({"is_greedy": False, "can_force": False, "is_tokens": True}, "again"),
        ({"may_retry": False}, "WORKER_CRASHED"),
        ({"streamed": 9, "may_retry": False}, "WORKER_CRASHED"),
        ({"is_edited": True}, "WORKER_CRASHED"),
        ({"streamed": 9, "is_edited": True}, "WORKER_CRASHED"),
        ({"charged": 0}, "again"),
        ({"charged": 2}, "POISON_REQUEST"),
        ({"charged": 3, "may_retry": False}, "POISON_REQUEST"),
        ({"charged": 0, "attempts": 7}, "again"),
        ({"charged": 0, "attempts": 8}, "WORKER_CRASHED"),
    ],
)
def test_each_rung_of_the_ladder(changes: dict[str, Any], expected: str) -> None:
    assert verdict(**changes) == expected


suspects = st.builds(
    Suspect,
    streamed=st.integers(0, 5),
    is_greedy=st.booleans(),
    may_retry=st.booleans(),
    can_force=st.booleans(),
    is_tokens=st.booleans(),
    charged=st.integers(0, 4),
    attempts=st.integers(1, 10),
    is_edited=st.booleans(),
)


@given(suspects)
def test_a_request_runs_again_only_while_it_may_and_only_in_a_way_its_runtime_has(suspect: Suspect) -> None:
    decided = after_death(suspect)
    if isinstance(decided, GiveUp):
        assert decided.name in CATALOGUE
        assert decided.reason
        return
    assert suspect.may_retry
    assert not suspect.is_edited
    assert suspect.charged < POISON_DEATHS
    assert suspect.attempts < MAX_ATTEMPTS
    assert bool(decided.resume) == bool(suspect.streamed), "what was streamed is never streamed twice"
    if decided.resume == "forced":
        assert suspect.can_force
    if decided.resume == "muted":
        assert suspect.is_greedy
    if decided.resume == "tokens":
        assert suspect.is_tokens
        assert not suspect.is_greedy, "a rerun that is compared is exact, a continuation need not be"


@pytest.mark.parametrize(
    ("resume", "is_greedy", "quality"),
    [
        ("", True, None),
        ("", False, None),
        ("forced", True, "exact"),
        ("forced", False, "continued"),
        ("muted", True, "exact"),
        ("tokens", False, "continued"),
    ],
)
def test_the_result_says_how_faithful_the_resume_is(resume: str, is_greedy: bool, quality: str | None) -> None:
    assert Again(resume).quality(is_greedy) == quality
