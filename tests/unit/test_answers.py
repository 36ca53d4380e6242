"""Kept answers, against a plain dictionary with times."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rkvisor.supervisor.requests.answers import ENTRY_BYTES, FRAGMENT_BYTES, Answer, Answers

TTL_S = 10.0
MAX_BYTES = 4 * ENTRY_BYTES
KEYS = [("alice", "k"), ("bob", "k"), ("alice", "l"), ("alice", "m"), ("bob", "n"), ("bob", "o")]


def size_of(fragments: list[bytes], body: bytes) -> int:
    return ENTRY_BYTES + len(body) + sum(len(one) + FRAGMENT_BYTES for one in fragments)


@dataclass
class Kept:
    digest: bytes
    fragments: list[bytes]
    body: bytes
    is_error: bool
    until_s: float


class Keeping(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.answers: Answers[object] = Answers(TTL_S, MAX_BYTES)
        self.running: dict[tuple[str, str], tuple[bytes, object]] = {}
        self.kept: dict[tuple[str, str], Kept] = {}
        self.now_s = 0.0

    @rule(seconds=st.sampled_from([0.0, 0.5, 3.0, 9.5, 10.0]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @rule(key=st.sampled_from(KEYS), digest=st.binary(min_size=1, max_size=2))
    def ask(self, key: tuple[str, str], digest: bytes) -> None:
        self.kept = {k: one for k, one in self.kept.items() if one.until_s > self.now_s}
        found = self.answers.lookup(key, self.now_s)
        if key in self.running:
            assert found == self.running[key]
        elif key in self.kept:
            one = self.kept[key]
            assert found is not None
            answer = found[1]
            assert isinstance(answer, Answer)
            assert (found[0], list(answer.fragments), answer.body, answer.is_error) == (
                one.digest,
                one.fragments,
                one.body,
                one.is_error,
            )
        else:
            assert found is None
            self.running[key] = (digest, object())
            self.answers.begin(key, *self.running[key])

    @rule(
        key=st.sampled_from(KEYS),
        fragments=st.lists(st.binary(max_size=300), max_size=4),
        body=st.binary(max_size=600),
        is_error=st.booleans(),
    )
    def finish(self, key: tuple[str, str], fragments: list[bytes], body: bytes, is_error: bool) -> None:
        _, job = self.running.get(key, (b"", object()))
        self.answers.finish(key, job, fragments, body, is_error=is_error, now_s=self.now_s)
        if key not in self.running:
            return
        digest, _ = self.running.pop(key)
        self.kept[key] = Kept(digest, list(fragments), body, is_error, self.now_s + TTL_S)
        self.kept = {k: one for k, one in self.kept.items() if one.until_s > self.now_s}
        while sum(size_of(one.fragments, one.body) for one in self.kept.values()) > MAX_BYTES:
            del self.kept[next(iter(self.kept))]

    @rule(key=st.sampled_from(KEYS))
    def forget(self, key: tuple[str, str]) -> None:
        _, job = self.running.pop(key, (b"", object()))
        self.answers.forget(key, job)

    @rule(key=st.sampled_from(KEYS), is_finished=st.booleans())
    def hear_of_a_job_that_lost_its_key(self, key: tuple[str, str], is_finished: bool) -> None:
        """An abandoned job may end long after its key was used again."""
        if is_finished:
            self.answers.finish(key, object(), [], b"{}", is_error=False, now_s=self.now_s)
        else:
            self.answers.forget(key, object())

    @invariant()
    def memory_is_bounded_and_counted(self) -> None:
        assert self.answers.size_bytes <= MAX_BYTES
        fresh = [one for one in self.kept.values() if one.until_s > self.now_s]
        assert self.answers.size_bytes >= sum(size_of(one.fragments, one.body) for one in fresh)
        assert len(self.answers) >= len(self.running) + len(fresh)

    @invariant()
    def an_empty_store_counts_nothing(self) -> None:
        if len(self.answers) == len(self.running):
            assert self.answers.size_bytes == 0


class TestKeeping(Keeping.TestCase):
    settings = settings(max_examples=150, stateful_step_count=50)


def test_an_answer_that_exceeds_the_bound_by_itself_is_not_kept() -> None:
    answers: Answers[object] = Answers(TTL_S, 100)
    answers.begin(("a", "k"), b"d", "job")
    answers.finish(("a", "k"), "job", [b"x" * 200], b"", is_error=False, now_s=0.0)
    assert answers.lookup(("a", "k"), 0.0) is None
    assert (len(answers), answers.size_bytes) == (0, 0)


def test_a_key_belongs_to_its_principal() -> None:
    answers: Answers[object] = Answers(TTL_S, 10**6)
    answers.begin(("alice", "k"), b"d", "hers")
    assert answers.lookup(("bob", "k"), 0.0) is None


def test_the_fragments_of_an_answer_do_not_change_with_the_list_they_came_from() -> None:
    answers: Answers[object] = Answers(TTL_S, 10**6)
    answers.begin(("a", "k"), b"d", "job")
    fragments = [b"one"]
    answers.finish(("a", "k"), "job", fragments, b"{}", is_error=False, now_s=0.0)
    fragments.append(b"two")
    found = answers.lookup(("a", "k"), 1.0)
    assert found is not None
    assert isinstance(found[1], Answer)
    assert found[1].fragments == (b"one",)


def test_an_answer_ends_when_its_time_is_up_and_not_before() -> None:
    answers: Answers[object] = Answers(TTL_S, 10**6)
    answers.begin(("a", "k"), b"d", "job")
    answers.finish(("a", "k"), "job", [], b"{}", is_error=False, now_s=5.0)
    assert answers.lookup(("a", "k"), 14.999) is not None
    assert answers.lookup(("a", "k"), 15.0) is None
    assert answers.size_bytes == 0
