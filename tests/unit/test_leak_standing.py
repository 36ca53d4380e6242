"""What is said of a process from one estimate to the next."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from rkvisor.supervisor.memory.standing import MORE_REQUESTS, MORE_S, SPAN_REQUESTS, SPAN_S, Standing, settle


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
def test_leaking_is_said_after_four_close_estimates_and_taken_back_after_three(requests: int, gap_s: float) -> None:
    said = said_of(("clean", *("leaking",) * 5, *("clean",) * 4), Standing(), requests, gap_s)
    assert said == ["clean", *["suspect"] * 3, *["leaking"] * 4, "clean", "clean"]


@pytest.mark.parametrize(
    ("requests", "gap_s"),
    [(SPAN_REQUESTS // 2, 1.0), (0, SPAN_S / 2), (400, 9000.0)],
    ids=["requests", "time", "far apart"],
)
def test_three_estimates_are_enough_where_they_see_more_of_the_life(requests: int, gap_s: float) -> None:
    said = said_of(("clean", *("leaking",) * 4), Standing(), requests, gap_s)
    assert said == ["clean", "suspect", "suspect", "leaking", "leaking"]


def test_what_was_seen_before_a_doubt_does_not_count() -> None:
    said = said_of(("leaking", "leaking", "clean", *("leaking",) * 4), Standing())
    assert said == ["suspect", "suspect", "clean", *["suspect"] * 3, "leaking"]


def test_a_single_doubt_does_not_begin_the_count_anew_when_it_is_over() -> None:
    assert said_of(("clean", "clean", "leaking", "clean", "clean"), Standing("leaking"))[-1] == "leaking"


def test_many_looks_at_the_same_requests_are_one() -> None:
    """An estimate a minute of a process that serves little: none sees more than the one before."""
    assert set(said_of(["leaking"] * 9, Standing(), requests=0, gap_s=60.0)) == {"suspect"}
    assert set(said_of(["clean"] * 9, Standing("leaking", requests=0, at_s=0.0), requests=0, gap_s=60.0)) == {"leaking"}
    said = said_of(["leaking"] * 30, Standing(), requests=3, gap_s=60.0)
    assert said.index("leaking") == 21, "the first, and three more, each 21 requests after the one before"


def test_what_is_said_between_two_that_count_does_not_begin_the_count_anew() -> None:
    said = said_of(["leaking", "clean"] * 4, Standing(), requests=MORE_REQUESTS // 2)
    assert said == [*["suspect", "clean"] * 3, "leaking", "leaking"]
