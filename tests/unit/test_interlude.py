"""The pause of a run in the worker: taken behind whole characters, ended by its own resume only."""

from __future__ import annotations

import queue
from typing import Any

import pytest

from rkvisor.worker.interlude import PAUSE, Interlude

NORMAL, WAITING, FINISH = 0, 1, 2


@pytest.fixture
def todo() -> queue.SimpleQueue[tuple[Any, ...]]:
    return queue.SimpleQueue()


@pytest.fixture
def interlude(todo: queue.SimpleQueue[tuple[Any, ...]]) -> Interlude:
    one = Interlude(todo)
    one.begin()
    return one


def test_only_the_job_that_is_meant_is_paused_and_only_behind_a_whole_character(interlude: Interlude) -> None:
    interlude.ask(7, 1)
    assert interlude.verdict(6, NORMAL) == 0
    assert interlude.verdict(7, WAITING) == 0
    assert interlude.number == 0
    assert interlude.verdict(7, NORMAL) == PAUSE
    assert interlude.number == 1


def test_a_run_that_ended_at_the_token_that_should_have_paused_it_is_not_paused(interlude: Interlude) -> None:
    interlude.ask(7, 1)
    interlude.verdict(7, NORMAL)
    interlude.verdict(7, FINISH)
    assert interlude.number == 0


def pause(interlude: Interlude, number: int) -> None:
    interlude.ask(7, number)
    assert interlude.verdict(7, NORMAL) == PAUSE


def test_a_resume_of_an_earlier_pause_or_of_another_job_does_not_end_this_one(
    interlude: Interlude, todo: queue.SimpleQueue[tuple[Any, ...]]
) -> None:
    pause(interlude, 2)
    for stale in (("resume", 7, 1, ""), ("resume", 6, 2, ""), ("aborted", 6)):
        todo.put(stale)
    todo.put(("resume", 7, 2, "more"))
    assert interlude.wait(7, lambda *_: None) == "more"
    assert todo.empty()
    interlude.begin()
    assert interlude.verdict(7, NORMAL) == 0, "it goes on, and is not paused again"


def test_an_abort_ends_it_without_a_text(interlude: Interlude, todo: queue.SimpleQueue[tuple[Any, ...]]) -> None:
    pause(interlude, 1)
    todo.put(("aborted", 7))
    assert interlude.wait(7, lambda *_: None) is None


def test_calls_about_the_cache_are_done_meanwhile_and_everything_else_afterwards_in_order(
    interlude: Interlude, todo: queue.SimpleQueue[tuple[Any, ...]]
) -> None:
    pause(interlude, 1)
    done: list[Any] = []
    later = [("call", 1, "rkllm.load_lora", b"", []), ("call", 4, "rkllm.set_chat_template", b"", [])]
    todo.put(later[0])
    todo.put(("call", 2, "rkllm.clear_kv_cache", b"", []))
    todo.put(("call", 3, "rkllm.get_kv_cache_size", b"", []))
    todo.put(later[1])
    todo.put(("resume", 7, 1, ""))
    assert interlude.wait(7, lambda *details: done.append(details[0])) == ""
    assert done == [2, 3]
    todo.put(("stop",))
    assert [interlude.next() for _ in range(3)] == [*later, ("stop",)]
