"""The CPU runtime under control: aborts, pauses, threads, history, several handles, destruction."""

from __future__ import annotations

import threading
import time

import pytest

from harness.llama import ANSWER, QUESTION, start
from harness.rkllm_f5 import FINISH, NORMAL, Runtime, Token

pytestmark = [pytest.mark.llama, pytest.mark.api]

STORY = "Tell me a story about a dragon."


def abort_soon(runtime: Runtime, is_ripe: threading.Event, started: list[float]) -> threading.Thread:
    def act() -> None:
        is_ripe.wait()
        time.sleep(started[0])
        assert runtime.is_running() == 1
        assert runtime.abort() == 0

    thread = threading.Thread(target=act)
    thread.start()
    return thread


def test_another_thread_aborts_a_generation_which_then_finishes(runtime: Runtime) -> None:
    ripe = threading.Event()

    def on_token(token: Token) -> None:
        if token.state == NORMAL and len(runtime.current.ids) == 5:
            ripe.set()

    runtime.on_token = on_token
    thread = abort_soon(runtime, ripe, [0.0])
    run = runtime.run(STORY, max_new_tokens=900)
    thread.join()
    assert run.status == 0
    assert run.states[-1] == FINISH
    assert 5 <= len(run.ids) < 900
    assert runtime.is_running() == 0
    runtime.on_token = None
    assert runtime.run(QUESTION).text == ANSWER


def test_another_thread_aborts_a_prefill(runtime: Runtime, capfd: pytest.CaptureFixture[str]) -> None:
    ripe = threading.Event()
    thread = abort_soon(runtime, ripe, [0.3])
    ripe.set()
    run = runtime.run("word " * 990)
    thread.join()
    assert (run.status, run.states) == (0, [FINISH])
    assert runtime.cache_size() < 990
    assert "rkllm:" not in capfd.readouterr().err, "an abort is no error"
    assert runtime.run(QUESTION).text == ANSWER


def test_an_asynchronous_run_ends_on_a_thread_of_its_own(runtime: Runtime) -> None:
    threads: set[int] = set()
    done = threading.Event()

    def on_token(token: Token) -> None:
        threads.add(threading.get_ident())
        if token.state == FINISH:
            done.set()

    runtime.on_token = on_token
    run = runtime.run(QUESTION, is_async=True)
    assert run.status == 0
    done.wait()
    assert run.text == ANSWER
    assert threads.isdisjoint({threading.get_ident()})
    # Whoever has heard FINISH may call again at once.
    runtime.on_token = None
    assert runtime.run(QUESTION).text == ANSWER


def test_a_second_run_is_refused_while_one_is_under_way(runtime: Runtime, capfd: pytest.CaptureFixture[str]) -> None:
    statuses: list[int] = []

    def on_token(token: Token) -> None:
        if len(runtime.current.ids) == 2 and token.state == NORMAL:
            statuses.extend([runtime.clear(), runtime.force([1])])

    runtime.on_token = on_token
    assert runtime.run(QUESTION).text == ANSWER
    assert statuses == [-1, -1]
    assert "E rkllm: a task is running" in capfd.readouterr().err


def test_the_runs_own_userdata_wins(runtime: Runtime) -> None:
    assert runtime.run(QUESTION, max_new_tokens=1, userdata=4711).userdata == 4711
    assert runtime.run(QUESTION, max_new_tokens=1).userdata is None


def pause_after(runtime: Runtime, count: int) -> None:
    runtime.on_token = lambda token: int(token.state == NORMAL and len(runtime.current.ids) == count)


@pytest.mark.parametrize("again", [STORY, ""])
def test_a_paused_run_is_resumed_by_the_next_one(runtime: Runtime, again: str) -> None:
    whole = runtime.run(STORY)
    pause_after(runtime, 6)
    first = runtime.run(STORY)
    assert first.states == [NORMAL] * 6
    runtime.on_token = None
    second = runtime.run(again)
    assert first.ids + second.ids == whole.ids
    assert second.perf["generate_tokens"] == len(whole.ids)


def test_a_paused_run_can_be_edited_and_goes_on_behind_new_content(runtime: Runtime) -> None:
    pause_after(runtime, 4)
    assert runtime.run(QUESTION).text == "The capital of France"
    held = runtime.cache_size()
    assert runtime.clear(span=(held - 1, held + 1)) == -1
    assert runtime.clear(span=(held - 1, held)) == 0
    assert runtime.cache_size() == held - 1
    runtime.on_token = None
    assert runtime.run(" Italy is").text.startswith(" Rome")
    assert runtime.clear(span=(0, 1)) == -1, "only while paused"


def test_a_pause_with_history_is_refused_and_the_run_goes_on(runtime: Runtime) -> None:
    pause_after(runtime, 2)
    assert runtime.run(QUESTION, keep_history=1).text == ANSWER


def test_history_is_kept_until_cleared_and_is_what_one_prompt_would_have_been(runtime: Runtime) -> None:
    assert runtime.run("My name is Zanzibar.", keep_history=1, max_new_tokens=10).states[-1] == FINISH
    first = runtime.cache_size()
    answer = runtime.run("What is my name?", keep_history=1)
    assert "Zanzibar" in answer.text
    assert runtime.cache_size() > first
    assert answer.perf["prefill_tokens"] < first
    assert runtime.clear() == 0
    assert runtime.cache_size() == 0
    assert "Zanzibar" not in runtime.run("What is my name?", keep_history=1).text


def test_a_run_without_history_neither_sees_nor_leaves_any(runtime: Runtime) -> None:
    alone = runtime.run("What is my name?").ids
    runtime.run("My name is Zanzibar.", keep_history=1, max_new_tokens=10)
    assert runtime.run("What is my name?").ids == alone
    runtime.run("My name is Zanzibar.")
    assert runtime.run("What is my name?", keep_history=1).ids == alone


def test_handles_do_not_share_anything(runtime: Runtime) -> None:
    with start() as other:
        other.run("My name is Zanzibar.", keep_history=1, max_new_tokens=4)
        assert runtime.cache_size() == 0
        assert runtime.run(QUESTION).text == ANSWER


def test_destroying_during_a_run_ends_it_first(runtime: Runtime) -> None:
    doomed = start(max_new_tokens=900)
    ripe = threading.Event()

    def on_token(token: Token) -> None:
        ripe.set()
        if token.state == NORMAL and len(doomed.current.ids) == 1:
            assert doomed.library.rkllm_destroy(doomed.handle) == -1, "not inside its own callback"

    doomed.on_token = on_token
    run = doomed.run(STORY, is_async=True)
    ripe.wait()
    assert doomed.destroy() == 0
    assert run.states[-1] == FINISH
    assert runtime.run(QUESTION).text == ANSWER
