"""Histories, their limits, whose they are, and which worker a turn goes to."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rkvisor.protocol.errors import QueueFull, RateLimited, RkvisorError, SessionLost, TooLarge
from rkvisor.supervisor.sessions.affinity import choose
from rkvisor.supervisor.sessions.history import MAX_WAITING, TURN_BYTES, Limits, Session, Settings, Turn
from rkvisor.supervisor.sessions.lost import REASONS, lost
from rkvisor.supervisor.sessions.store import MAX_GONE, Store

LIMITS = Limits(sessions=3, turns=6, bytes=10_000, tokens=40, idle_s=100.0)


def a_turn(tokens: int = 2, text: str = "x", finish_reason: str = "stop", wire: bytes = b"w" * 30) -> Turn:
    return Turn(
        wire=wire,
        role="user",
        prompt="hi",
        text=text,
        finish_reason=finish_reason,
        ids=tuple(range(tokens)),
        took_s=0.5,
    )


def a_store(**limits: Any) -> Store[str]:
    values = {name: getattr(LIMITS, name) for name in Limits.__slots__}
    return Store(Limits(**{**values, **limits}), "e1")


def opened(
    store: Store[str], principal: str = "ann", chance: str = "1", now_s: float = 0.0, **more: Any
) -> Session[str]:
    usual: dict[str, Any] = {"idle_timeout_s": None, "max_turns": None}
    return store.open(principal, "demo", Settings(), chance=chance, now_s=now_s, **{**usual, **more})


def reason(store: Store[str], identifier: str, principal: str = "ann", now_s: float = 0.0) -> Any:
    with pytest.raises(SessionLost) as caught:
        store.find(identifier, principal, now_s)
    return caught.value.data["reason"]


# One at a time, in order.


def test_a_session_runs_one_request_at_a_time_and_the_others_in_order() -> None:
    session = opened(a_store())
    assert session.enter("a")
    assert not session.enter("b")
    assert not session.enter("c")
    assert session.state == "running"
    assert session.leave("a", 1.0) == "b"
    assert session.leave("b", 2.0) == "c"
    assert session.leave("c", 3.0) is None
    assert session.state == "idle"
    assert session.enter("d")


def test_one_that_waited_and_left_is_not_named_any_more() -> None:
    session = opened(a_store())
    session.enter("a")
    session.enter("b")
    session.enter("c")
    assert session.leave("b", 1.0) is None
    assert session.running == "a"
    assert session.leave("a", 1.0) == "c"


def test_one_that_never_entered_leaves_nothing_behind() -> None:
    session = opened(a_store())
    session.enter("a")
    assert session.leave("z", 1.0) is None
    assert session.running == "a"


def test_only_so_many_wait() -> None:
    session = opened(a_store(turns=1000))
    for number in range(MAX_WAITING + 1):
        session.check()
        session.enter(str(number))
    with pytest.raises(QueueFull) as caught:
        session.check()
    assert str(MAX_WAITING) in str(caught.value)


# Limits.


@pytest.mark.parametrize(
    ("turn", "count", "key"),
    [
        (a_turn(), 6, "session_turns"),
        (a_turn(tokens=20), 2, "session_tokens"),
        (a_turn(tokens=0, wire=b"w" * (5000 - TURN_BYTES)), 2, "session_bytes"),
    ],
)
def test_a_limit_names_itself_and_the_way_out(turn: Turn, count: int, key: str) -> None:
    session = opened(a_store())
    for _ in range(count):
        session.check()
        session.record(turn)
    with pytest.raises(TooLarge) as caught:
        session.check()
    assert f"[limits] {key}" in str(caught.value)
    assert "open another session" in str(caught.value)


def test_turns_under_way_count() -> None:
    session = opened(a_store(), max_turns=3)
    session.record(a_turn())
    session.enter("a")
    session.check()
    session.enter("b")
    with pytest.raises(TooLarge):
        session.check()


def test_a_client_may_ask_for_less_than_the_limits_and_not_for_more() -> None:
    store = a_store()
    small = opened(store, idle_timeout_s=5.0, max_turns=2)
    large = opened(store, chance="2", idle_timeout_s=5000.0, max_turns=2000)
    assert (small.idle_timeout_s, small.max_turns) == (5.0, 2)
    assert (large.idle_timeout_s, large.max_turns) == (100.0, 6)


def test_a_principal_has_so_many_sessions_and_another_one_its_own() -> None:
    store = a_store()
    for number in range(3):
        opened(store, chance=str(number))
    with pytest.raises(RateLimited) as caught:
        opened(store, chance="x")
    assert "[limits] sessions" in str(caught.value)
    opened(store, "bob", "y")
    store.close(store.of("ann", 0.0)[0])
    opened(store, chance="z")


def test_expired_sessions_do_not_count() -> None:
    store = a_store(sessions=1)
    opened(store, idle_timeout_s=1.0)
    opened(store, chance="2", now_s=1.0)


# Whose, and why not.


def test_a_session_is_found_by_who_opened_it_and_unknown_to_others() -> None:
    store = a_store()
    session = opened(store)
    assert store.find(session.id, "ann", 0.0) is session
    assert reason(store, session.id, "bob") == reason(store, "s-e1-none", "bob") == "unknown"
    assert store.of("bob", 0.0) == []


def test_what_is_no_more_says_why_to_its_owner_only() -> None:
    store = a_store()
    first, second = opened(store), opened(store, chance="2", idle_timeout_s=1.0)
    store.close(first)
    store.close(first, "expired")
    assert reason(store, first.id) == "closed"
    assert first.is_closed
    assert reason(store, second.id, now_s=1.0) == "expired"
    assert reason(store, first.id, "bob", 1.0) == "unknown"


def test_an_id_of_another_epoch_tells_of_the_restart() -> None:
    store = a_store()
    assert reason(store, "s-e0-1") == "restarted"
    assert reason(store, "s-e1-1") == "unknown"
    assert reason(store, "s-x") == "unknown"
    assert reason(store, "nonsense") == "unknown"


def test_the_ends_that_are_remembered_are_bounded() -> None:
    store = a_store(sessions=10_000)
    first = opened(store, chance="first")
    store.close(first)
    for number in range(MAX_GONE):
        assert reason(store, first.id) == "closed"
        store.close(opened(store, chance=str(number)))
    assert reason(store, first.id) == "unknown"


@pytest.mark.parametrize("name", REASONS)
def test_every_reason_says_why_and_what_to_do(name: str) -> None:
    error = lost("s-1", name, extra=1)
    assert str(error).startswith("cannot use session 's-1': ")
    assert "session.open" in str(error) or "open another" in str(error)
    assert error.data == {"reason": name, "session": "s-1", "extra": 1}
    assert len(str(lost("x" * 100_000, name))) < 1000


# Time.


def test_a_session_expires_when_it_was_unused_and_not_while_it_runs() -> None:
    store = a_store()
    session = opened(store, idle_timeout_s=10.0)
    assert store.next_expiry_s() == 10.0
    assert store.expire(9.9) == []
    session.enter("a")
    assert store.next_expiry_s() is None
    assert store.expire(50.0) == []
    session.leave("a", 50.0)
    assert store.next_expiry_s() == 60.0
    assert store.expire(59.9) == []
    assert store.expire(60.0) == [session]
    assert len(store) == 0


# What counts.


def test_an_answer_that_filled_the_context_is_the_last() -> None:
    session = opened(a_store())
    session.record(a_turn(finish_reason="context"))
    assert session.state == "lost"
    with pytest.raises(SessionLost) as caught:
        session.check()
    assert caught.value.data["reason"] == "context"


def test_a_replay_is_as_long_as_what_was_said() -> None:
    session = opened(a_store())
    session.record(a_turn(tokens=5, wire=b"w" * 30))
    session.record(a_turn(tokens=7, wire=b"w" * 60))
    assert session.replay_tokens == 5 + 7 + 30
    assert session.replay_s == 1.0
    assert session.tokens == 12
    assert session.size_bytes == sum(turn.size_bytes for turn in session.turns) > 2 * TURN_BYTES


class Talks(RuleBasedStateMachine):
    """Requests come, run and leave in any order; compared with a plain list of who came."""

    def __init__(self) -> None:
        super().__init__()
        self.store = a_store(turns=50, tokens=100_000, bytes=1_000_000)
        self.session = opened(self.store, idle_timeout_s=10.0)
        self.order: list[str] = []
        self.now_s, self.number, self.turns, self.used_s = 0.0, 0, 0, 0.0

    @property
    def is_there(self) -> bool:
        return not self.session.is_closed

    @rule()
    @precondition(lambda self: self.is_there)
    def come(self) -> None:
        self.number += 1
        name = str(self.number)
        expected: type[RkvisorError] | None = QueueFull if len(self.order) > MAX_WAITING else None
        if self.turns + len(self.order) >= 50:
            expected = TooLarge
        if expected is not None:
            with pytest.raises(expected):
                self.session.check()
            return
        self.session.check()
        assert self.session.enter(name) == (not self.order)
        self.order.append(name)

    @rule(data=st.data(), counts=st.booleans())
    @precondition(lambda self: self.order)
    def go(self, data: st.DataObject, counts: bool) -> None:
        name = data.draw(st.sampled_from(self.order))
        was_first = name == self.order[0]
        if was_first and counts:
            self.session.record(a_turn())
            self.turns += 1
        following = self.session.leave(name, self.now_s)
        self.order.remove(name)
        self.used_s = self.now_s
        assert following == (self.order[0] if was_first and self.order else None)

    @rule(step_s=st.floats(0.1, 6.0))
    def wait(self, step_s: float) -> None:
        self.now_s += step_s
        is_due = self.is_there and not self.order and self.now_s - self.used_s >= 10.0
        assert self.store.expire(self.now_s) == ([self.session] if is_due else [])

    @invariant()
    def it_knows_who_runs(self) -> None:
        assert self.session.running == (self.order[0] if self.order else None)
        assert list(self.session.waiting) == self.order[1:]
        assert len(self.session.turns) == self.turns
        assert self.session.tokens == 2 * self.turns


class TestTalks(Talks.TestCase):
    settings = settings(max_examples=80, stateful_step_count=60)


# Where.


class Worker:
    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return self.name


WORKERS = [Worker(f"demo:{number}") for number in range(5)]


@given(
    idle=st.lists(st.sampled_from(WORKERS), min_size=1, unique=True),
    failed=st.none() | st.sampled_from([worker.name for worker in WORKERS]),
    home=st.none() | st.sampled_from(WORKERS),
    held=st.sets(st.sampled_from(WORKERS)),
)
def test_the_choice_of_a_worker(idle: list[Worker], failed: str | None, home: Worker | None, held: set[Worker]) -> None:
    chosen = choose(dict.fromkeys(idle), failed, home, held.__contains__)
    assert chosen in idle, "nothing waits for a worker that is busy"
    if home in idle:
        assert chosen is home
        return
    sound = [worker for worker in idle if worker.name != failed]
    free = [worker for worker in sound if worker not in held]
    assert chosen is (free or sound or idle)[0]
