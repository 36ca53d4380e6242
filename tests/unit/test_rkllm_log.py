"""What the runtime's log lines say of a failure: the vendor's messages (facts of the runtime, §3) to S0.22–S0.33."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkvisor.protocol.errors import RKLLM_CODES, InvalidParams, RkllmFailure
from rkvisor.protocol.rkllm_log import RULES, classify, explain, explained

#: Every message that the facts of the runtime name as worth classifying, as the runtime prints it.
MESSAGES = [
    ("E rkllm: the length of prompt is greater than max context: 600 > 512", "RKLLM_CONTEXT_ERROR"),
    ("W rkllm: the context is not enough!", "RKLLM_CONTEXT_ERROR"),
    ("E rkllm: max_context[20000] must be less than the model's max_context_limit[16384]", "RKLLM_INVALID_PARAM"),
    ("W rkllm: Mismatch between enabled CPUs mask and enabled CPUs num", "RKLLM_INVALID_PARAM"),
    ("E rkllm: The n_keep must be less than max_context", "RKLLM_INVALID_PARAM"),
    ("E rkllm: invalid magic characters", "RKLLM_MODEL_NOT_FOUND"),
    ("W rkllm: the rkllm-runtime version is lower than the rkllm-toolkit version", "RKLLM_MODEL_NOT_FOUND"),
    ("E rkllm: model version is too old, please use the latest toolkit", "RKLLM_MODEL_NOT_FOUND"),
    ("E rkllm: Platform error, must be either rk3588 or rk3576", "RKLLM_DEVICE_ERROR"),
    ("E rkllm: rknpu driver version is too low", "RKLLM_DEVICE_ERROR"),
    ("E rkllm: malloc npu memory fail", "RKLLM_MEMORY_ERROR"),
    ("E rkllm: failed to allocate handle, ret: -1", "RKLLM_MEMORY_ERROR"),
    ("E rkllm: failed to submit!, op id: 5", "RKLLM_DEVICE_ERROR"),
    ("E rkllm: lora adapter x is not loaded", "RKLLM_INVALID_PARAM"),
    # As the driver and the library below RKLLM print them, which do not say "rkllm".
    ("RKNPU fdab0000.npu: RKNPU: failed to submit job", "RKLLM_DEVICE_ERROR"),
    ("[  812.4] RKNPU: job: 00000000b1, task counter 0, irq status 0x0", "RKLLM_DEVICE_ERROR"),
    ("rknpu fdab0000.npu: switch iommu domain time out", "RKLLM_DEVICE_ERROR"),
    ("E RKNN: failed to submit!, op id: 5, op name: MatMul", "RKLLM_DEVICE_ERROR"),
    ("E RKNN: failed to allocate handle, ret: -1, errno: 12", "RKLLM_MEMORY_ERROR"),
]
#: The numbers and texts of the requirements.
NUMBERS = {
    "RKLLM_SUCCESS": (0, "Success"),
    "RKLLM_INVALID_PARAM": (-32602, "Invalid method parameter(s)"),
    "RKLLM_MODEL_NOT_FOUND": (-32603, "Model file not found"),
    "RKLLM_MEMORY_ERROR": (-32603, "Memory allocation failed"),
    "RKLLM_INFERENCE_ERROR": (-32603, "Inference execution failed"),
    "RKLLM_DEVICE_ERROR": (-32603, "NPU device error"),
    "RKLLM_TIMEOUT_ERROR": (-32603, "Operation timeout"),
    "RKLLM_CONTEXT_ERROR": (-32603, "Context length exceeded"),
    "RKLLM_TOKEN_ERROR": (-32602, "Invalid token input"),
    "RKLLM_CALLBACK_ERROR": (-32603, "Callback execution failed"),
}


def failure(code: str = "RKLLM_INFERENCE_ERROR") -> dict[str, Any]:
    return RkllmFailure(code, "rkllm_run returned -1", component="demo:0").to_object(1.0)


def test_the_catalogue_is_that_of_the_requirements() -> None:
    assert RKLLM_CODES == NUMBERS


@pytest.mark.parametrize(("line", "code"), MESSAGES)
def test_a_message_of_the_vendor_names_the_cause(line: str, code: str) -> None:
    assert classify([line]) == code
    error = failure()
    explain(error, ["I rkllm: loading", line])
    number, text = NUMBERS[code]
    assert (error["code"], error["message"]) == (number, f"{text}: {line}")
    assert (error["data"]["name"], error["data"]["rkllm_code"], error["data"]["source"]) == (code, code, "RKLLM")
    assert error["data"]["log"] == ["I rkllm: loading", line]


@pytest.mark.parametrize("part", [part for part, _ in RULES])
def test_every_rule_is_reached(part: str) -> None:
    assert classify([f"E rkllm: {part}"]) == dict(RULES)[part]


@given(st.lists(st.sampled_from(MESSAGES), min_size=1, max_size=4), st.integers(0, 3))
def test_the_latest_telling_line_wins(messages: list[tuple[str, str]], noise: int) -> None:
    lines = [line for line, _ in messages] + ["I rkllm: done", "hello"][:noise]
    assert classify(lines) == messages[-1][1]


def test_lines_that_tell_nothing_leave_the_error_as_it_is_but_are_shown() -> None:
    error = failure()
    lines = ["I rkllm: hello", "my program must be less than perfect", "disk: failed to submit", "task counter 0"]
    assert classify(lines) is None
    explain(error, lines)
    assert error == {**failure(), "data": {**failure()["data"], "log": lines}}


def test_only_the_runtimes_errors_are_explained() -> None:
    lines = [MESSAGES[0][0]]
    other = InvalidParams("cannot take it").to_object(1.0)
    assert msgspec.json.decode(explained(msgspec.json.encode(other), lines)) == other
    told = msgspec.json.decode(explained(msgspec.json.encode(failure()), lines))
    assert told["data"]["name"] == "RKLLM_CONTEXT_ERROR"


def test_an_unknown_code_is_an_internal_error_and_minus_one_is_no_code() -> None:
    error = failure("RKLLM_SOMETHING_NEW")
    assert (error["code"], error["message"]) == (-32603, "Internal error: rkllm_run returned -1")
    assert -1 not in {number for number, _ in RKLLM_CODES.values()}
