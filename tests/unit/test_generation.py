"""One request in the worker: what is sent for each callback, what the result says, when the runtime is told to end."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from rkvisor.protocol.errors import ResumeDiverged, RkllmFailure, RkvisorError
from rkvisor.protocol.link import Run
from rkvisor.protocol.run import RunParams
from rkvisor.worker.generation import Generation
from rkvisor.worker.prompts import Length
from rkvisor.worker.stream import Group

NORMAL, WAITING, FINISH, ERROR = 0, 1, 2, 3
PERF = (1.5, 3, 2.5, 4, 10.0)


class Runtime:
    """Calls a generation back as a runtime does: token ids are places, the text of each is given."""

    def __init__(
        self,
        limit: int = 100,
        max_context: int = 1000,
        run: Run | None = None,
        length: Length | None = None,
        **params: Any,
    ):
        self.sent: list[tuple[int, Group]] = []
        self.aborts = 0
        params = {"model": "demo", "prompt": "hi"} | params
        run = Run(worker="demo:0") if run is None else run
        self.generation = Generation(
            RunParams(**params),
            run,
            limit,
            max_context,
            lambda seq, group: self.sent.append((seq, group)),
            self.abort,
            length=length,
        )

    def abort(self) -> None:
        self.aborts += 1

    def say(self, *texts: str | bytes, first: int = 0, state: int = NORMAL) -> None:
        for place, text in enumerate(texts, first):
            raw = text.encode() if isinstance(text, str) else text
            self.generation.on_result(state, 0, place, raw, None)

    def finish(self, status: int = 0, perf: tuple[float, ...] = PERF) -> Any:
        """The result as a dict, or the error."""
        self.generation.on_result(FINISH, 0, -1, None, {"perf": perf})
        outcome = self.generation.finish(status, "demo:0")
        return outcome if isinstance(outcome, RkvisorError) else json.loads(outcome)

    @property
    def text(self) -> str:
        return "".join(group.text for _, group in self.sent)


def test_a_run_sends_each_token_and_then_the_whole() -> None:
    runtime = Runtime()
    runtime.say("a", "b", "c")
    result = runtime.finish()
    assert [seq for seq, _ in runtime.sent] == [0, 1, 2]
    assert (result["text"], result["token_ids"], result["finish_reason"]) == ("abc", [0, 1, 2], "stop")
    assert (result["worker"], result["resumed"], result["resume"], result["degraded"]) == ("demo:0", 0, None, False)
    assert runtime.aborts == 0


def test_the_result_has_the_vendors_five_figures_by_name() -> None:
    runtime = Runtime()
    runtime.say("a")
    assert runtime.finish()["perf"] == {
        "prefill_time_ms": 1.5,
        "prefill_tokens": 3,
        "generate_time_ms": 2.5,
        "generate_tokens": 4,
        "memory_usage_mb": 10.0,
    }


def test_a_runtime_that_never_calls_finish_has_no_figures_but_a_result() -> None:
    runtime = Runtime()
    runtime.say("a")
    outcome = runtime.generation.finish(0, "demo:0")
    assert isinstance(outcome, bytes)
    assert (json.loads(outcome)["perf"], json.loads(outcome)["text"]) == (None, "a")


def test_waiting_tokens_travel_with_the_one_that_completes_their_character() -> None:
    runtime = Runtime()
    runtime.say(b"\xe2\x82", state=WAITING)
    assert runtime.sent == []
    runtime.say(b"\xac", first=1)
    assert runtime.sent == [(0, Group((0, 1), "€"))]


@pytest.mark.parametrize("text", [None, b""])
def test_a_waiting_token_may_come_without_any_text(text: bytes | None) -> None:
    runtime = Runtime()
    runtime.generation.on_result(WAITING, 0, 0, text, None)
    runtime.say("€", first=1)
    assert runtime.sent == [(0, Group((0, 1), "€"))]


def test_the_limit_is_the_reason_when_it_was_reached() -> None:
    runtime = Runtime(limit=2)
    runtime.say("a", "b")
    assert runtime.finish()["finish_reason"] == "length"
    assert runtime.aborts == 0, "a runtime that ends there by itself is left alone"


def test_a_runtime_that_goes_on_past_the_limit_is_ended() -> None:
    """Families before F5 know no limit of one run; theirs is the configured one."""
    runtime = Runtime(limit=2)
    runtime.say("a", "b", "c", "d")
    assert runtime.aborts >= 1
    result = runtime.finish(status=1)
    assert (result["text"], result["token_ids"], result["finish_reason"]) == ("ab", [0, 1], "length")


def test_a_full_context_is_the_reason_when_prompt_and_tokens_fill_it() -> None:
    runtime = Runtime(max_context=5)
    runtime.say("a", "b")
    assert runtime.finish()["finish_reason"] == "context"


def test_tokens_that_a_resumed_run_was_given_with_its_prompt_count_once() -> None:
    """They are in prefill_tokens, and in the answer."""
    run = Run(worker="demo:0", ids=[0, 1], text="ab", resume="tokens")
    for max_context, reason in ((7, "stop"), (6, "context")):
        runtime = Runtime(max_context=max_context, run=run)
        runtime.say("c", first=2)
        assert runtime.finish(perf=(0.0, 5, 0.0, 1, 0.0))["finish_reason"] == reason


def test_the_result_tells_the_length_of_the_prompt_and_whether_it_is_known() -> None:
    for length in (Length(7), Length(3, is_estimate=True)):
        runtime = Runtime(length=length)
        runtime.say("a")
        result = runtime.finish()
        assert (result["prompt_tokens"], result["prompt_tokens_estimated"]) == (length.tokens, length.is_estimate)


@pytest.mark.parametrize("status", [0, 1, -1])
def test_a_stop_string_ends_the_runtime_and_the_text(status: int) -> None:
    runtime = Runtime(stop=["END"])
    runtime.say("a", "E", "ND", "more")
    assert runtime.aborts >= 1
    result = runtime.finish(status=status)
    assert (result["text"], result["token_ids"], result["finish_reason"]) == ("a", [0, 1, 2], "stop")
    assert runtime.text == result["text"]


def test_the_runtime_is_ended_at_the_token_that_completes_a_stop_string() -> None:
    runtime = Runtime(stop=["END"])
    runtime.say("a", "E")
    assert runtime.aborts == 0
    runtime.say("ND", first=2)
    assert runtime.aborts == 1


def test_what_completes_a_stop_string_is_sent_only_when_the_run_is_over() -> None:
    runtime = Runtime(stop=["b"])
    runtime.say("a", "xb")
    assert runtime.sent == [(0, Group((0,), "a"))]
    assert runtime.finish()["text"] == runtime.text == "ax"


def test_an_abort_that_comes_after_the_stop_string_takes_nothing_from_the_stream() -> None:
    runtime = Runtime(stop=["b"])
    runtime.say("a", "xb")
    runtime.generation.is_aborted = True
    result = runtime.finish()
    assert (result["finish_reason"], result["text"], runtime.text) == ("stop", "ax", "ax")


def test_an_aborted_run_succeeds_with_what_was_said() -> None:
    runtime = Runtime()
    runtime.say("a", "b")
    runtime.generation.is_aborted = True
    runtime.say("c", first=2)
    assert runtime.aborts == 1, "the abort may have come before the run began"
    result = runtime.finish(status=1)
    assert (result["finish_reason"], result["text"], runtime.text) == ("abort", "ab", "ab")


@pytest.mark.parametrize(("state", "status"), [(ERROR, 0), (NORMAL, -1), (NORMAL, 1)])
def test_a_runtime_that_fails_is_an_error_of_rkllm(state: int, status: int) -> None:
    runtime = Runtime()
    runtime.say("a", state=state)
    error = runtime.finish(status=status)
    assert isinstance(error, RkllmFailure)
    assert error.to_object(0.0)["data"]["source"] == "RKLLM"
    assert error.component == "demo:0"


def resumed(mode: str, **more: Any) -> Run:
    return Run(
        worker="demo:1", ids=[0, 1], text="ab", seq=2, resume=mode, resumed=1, quality="exact", degraded=True, **more
    )


@pytest.mark.parametrize("mode", ["forced", "muted"])
def test_a_resumed_run_goes_on_behind_what_was_streamed(mode: str) -> None:
    runtime = Runtime(run=resumed(mode))
    runtime.say(*("ab" if mode == "muted" else ""), "c", "d", first=0 if mode == "muted" else 2)
    result = runtime.finish()
    assert runtime.sent == [(2, Group((2,), "c")), (3, Group((3,), "d"))]
    assert (result["text"], result["token_ids"]) == ("abcd", [0, 1, 2, 3])
    assert (result["worker"], result["resumed"], result["resume"], result["degraded"]) == ("demo:1", 1, "exact", True)


def test_a_run_that_was_cut_at_its_limit_has_nothing_more_to_say() -> None:
    runtime = Runtime(limit=2, run=resumed("forced"))
    result = runtime.finish()
    assert (runtime.sent, result["text"], result["finish_reason"]) == ([], "ab", "length")


def test_a_rerun_that_differs_is_an_error_with_the_text_so_far() -> None:
    runtime = Runtime(run=resumed("muted"))
    runtime.say("a")
    runtime.generation.on_result(NORMAL, 0, 9, b"z", None)
    assert runtime.aborts == 1
    runtime.say("c", first=2)
    error = runtime.finish()
    assert isinstance(error, ResumeDiverged)
    assert (error.data["text"], error.data["token_ids"], runtime.sent) == ("ab", [0, 1], [])


# Several prompts in one run, and modes that generate nothing.


def test_each_of_several_prompts_has_its_own_text_and_nothing_is_streamed() -> None:
    runtime = Runtime(prompt=None, prompts=["x", "y"], stop=["."])
    on_result = runtime.generation.on_result
    on_result(NORMAL, 0, 5, b"a", None)
    on_result(WAITING, 1, 6, b"\xe2\x82", None)
    on_result(NORMAL, 1, 7, b"\xac", None)
    on_result(NORMAL, 0, 8, b"b.", None)
    assert runtime.aborts == 0, "the other prompt goes on"
    on_result(NORMAL, 0, 9, b"late", None)
    on_result(NORMAL, 1, -1, b"over", None)
    result = runtime.finish()
    assert runtime.sent == []
    assert [(one["item"], one["text"], one["token_ids"], one["finish_reason"]) for one in result["items"]] == [
        (0, "ab", [5, 8], "stop"),
        (1, "€", [6, 7], "stop"),
    ]
    assert (result["text"], result["token_ids"], result["finish_reason"]) == ("ab", [5, 8], "stop")


def test_a_run_of_several_prompts_is_ended_when_the_last_of_them_is_over() -> None:
    runtime = Runtime(limit=2, prompt=None, prompts=["x", "y"])
    for place in range(2):
        runtime.generation.on_result(NORMAL, 0, place, b"a", None)
    assert runtime.aborts == 0
    for place in range(2):
        runtime.generation.on_result(NORMAL, 1, place, b"b", None)
    assert runtime.aborts == 1
    result = runtime.finish(status=1)
    assert [(one["text"], one["finish_reason"]) for one in result["items"]] == [("aa", "length"), ("bb", "length")]
    assert result["finish_reason"] == "length"


def test_an_abort_ends_several_prompts_with_what_each_has() -> None:
    runtime = Runtime(prompt=None, prompts=["x", "y"])
    runtime.generation.on_result(NORMAL, 0, 1, b"a", None)
    runtime.generation.is_aborted = True
    runtime.generation.on_result(NORMAL, 1, 2, b"b", None)
    assert runtime.aborts == 1
    result = runtime.finish(status=1)
    assert [(one["text"], one["finish_reason"]) for one in result["items"]] == [("a", "abort"), ("b", "abort")]


ROWS = struct.pack("<6f", *range(6))


@pytest.mark.parametrize(
    ("mode", "extra", "member"), [("hidden", "hidden", "hidden_states"), ("logits", "logits", "logits")]
)
def test_a_tensor_travels_as_an_attachment_or_as_rows(mode: str, extra: str, member: str) -> None:
    attached = Runtime(mode=mode)
    attached.generation.on_result(NORMAL, 0, 0, None, {extra: (ROWS, 2, 3)})
    assert attached.finish()[member] == {"shape": [2, 3], "dtype": "float32", "attachment": 0}
    assert attached.generation.attachments == [ROWS]
    listed = Runtime(mode=mode, tensor_format="list")
    listed.generation.on_result(NORMAL, 0, 0, None, {extra: (ROWS, 2, 3)})
    assert listed.finish()[member] == {"shape": [2, 3], "dtype": "float32", "rows": [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]}
    assert listed.generation.attachments == []


def test_a_runtime_that_gives_no_tensor_has_failed_unless_it_was_told_to_end() -> None:
    error = Runtime(mode="hidden").finish()
    assert isinstance(error, RkllmFailure)
    assert "hidden" in error.message
    aborted = Runtime(mode="hidden")
    aborted.generation.is_aborted = True
    result = aborted.finish(status=1)
    assert (result["finish_reason"], "hidden_states" in result) == ("abort", False)
