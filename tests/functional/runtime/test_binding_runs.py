"""Runs that are aborted, paused or disturbed by exceptions, on each family's simulator."""

import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from harness.story import DEADLINE_S, FINISH, PROMPT, Story, in_thread
from rkvisor.cython_ext._rkllm import NotSupported, RkllmError, Runtime
from rkvisor.cython_ext.inputs import Infer, Input

pytest_plugins = ("harness.recorded",)

SIMULATED = ("F1", "F3", "F4", "F5")


@pytest.mark.api
def test_the_same_prompt_gives_the_same_tokens_and_valid_text(story: Story) -> None:
    assert story.run() == 0
    first = story.ids, story.text
    assert len(story.ids) == 12
    assert story.states[-1] == FINISH
    assert story.run() == 0
    assert (story.ids, story.text) == first
    assert story.text.decode()


@pytest.mark.api
def test_tokens_run_as_well_as_text(story: Story) -> None:
    story.run(Input(kind="tokens", tokens=[300, 301, 302]))
    assert len(story.ids) == 12


@pytest.mark.errors
def test_an_exception_in_the_callback_ends_the_run_and_is_raised_by_it(story: Story) -> None:
    def on_token(count: int) -> None:
        if count == 3:
            raise KeyError("third")

    story.on_token = on_token
    with pytest.raises(KeyError, match="third"):
        story.run()
    assert len(story.ids) == 3
    assert FINISH not in story.states  # nothing more is shown to a callback that failed
    story.on_token = lambda count: None
    assert story.run() == 0
    assert len(story.ids) == 12


@pytest.mark.errors
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_exceptions_that_are_no_errors_are_raised_too(
    stories: Callable[..., Story], error: type[BaseException]
) -> None:
    story = stories("F5").init()

    def on_token(count: int) -> None:
        raise error

    story.on_token = on_token
    with pytest.raises(error):
        story.run()
    assert len(story.ids) == 1


@pytest.mark.errors
@pytest.mark.parametrize("answer", ["stop", 2**40, 0.5])
def test_a_callback_that_returns_nonsense_fails_the_run(stories: Callable[..., Story], answer: Any) -> None:
    story = stories("F5").init()
    story.on_token = lambda count: answer
    with pytest.raises((TypeError, OverflowError)):
        story.run()
    assert len(story.ids) == 1


@pytest.mark.resilience
def test_another_thread_makes_progress_during_a_run_and_aborts_it(stories: Callable[..., Story]) -> None:
    for family in SIMULATED:
        story = stories(family).init(max_new_tokens=400, max_context_len=512)
        started = threading.Event()
        story.on_token = lambda count, started=started: started.set()  # type: ignore[misc]
        wait = in_thread(story.run)
        assert started.wait(DEADLINE_S)
        story.runtime.abort()
        assert wait() == 0
        assert len(story.ids) < 400
        story.runtime.abort()  # without a run: nothing
        story.on_token = lambda count: None
        assert story.run(infer=Infer()) == 0
        assert len(story.ids) == 400


@pytest.mark.resilience
def test_one_call_at_a_time(stories: Callable[..., Story]) -> None:
    story = stories("F5").init()
    refused: list[str] = []

    def on_token(count: int) -> None:
        calls = (
            story.runtime.destroy,
            lambda: story.runtime.run(PROMPT, Infer()),
            lambda: story.runtime.clear_kv_cache(True),
            lambda: story.runtime.load_lora("/x", "x", 1),
            lambda: story.runtime.force_tokens([1]),
            lambda: story.runtime.init({}, story.on_result),
        )
        for call in calls if count == 1 else ():
            with pytest.raises(RuntimeError) as caught:
                call()
            refused.append(str(caught.value))

    story.on_token = on_token
    assert story.run() == 0
    assert refused[0] == "cannot call rkllm_destroy: rkllm_run is in progress"
    assert len(refused) == 6


@pytest.mark.errors
def test_calls_without_a_model_are_refused(stories: Callable[..., Story]) -> None:
    story = stories("F5")
    for call in (lambda: story.run(), lambda: story.runtime.clear_kv_cache(True), story.runtime.is_running):
        with pytest.raises(RuntimeError, match="no model is loaded"):
            call()
    story.init()
    story.runtime.destroy()
    story.runtime.destroy()
    with pytest.raises(RuntimeError, match="cannot call rkllm_run: no model is loaded"):
        story.run(is_fresh=False)
    story.init()
    assert story.run() == 0


@pytest.mark.api
@pytest.mark.parametrize("family", ["F4", "F5"])
def test_a_paused_run_is_resumed_by_the_next(stories: Callable[..., Story], family: str) -> None:
    story = stories(family).init()
    story.on_token = lambda count: 1 if count == 5 else None
    assert story.run() == 0
    assert len(story.ids) == 5
    assert FINISH not in story.states
    story.on_token = lambda count: None
    assert story.run(is_fresh=False) == 0
    assert len(story.ids) == 12 - 5
    assert story.states[-1] == FINISH


@pytest.mark.api
def test_a_paused_run_can_be_aborted(stories: Callable[..., Story]) -> None:
    story = stories("F5").init()
    story.on_token = lambda count: 1 if count == 5 else None
    story.run()
    story.runtime.abort()
    story.on_token = lambda count: None
    story.run(is_fresh=False)
    assert len(story.ids) == 12


@pytest.mark.resilience
def test_forced_tokens_continue_a_run_exactly(story: Story) -> None:
    story.run()
    ids, text = story.ids, story.text
    assert story.runtime.can_force_tokens
    for cut in (1, 5, 11):
        story.runtime.force_tokens(ids[:cut])
        story.run()
        assert story.ids == ids[cut:]
        assert text.endswith(story.text)
    story.runtime.force_tokens(ids[:3])
    story.runtime.force_tokens([])
    story.run()
    assert story.ids == ids


@pytest.mark.resilience
def test_force_tokens_can_be_hidden(stories: Callable[..., Story]) -> None:
    story = stories("F5", hide_force_tokens=True).init()
    assert not story.runtime.can_force_tokens
    with pytest.raises(NotSupported, match="rkvisor_force_tokens"):
        story.runtime.force_tokens([1])


@pytest.mark.api
def test_tensors_have_the_size_of_their_shape(story: Story) -> None:
    tensors: list[tuple[str, Any]] = []

    def on_result(state: int, item: int, token_id: int, text: bytes | None, extra: dict[str, Any] | None) -> int:
        tensors.extend((name, value) for name, value in (extra or {}).items() if name != "perf")
        return 2

    runtime = Runtime(story.runtime.path, story.runtime.family)
    runtime.init({"model_path": "builtin:tiny"}, on_result)
    modes = ("hidden",) if runtime.family == "F1" else ("hidden", "logits")
    for mode in modes:
        runtime.run(PROMPT, Infer(mode=mode))
    runtime.destroy()
    assert [name for name, _ in tensors] == list(modes)
    for _, (data, rows, columns) in tensors:
        assert rows > 0
        assert len(data) == rows * columns * 4


@pytest.mark.errors
def test_a_model_that_does_not_exist_is_an_error(stories: Callable[..., Story]) -> None:
    for family in SIMULATED:
        with pytest.raises(RkllmError) as caught:
            stories(family).init(model_path="/does/not/exist.toml")
        assert caught.value.function == "rkllm_init"
        assert caught.value.status != 0


@pytest.mark.resilience
def test_a_run_holds_no_reference_to_what_it_delivered(stories: Callable[..., Story]) -> None:
    story = stories("F5").init()
    story.run()
    marker = PROMPT
    before = sys.getrefcount(marker)
    for _ in range(20):
        story.run()
    assert sys.getrefcount(marker) == before
