"""Processes that die of a call are charged to it, and of two it is given to nobody any more."""

from __future__ import annotations

import pytest

from rkvisor.supervisor.calls.configured import Call
from rkvisor.supervisor.calls.owed import POISON_DEATHS, Owed

BAD, GOOD = Call("rkllm.set_chat_template", b"{}", ()), Call("rkllm.set_function_tools", b"{}", ())


@pytest.fixture
def owed() -> Owed:
    return Owed()


def die_of(owed: Owed, process: int, *calls: Call, is_suspect: bool = True) -> Call | None:
    for call in calls:
        owed.sent(process, call)
    return owed.gone(process, is_suspect=is_suspect)


def test_a_call_that_one_process_after_another_dies_of_is_poison(owed: Owed) -> None:
    assert [die_of(owed, i, BAD, GOOD) for i in range(POISON_DEATHS)] == [None] * (POISON_DEATHS - 1) + [BAD]


def test_only_the_first_call_that_was_not_answered_is_charged(owed: Owed) -> None:
    for process in range(10):
        owed.sent(process, GOOD)
        owed.answered(process)
        found = die_of(owed, process, BAD)
        assert found is (BAD if process % POISON_DEATHS == POISON_DEATHS - 1 else None)


def test_an_answer_is_the_answer_to_the_call_that_was_sent_first(owed: Owed) -> None:
    owed.sent(1, GOOD)
    owed.sent(1, BAD)
    owed.sent(2, BAD)
    assert [owed.answered(1), owed.answered(2), owed.answered(1)] == [GOOD, BAD, BAD]
    assert owed.answered(1) is None
    assert owed.answered(3) is None


def test_one_that_some_process_took_begins_anew(owed: Owed) -> None:
    for process in range(0, 20, 2):
        assert die_of(owed, process, BAD) is None
        owed.sent(process + 1, BAD)
        owed.answered(process + 1)


def test_who_was_asked_to_end_or_ran_a_request_charges_nothing(owed: Owed) -> None:
    assert [die_of(owed, i, BAD, is_suspect=False) for i in range(9)] == [None] * 9


def test_a_process_without_calls_charges_nothing(owed: Owed) -> None:
    owed.answered(1)
    assert owed.gone(1, is_suspect=True) is None
    owed.sent(1, BAD)
    owed.answered(1)
    assert [owed.gone(1, is_suspect=True) for _ in range(3)] == [None] * 3
