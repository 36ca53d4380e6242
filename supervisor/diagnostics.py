"""What the ``test_*`` methods do (requirements S0.2–S0.16): they go through the code that real requests go through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rkvisor.protocol import jsonrpc
from rkvisor.protocol.diagnostics import (
    ConcurrentErrorsParams,
    ConcurrentErrorsResult,
    ErrorMappingParams,
    ErrorMappingResult,
    InvalidJsonParams,
)
from rkvisor.protocol.errors import CATALOGUE, RKLLM_CODES, InvalidParams, RkllmFailure, RkvisorError
from rkvisor.protocol.params import decode_params
from rkvisor.protocol.run import RunParams, check_run

_COMPONENT = "diagnostics"


def _require(*values: object) -> None:
    if any(value is None for value in values):
        raise InvalidParams("Missing required parameters")


def error_mapping(params: ErrorMappingParams) -> ErrorMappingResult:
    """simulate_error: a name of RKLLM's, with or without ``RKLLM_``, or of rkvisor's own catalogue.

    Raises InvalidParams for missing params and unknown names, in the words of S0.4 and S0.5.
    """
    name, expected = params.simulate_error, params.expected_json_rpc_code
    _require(name, expected)
    assert name is not None
    full = name if name.startswith("RKLLM_") else f"RKLLM_{name}"
    if full in RKLLM_CODES:
        error = RkllmFailure(full, component=_COMPONENT).to_object(0.0)
        name, code, message = full, error["code"], error["message"]
    elif name in CATALOGUE:
        code, message = CATALOGUE[name].code, name
    else:
        raise InvalidParams("Unknown error name")
    return ErrorMappingResult(
        error_mapped_correctly=code == expected, json_rpc_code=code, message=message, rkllm_code=name
    )


def invalid_json(params: InvalidJsonParams) -> None:
    """Raises what a message of that text would be answered with; InvalidParams where it is a request."""
    _require(params.invalid_json)
    parsed = jsonrpc.parse(str(params.invalid_json).encode())
    if isinstance(parsed, jsonrpc.Invalid):
        raise parsed.error
    raise InvalidParams("cannot test invalid JSON with a text that is valid")


def _wrong_params() -> None:
    check_run(decode_params(RunParams, b'{"model":"m"}'))


def _broken_json() -> None:
    parsed = jsonrpc.parse(b'{"jsonrpc":"2.0","method":')
    if isinstance(parsed, jsonrpc.Invalid):
        raise parsed.error


def _runtime_failure() -> None:
    raise RkllmFailure("RKLLM_INFERENCE_ERROR", component=_COMPONENT)


#: What each scenario does, and the number it must end in.
_SCENARIOS: tuple[tuple[Callable[[], None], int], ...] = (
    (_wrong_params, -32602),
    (_broken_json, -32700),
    (_runtime_failure, -32603),
)


def concurrent_errors(params: ConcurrentErrorsParams) -> ConcurrentErrorsResult:
    """Raises InvalidParams for missing params."""
    client_id, scenario = params.client_id, params.error_scenario
    _require(client_id, scenario)
    assert client_id is not None
    assert scenario is not None
    act, expected = _SCENARIOS[scenario]
    code = 0
    try:
        act()
    except RkvisorError as error:
        code = error.to_object(0.0)["code"]
    return ConcurrentErrorsResult(
        client_id=client_id, error_scenario=scenario, handled_gracefully=code == expected, json_rpc_code=code
    )


ACTS: dict[str, Callable[[Any], Any]] = {
    "test_rkllm_error_mapping": error_mapping,
    "test_invalid_json": invalid_json,
    "test_concurrent_errors": concurrent_errors,
}
