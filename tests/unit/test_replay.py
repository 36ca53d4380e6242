"""Replaying an answer leaves the KV cache as the answer had left it, on every kind of runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkvisor.protocol.link import Turn
from rkvisor.worker.replay import ERROR, NORMAL, WAITING, Echo, Plan, plan

END = 99


@dataclass
class Runtime:
    """A greedy model: the next token is a function of the cache.

    is_native: it takes the limit of a run (F5), else ``configured`` counts.  keeps_end: the token that ends an answer
    stays in the cache.  shift: another model than the one that answered first.
    """

    is_native: bool
    configured: int
    keeps_end: bool
    shift: int = 0
    cache: list[int] = field(default_factory=list)
    is_aborted: bool = False

    def _next(self) -> int:
        drawn = sha256(bytes(one % 256 for one in (*self.cache, self.shift))).digest()[0]
        return END if drawn % 5 == 0 else drawn % 50

    def run(self, prompt: list[int], how: Plan, hear: Callable[[int, int], int]) -> int:
        """Returns the token that ended the answer and is in the cache, or -1."""
        self.cache += prompt
        self.is_aborted = False
        count, limit = 0, how.max_new_tokens if self.is_native else self.configured
        for token in how.forced:
            if count >= limit:
                return -1
            self.cache.append(token)
            if token == END:
                return END
            count += 1
        while count < limit and not self.is_aborted:
            token = self._next()
            if token == END:
                self.cache += [END] * self.keeps_end
                return END if self.keeps_end else -1
            self.cache.append(token)
            count += 1
            hear(NORMAL if token % 2 else WAITING, token)
        return -1

    def abort(self) -> None:
        self.is_aborted = True


def answer(runtime: Runtime, prompt: list[int], limit: int, cut: int) -> Turn:
    """The first time: ended by the model, by *limit*, or by us behind *cut* tokens (a stop string, an abort)."""
    ids: list[int] = []

    def hear(_: int, token: int) -> int:
        ids.append(token)
        if len(ids) == cut or (len(ids) == limit and not runtime.is_native):
            runtime.abort()
        return 0

    how = Plan(forced=[], expected=[], max_new_tokens=limit, is_cut=False)
    end = runtime.run(prompt, how, hear)
    is_natural = end >= 0 or (len(ids) < limit and len(ids) != cut)
    return Turn(job=1, params=b"{}", ids=ids, end_id=end, is_natural=is_natural)


def replay(runtime: Runtime, prompt: list[int], turn: Turn, *, can_force: bool) -> Echo:
    how = plan(turn, can_force=can_force, is_native=runtime.is_native, configured=runtime.configured)
    echo = Echo(how.expected, is_cut=how.is_cut, abort=runtime.abort)
    runtime.run(prompt, how, echo)
    return echo


TURNS = st.lists(
    st.tuples(st.lists(st.integers(0, 49), min_size=1, max_size=3), st.integers(1, 12), st.integers(1, 14)),
    min_size=1,
    max_size=4,
)


@given(turns=TURNS, is_native=st.booleans(), keeps_end=st.booleans(), can_force=st.booleans())
def test_a_replayed_conversation_is_the_conversation(
    turns: list[tuple[list[int], int, int]], is_native: bool, keeps_end: bool, can_force: bool
) -> None:
    first, second = (Runtime(is_native, 12, keeps_end) for _ in range(2))
    for prompt, limit, cut in turns:
        turn = answer(first, prompt, limit, cut)
        if not turn.ids and not turn.is_natural:
            return  # nothing was said: it is no turn
        assert replay(second, prompt, turn, can_force=can_force).is_exact
        assert second.cache == first.cache


@given(turns=TURNS, is_native=st.booleans(), keeps_end=st.booleans())
def test_another_model_is_found_out_where_the_answers_are_generated_again(
    turns: list[tuple[list[int], int, int]], is_native: bool, keeps_end: bool
) -> None:
    first, second = Runtime(is_native, 12, keeps_end), Runtime(is_native, 12, keeps_end, shift=1)
    for prompt, limit, cut in turns:
        turn = answer(first, prompt, limit, cut)
        if not replay(second, prompt, turn, can_force=False).is_exact:
            return
        assert second.cache == first.cache  # by chance it said the same


def test_forced_tokens_are_not_called_back_so_nothing_is_expected() -> None:
    turn = Turn(job=1, params=b"{}", ids=[4, 5], end_id=END, is_natural=True)
    assert plan(turn, can_force=True, is_native=True, configured=12) == Plan(
        forced=[4, 5, END], expected=[], max_new_tokens=3, is_cut=False
    )


def test_an_end_that_was_called_back_as_a_token_is_forced_once() -> None:
    turn = Turn(job=1, params=b"{}", ids=[4, END], end_id=END, is_natural=True)
    assert plan(turn, can_force=True, is_native=True, configured=12).forced == [4, END]


def test_the_first_wrong_token_ends_the_run() -> None:
    aborts: list[int] = []
    echo = Echo([1, 2, 3], is_cut=False, abort=lambda: aborts.append(1))
    echo(NORMAL, 1)
    assert not aborts
    echo(NORMAL, 9)
    assert aborts
    assert not echo.is_exact


def test_too_few_and_too_many_tokens_are_not_exact() -> None:
    echo = Echo([1], is_cut=False, abort=lambda: None)
    assert not echo.is_exact
    echo(WAITING, 1)
    assert echo.is_exact
    echo(NORMAL, 1)
    assert not echo.is_exact


@pytest.mark.parametrize("is_cut", [True, False])
def test_only_an_answer_that_we_had_ended_is_ended_by_us_again(is_cut: bool) -> None:
    aborts: list[int] = []
    echo = Echo([1], is_cut=is_cut, abort=lambda: aborts.append(1))
    echo(NORMAL, 1)
    assert bool(aborts) is is_cut


def test_the_runtime_s_failure_is_told_apart_from_another_answer() -> None:
    echo = Echo([], is_cut=False, abort=lambda: None)
    echo(2, -1)
    assert not echo.has_failed
    echo(ERROR, -1)
    assert echo.has_failed
    assert echo.is_exact


@pytest.mark.parametrize(
    ("is_native", "count", "expected"),
    [
        (True, 3, Plan(forced=[0, 1, 2], expected=[], max_new_tokens=3, is_cut=False)),
        (False, 3, Plan(forced=[0, 1], expected=[2], max_new_tokens=3, is_cut=True)),
        (False, 4, Plan(forced=[0, 1, 2, 3], expected=[], max_new_tokens=4, is_cut=False)),
    ],
    ids=["the runtime knows the limit", "it does not", "it is its own"],
)
def test_an_answer_is_ended_by_us_only_where_the_runtime_would_not(is_native: bool, count: int, expected: Plan) -> None:
    turn = Turn(job=1, params=b"{}", ids=list(range(count)))
    assert plan(turn, can_force=True, is_native=is_native, configured=4) == expected
