"""When calls end, from which thread, and how long buffers live, on a library that can be made to wait."""

import gc
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.story import DEADLINE_S, FINISH, NORMAL, PROMPT, WAITING, Story, in_thread
from rkvisor.cython_ext.inputs import Infer, Input

pytest_plugins = ("harness.recorded",)


@pytest.mark.resilience
def test_a_run_lets_other_threads_run(recorder: Path, stories: Callable[..., Story]) -> None:
    """The recorder spins in C until it is aborted: this thread can only abort it because the GIL is free."""
    story = stories("F5", str(recorder)).init(model_path="/until-aborted")
    wait = in_thread(story.run)
    while not story.states:
        story.runtime.abort()
        threading.Event().wait(0.001)
    assert wait() == 9  # the library's status of an aborted run is no error
    assert story.states == [FINISH]


@pytest.mark.resilience
def test_an_abort_before_the_library_listens_takes_effect_at_the_first_token(
    recorder: Path, stories: Callable[..., Story]
) -> None:
    story = stories("F5", str(recorder)).init(model_path="/deaf")
    wait = in_thread(story.run)
    while not story.states:
        story.runtime.abort()
        threading.Event().wait(0.001)
    assert wait() == 9
    assert story.states == [WAITING, FINISH]


@pytest.mark.resilience
def test_an_abort_inside_the_callback_ends_the_run(recorder: Path, stories: Callable[..., Story]) -> None:
    story = stories("F5", str(recorder)).init()
    story.on_token = lambda count: story.runtime.abort()
    assert story.run() == 9
    assert story.states == [WAITING, FINISH]


@pytest.mark.errors
def test_an_exception_in_the_callback_aborts_the_run_once(
    recorder: Path, stories: Callable[..., Story], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECORDER", str(tmp_path / "log"))
    story = stories("F5", str(recorder)).init()

    def on_token(count: int) -> None:
        raise LookupError

    story.on_token = on_token
    with pytest.raises(LookupError):
        story.run()
    assert (tmp_path / "log").read_text().splitlines().count("abort") == 1


@pytest.mark.errors
def test_an_exception_at_the_end_aborts_nothing(
    recorder: Path, stories: Callable[..., Story], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An rkllm_abort that comes after the last token might meet the next run."""
    monkeypatch.setenv("RECORDER", str(tmp_path / "log"))

    def on_result(state: int, *rest: object) -> None:
        if state == FINISH:
            raise LookupError

    story = stories("F5", str(recorder))
    story.runtime.init({}, on_result)
    with pytest.raises(LookupError):
        story.run()
    assert "abort" not in (tmp_path / "log").read_text().splitlines()


@pytest.mark.api
def test_an_asynchronous_run_ends_by_itself_and_keeps_its_inputs(recorder: Path, stories: Callable[..., Story]) -> None:
    story = stories("F5", str(recorder)).init()
    ended = threading.Event()
    real = story.on_result

    def on_result(state: int, *rest: Any) -> int | None:
        if state == NORMAL:  # the second token: still running
            with pytest.raises(RuntimeError, match="rkllm_run_async is in progress"):
                story.runtime.clear_kv_cache(False)
        answer = real(state, *rest)
        if state == FINISH:
            ended.set()
        return answer

    story.runtime.destroy()
    story.runtime.init({"model_path": "/model"}, on_result)
    story.runtime.run_async(Input(kind="prompt", prompt="x" * 100), Infer())
    with pytest.raises(RuntimeError, match="rkllm_run_async is in progress"):
        story.runtime.destroy()
    assert ended.wait(DEADLINE_S)
    assert story.text == b"ab"
    assert story.runtime.take_error() is None


@pytest.mark.errors
def test_an_exception_in_an_asynchronous_run_waits_to_be_taken(recorder: Path, stories: Callable[..., Story]) -> None:
    ended = threading.Event()

    def on_result(state: int, *rest: Any) -> None:
        ended.set()
        raise LookupError(state)

    story = stories("F5", str(recorder))
    story.runtime.init({"model_path": "/model"}, on_result)
    story.runtime.run_async(PROMPT, Infer())
    assert ended.wait(DEADLINE_S)
    while True:
        try:
            story.runtime.clear_kv_cache(False)  # refused until the run is over
            break
        except RuntimeError:
            threading.Event().wait(0.001)
    error = story.runtime.take_error()
    assert isinstance(error, LookupError)
    assert error.args == (WAITING,)
    assert story.runtime.take_error() is None


@pytest.mark.resilience
def test_the_buffers_of_a_run_are_let_go_by_the_next_and_those_of_all_by_destroy(
    recorder: Path, stories: Callable[..., Story]
) -> None:
    class Rows(bytearray):
        pass

    story = stories("F5", str(recorder)).init()
    rows = Rows(48)
    watch = weakref.ref(rows)
    story.run(Input(kind="embed", embed=rows, n_tokens=3))
    del rows
    gc.collect()
    assert watch() is not None  # the library may still look at it
    story.run()
    gc.collect()
    assert watch() is None
    rows = Rows(48)
    watch = weakref.ref(rows)
    story.runtime.set_cross_attn_params(rows, rows, rows, [0, 1, 2], 3)
    del rows
    gc.collect()
    assert watch() is not None
    story.runtime.destroy()
    gc.collect()
    assert watch() is None


@pytest.mark.resilience
def test_a_paused_runs_buffers_outlive_the_run_that_resumes_it(recorder: Path, stories: Callable[..., Story]) -> None:
    class Rows(bytearray):
        pass

    story = stories("F5", str(recorder)).init()
    rows = Rows(48)
    watch = weakref.ref(rows)
    story.on_token = lambda count: 1
    story.run(Input(kind="embed", embed=rows, n_tokens=3))
    del rows
    alive: list[bool] = []
    story.on_token = lambda count: alive.append(watch() is not None)
    story.run()
    gc.collect()
    assert alive == [True, True]
    story.run()
    gc.collect()
    assert watch() is None
