"""Which worker gets a new process, when, and whether beside the old one (design §5)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkvisor.supervisor.workers.recycling import SPARE_BYTES, Limits, Use, choose, has_room, reason

MB = 1_000_000


def use(**changes: Any) -> Use:
    """A worker in its best years that nobody would replace."""
    calm: dict[str, Any] = {
        "requests": 10,
        "held_bytes": 100 * MB,
        "age_s": 1000.0,
        "is_leaking": False,
        "is_able": True,
        "draw": 0.0,
    }
    return Use(**(calm | changes))


@pytest.mark.parametrize(
    ("limits", "changes", "expected"),
    [
        (Limits(), {"requests": 10**9, "held_bytes": 10**12, "is_leaking": True}, ""),
        (Limits(max_requests=11), {}, ""),
        (Limits(max_requests=10), {}, "it served 10 requests (max_requests = 10)"),
        (Limits(max_requests=10), {"age_s": 0.0}, "it served 10 requests (max_requests = 10)"),
        (Limits(max_requests=11, jitter=0.1), {"draw": 0.999}, "it served 10 requests (max_requests = 11)"),
        (Limits(max_requests=12, jitter=0.1), {"draw": 0.999}, ""),
        (Limits(max_requests=1), {"requests": 0, "draw": 0.999}, ""),
        (Limits(max_rss_bytes=100 * MB), {}, ""),
        (Limits(max_rss_bytes=100 * MB), {"held_bytes": 101 * MB}, "it holds 101.0 MB (max_rss = 100.0 MB)"),
        (Limits(max_rss_bytes=100 * MB), {"held_bytes": 101 * MB, "age_s": 29.0}, ""),
        (Limits(max_rss_bytes=100 * MB, min_s=20), {"held_bytes": 101 * MB, "age_s": 29.0}, "it holds 101.0 MB "),
        (Limits(max_rss_bytes=105 * MB, jitter=0.1), {"draw": 0.9}, "it holds 100.0 MB (max_rss = 105.0 MB)"),
        (Limits(on_leak=True), {}, ""),
        (Limits(on_leak=True), {"is_leaking": True}, "it leaks (recycle_on_leak)"),
        (Limits(on_leak=True), {"is_leaking": True, "age_s": 29.0}, ""),
    ],
)
def test_a_limit_is_a_reason_when_it_is_reached(limits: Limits, changes: dict[str, Any], expected: str) -> None:
    found = reason(limits, use(**changes))
    assert found.startswith(expected)
    assert bool(found) == bool(expected)


def test_of_several_the_worker_that_holds_most_is_first() -> None:
    uses = [use(requests=20), use(requests=20, held_bytes=300 * MB), use(requests=20, held_bytes=200 * MB)]
    chosen = choose(Limits(max_requests=15), uses, is_busy=False)
    assert chosen is not None
    assert chosen[0] == 1


def test_at_most_one_worker_of_a_model_is_replaced_at_a_time() -> None:
    assert choose(Limits(max_requests=1), [use()], is_busy=True) is None


def test_a_worker_that_cannot_be_replaced_now_is_passed_over() -> None:
    uses = [use(held_bytes=300 * MB, is_able=False), use()]
    chosen = choose(Limits(max_requests=1), uses, is_busy=False)
    assert chosen is not None
    assert chosen[0] == 1


@given(draws=st.lists(st.floats(0, 1, exclude_max=True), min_size=2, max_size=8, unique=True))
def test_workers_of_one_age_do_not_come_due_together(draws: list[float]) -> None:
    limits = Limits(max_requests=1_000_000, jitter=0.5)
    due = [
        next(
            n for n in (int(1_000_000 * (1 - 0.5 * d)) + k for k in range(3)) if reason(limits, use(requests=n, draw=d))
        )
        for d in draws
    ]
    assert all(500_000 <= one <= 1_000_000 for one in due)
    order = sorted(range(len(draws)), key=lambda index: draws[index])
    assert [due[index] for index in order] == sorted(due, reverse=True)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"free_bytes": 110 * MB + SPARE_BYTES - 1}, False),
        ({"free_bytes": 0}, False),
        ({"free_bytes": 0, "has_standby": True}, True),
        ({"has_failed": True}, False),
        ({"has_failed": True, "has_standby": True}, True),
    ],
)
def test_a_replacement_comes_first_where_memory_allows(changes: dict[str, Any], expected: bool) -> None:
    calm: dict[str, Any] = {
        "free_bytes": 110 * MB + SPARE_BYTES,
        "need_bytes": 100 * MB,
        "has_standby": False,
        "has_failed": False,
    }
    assert has_room(**(calm | changes)) is expected
