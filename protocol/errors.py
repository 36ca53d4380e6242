"""The one catalogue of errors: numbers, names, severities and texts, for every program of rkvisor.

    RkvisorError
    ├── ClientError        theirs: the request is wrong, or asks for what is not to be had
    ├── WorkerError        ours: a worker or its runtime failed
    └── SupervisorError    ours: rkvisord cannot take the request now

Each leaf is a row: ``code`` (JSON-RPC number), ``name`` (stable, what programs match on), ``severity`` (info, warning,
error, critical), ``is_retryable``.  The texts are written where the error is raised, begin with "cannot …" and name the
thing and the limit.  Codes −32700 … −32603 are JSON-RPC 2.0's, −32001 … −32018 rkvisor's, and the statuses of RKLLM
map onto −32602 and −32603 (requirements S0.22–S0.33).
"""

from __future__ import annotations

from typing import Any, ClassVar

Severity = str


class RkvisorError(Exception):
    """An error that can cross the wire.  ``data``: more members of ``error.data``."""

    code: ClassVar[int] = -32603
    name: ClassVar[str] = "INTERNAL_ERROR"
    severity: ClassVar[Severity] = "error"
    is_retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, retry_after_ms: int | None = None, component: str = "rkvisord", **data: Any):
        super().__init__(message)
        self.message = message
        self.retry_after_ms = retry_after_ms
        self.component = component
        self.data = data

    def to_object(self, timestamp: float) -> dict[str, Any]:
        """The JSON-RPC error object.  timestamp: wall clock, Unix seconds."""
        return {
            "code": self.code,
            "message": self.message,
            "data": {
                "name": self.name,
                "severity": self.severity,
                "retryable": self.is_retryable,
                "retry_after_ms": self.retry_after_ms,
                "component": self.component,
                "timestamp": round(timestamp, 3),
                **self.data,
            },
        }


class ClientError(RkvisorError):
    """The request is at fault."""

    code, name, severity = -32600, "INVALID_REQUEST", "warning"


class WorkerError(RkvisorError):
    """A worker, its runtime or its model is at fault."""


class SupervisorError(RkvisorError):
    """rkvisord cannot take or finish the request."""

    severity, is_retryable = "warning", True


class ParseError(ClientError):
    code, name = -32700, "PARSE_ERROR"


class InvalidRequest(ClientError):
    code, name = -32600, "INVALID_REQUEST"


class MethodNotFound(ClientError):
    code, name = -32601, "METHOD_NOT_FOUND"


class InvalidParams(ClientError):
    code, name = -32602, "INVALID_PARAMS"


class InternalError(SupervisorError):
    code, name, severity, is_retryable = -32603, "INTERNAL_ERROR", "critical", False


class WorkerCrashed(WorkerError):
    code, name, is_retryable = -32001, "WORKER_CRASHED", True


class PoisonRequest(ClientError):
    code, name, severity = -32002, "POISON_REQUEST", "error"


class CircuitOpen(SupervisorError):
    code, name = -32003, "CIRCUIT_OPEN"


class QueueFull(SupervisorError):
    code, name = -32004, "QUEUE_FULL"


class RateLimited(SupervisorError):
    code, name = -32005, "RATE_LIMITED"


class ShuttingDown(SupervisorError):
    code, name = -32006, "SHUTTING_DOWN"


class Draining(SupervisorError):
    code, name = -32007, "DRAINING"


class DeadlineExceeded(SupervisorError):
    code, name = -32008, "DEADLINE_EXCEEDED"


class SlowClient(ClientError):
    code, name, is_retryable = -32009, "SLOW_CLIENT", True


class ModelUnavailable(SupervisorError):
    code, name, severity = -32010, "MODEL_UNAVAILABLE", "error"


class CannotStream(ClientError):
    code, name = -32011, "CANNOT_STREAM"


class NotSupported(ClientError):
    code, name = -32012, "NOT_SUPPORTED"


class SessionLost(SupervisorError):
    code, name, is_retryable = -32013, "SESSION_LOST", False


class NotAuthorised(ClientError):
    code, name = -32014, "NOT_AUTHORISED"


class KeyConflict(ClientError):
    code, name = -32015, "KEY_CONFLICT"


class ResumeDiverged(WorkerError):
    code, name, is_retryable = -32016, "RESUME_DIVERGED", True


class TooLarge(ClientError):
    code, name = -32017, "TOO_LARGE"


class JournalUnavailable(SupervisorError):
    code, name, severity = -32018, "JOURNAL_UNAVAILABLE", "error"


class RkllmFailure(WorkerError):
    """An error of the runtime itself.  It is not retried (design §6).

    rkllm_code: a name of ``RKLLM_CODES``; ``source`` is always "RKLLM" (requirements S0.35).
    """

    def __init__(self, rkllm_code: str, message: str | None = None, *, component: str, log: list[str] | None = None):
        code, text = RKLLM_CODES.get(rkllm_code, (-32603, "Internal error"))
        full = text if message is None else f"{text}: {message}"
        super().__init__(full, component=component, rkllm_code=rkllm_code, source="RKLLM", log=log or [])
        self.rkllm_number = code

    def to_object(self, timestamp: float) -> dict[str, Any]:
        """As its base, with the JSON-RPC number that the RKLLM code maps to."""
        error = super().to_object(timestamp)
        error["code"] = self.rkllm_number
        error["data"]["name"] = self.data["rkllm_code"]
        return error


#: rkvisor's classification of RKLLM's failures: (JSON-RPC number, text).  Requirements S0.23–S0.33.
RKLLM_CODES: dict[str, tuple[int, str]] = {
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


def _leaves(root: type[RkvisorError]) -> list[type[RkvisorError]]:
    below = [leaf for child in root.__subclasses__() for leaf in _leaves(child)]
    return below or [root]


#: name → class of every error that has a number of its own.
CATALOGUE: dict[str, type[RkvisorError]] = {
    leaf.name: leaf for leaf in _leaves(RkvisorError) if leaf is not RkllmFailure
}


def from_object(error: dict[str, Any]) -> RkvisorError:
    """The exception that an error object describes: by ``data.name``, else by ``code``, else an InternalError."""
    data = error.get("data")
    data = dict(data) if isinstance(data, dict) else {}
    name = data.get("name")
    message = str(error.get("message", ""))
    if data.get("source") == "RKLLM":
        failure = RkllmFailure(str(name), component=str(data.get("component", "")), log=data.get("log"))
        failure.message = message
        failure.args = (message,)
        own = ("name", "severity", "retryable", "timestamp", "retry_after_ms", "component")
        failure.data |= {key: value for key, value in data.items() if key not in own}
        return failure
    kind = CATALOGUE.get(str(name))
    if kind is None:
        kind = next((leaf for leaf in CATALOGUE.values() if leaf.code == error.get("code")), InternalError)
    for known in ("name", "severity", "retryable", "timestamp"):
        data.pop(known, None)
    retry_after_ms = data.pop("retry_after_ms", None)
    component = str(data.pop("component", ""))
    described = kind(message, retry_after_ms=retry_after_ms, component=component)
    described.data = data  # not as keywords: the sender may have chosen names such as "message"
    return described
