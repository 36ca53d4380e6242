"""What RKLLM's log lines say of a failure: rules as data (facts of the runtime, §3).  Pure.

The C API knows only zero and non-zero; the cause stands in the log.  The first rule that matches the latest line wins.
"""

from __future__ import annotations

from typing import Any

import msgspec

from rkvisor.protocol.errors import RKLLM_CODES

#: (part of a line, RKLLM code).
RULES: tuple[tuple[str, str], ...] = (
    ("the length of prompt is greater than max context", "RKLLM_CONTEXT_ERROR"),
    ("the context is not enough", "RKLLM_CONTEXT_ERROR"),
    ("must be less than", "RKLLM_INVALID_PARAM"),
    ("Mismatch between enabled CPUs mask", "RKLLM_INVALID_PARAM"),
    ("lora adapter", "RKLLM_INVALID_PARAM"),
    ("invalid magic characters", "RKLLM_MODEL_NOT_FOUND"),
    ("the rkllm-runtime version is lower than the rkllm-toolkit version", "RKLLM_MODEL_NOT_FOUND"),
    ("model version is too old", "RKLLM_MODEL_NOT_FOUND"),
    ("Platform error", "RKLLM_DEVICE_ERROR"),
    ("driver version is too low", "RKLLM_DEVICE_ERROR"),
    ("malloc npu memory fail", "RKLLM_MEMORY_ERROR"),
    ("failed to allocate handle", "RKLLM_MEMORY_ERROR"),
    ("failed to submit", "RKLLM_DEVICE_ERROR"),
    ("task counter 0", "RKLLM_DEVICE_ERROR"),
    ("switch iommu domain time out", "RKLLM_DEVICE_ERROR"),
    ("out of the vocabulary", "RKLLM_TOKEN_ERROR"),
)


#: Who may say so: the runtime, the library below it, and the driver's lines of the kernel.
SPEAKERS = ("rkllm", "rknn", "rknpu")


def classify(lines: list[str]) -> str | None:
    """The RKLLM code that the latest telling line stands for, or None."""
    for line in reversed(lines):
        for part, code in RULES:
            if part in line and any(speaker in line.lower() for speaker in SPEAKERS):
                return code
    return None


def explained(body: bytes, lines: list[str]) -> bytes:
    """The error object *body*; one of RKLLM's with its last log *lines* and what they say of the cause (design §11)."""
    error = msgspec.json.decode(body)
    if error.get("data", {}).get("source") == "RKLLM":
        explain(error, lines)
    return msgspec.json.encode(error)


def explain(error: dict[str, Any], lines: list[str]) -> None:
    """Put *lines* into an error object of RKLLM's, and the code that they stand for in place of a general one."""
    data = error["data"]
    data["log"] = lines
    code = classify(lines)
    if code is None:
        return
    number, text = RKLLM_CODES[code]
    error["code"] = number
    error["message"] = f"{text}: {next(line for line in reversed(lines) if classify([line]) == code)}"
    data["name"] = data["rkllm_code"] = code
