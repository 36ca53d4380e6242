"""The methods that test rkvisor from outside, by the names, params and results of the requirements S0.2–S0.21.

They are served only where the configuration says ``[diagnostics] enabled = true``.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from rkvisor.protocol.memory_tests import (
    ArraysParams,
    ArraysResult,
    CleanupParams,
    CleanupResult,
    LeakDetectionParams,
    LeakDetectionResult,
)
from rkvisor.protocol.methods import Method
from rkvisor.protocol.params import Params

#: How many error scenarios there are (S0.15: ``i % 3``).
SCENARIOS = 3


class ErrorMappingParams(Params, frozen=True):
    """Both are required; that is said in the requirements' own words, so not by the types."""

    simulate_error: str | None = None
    expected_json_rpc_code: int | None = None


class ErrorMappingResult(msgspec.Struct, kw_only=True):
    """rkllm_code: the whole name.  json_rpc_code, message: what a client is told for it."""

    error_mapped_correctly: bool
    json_rpc_code: int
    message: str
    rkllm_code: str


class InvalidJsonParams(Params, frozen=True):
    """invalid_json: answered as if it had been a whole message."""

    invalid_json: str | None = None


class ConcurrentErrorsParams(Params, frozen=True):
    """client_id: echoed.  error_scenario: 0 wrong params, 1 broken JSON, 2 a failure of the runtime."""

    client_id: int | str | None = None
    error_scenario: Annotated[int, Meta(ge=0, lt=SCENARIOS)] | None = None


class ConcurrentErrorsResult(msgspec.Struct, kw_only=True):
    """handled_gracefully: the scenario ended in the error that belongs to it, json_rpc_code."""

    client_id: int | str
    error_scenario: int
    handled_gracefully: bool
    json_rpc_code: int


DIAGNOSTICS: dict[str, Method] = {
    "test_rkllm_error_mapping": Method(
        params=ErrorMappingParams, result=ErrorMappingResult, summary="What a client is told for an error of RKLLM"
    ),
    "test_invalid_json": Method(
        params=InvalidJsonParams, result=None, summary="Answer a text as if it had been a message: PARSE_ERROR"
    ),
    "test_concurrent_errors": Method(
        params=ConcurrentErrorsParams, result=ConcurrentErrorsResult, summary="Provoke one of three errors, handle it"
    ),
    "test_memory_leak_detection": Method(
        params=LeakDetectionParams, result=LeakDetectionResult, summary="Run a worker's model again and again"
    ),
    "test_memory_cleanup": Method(
        params=CleanupParams, result=CleanupResult, summary="Allocate buffers in a worker, free them"
    ),
    "test_array_memory_handling": Method(
        params=ArraysParams, result=ArraysResult, summary="Copy arrays in a worker as for a runtime, free them"
    ),
}
