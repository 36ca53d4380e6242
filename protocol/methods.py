"""The methods that clients may call: their params and results as types that validate, describe and document.

``msgspec`` decodes params into these types; ``openrpc.py`` renders the same types as the answer of ``rpc.discover``.
What the types cannot say is said by ``check_abort`` here, ``run.py`` and the supervisor.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from rkvisor.protocol.calls import CALLS, CallResult, KvCacheSizes
from rkvisor.protocol.crashes import CrashList, DeadLetter, DeadLetterList, Digest, Limit, Purged, Released
from rkvisor.protocol.errors import InvalidParams
from rkvisor.protocol.jsonrpc import is_id
from rkvisor.protocol.memory import MemoryParams, MemoryReport
from rkvisor.protocol.memory_tests import TrackerParams, TrackerStatus
from rkvisor.protocol.params import NoParams, Params, RawId
from rkvisor.protocol.run import RunParams, RunResult
from rkvisor.protocol.sessions import (
    ClosedResult,
    HistoryParams,
    OpenParams,
    OpenResult,
    SessionHistory,
    SessionList,
    SessionParams,
)


class AbortParams(Params, frozen=True):
    """Exactly one: request reaches within the connection, request_key within the principal."""

    request: RawId | msgspec.UnsetType = msgspec.UNSET
    request_key: str | None = None


class AbortResult(msgspec.Struct):
    aborted: bool


class PauseParams(Params, frozen=True):
    """Exactly one: request reaches within the connection, request_key within the principal."""

    request: RawId | msgspec.UnsetType = msgspec.UNSET
    request_key: str | None = None


class PauseResult(msgspec.Struct):
    """paused: false where the request ended first, or is none."""

    paused: bool


class ResumeParams(Params, frozen=True):
    """Exactly one of request and request_key.  prompt: text behind which the request goes on, as it is."""

    request: RawId | msgspec.UnsetType = msgspec.UNSET
    request_key: str | None = None
    prompt: Annotated[str, Meta(max_length=1_000_000)] = ""


class ResumeResult(msgspec.Struct):
    """resumed: false where the request is not paused."""

    resumed: bool


class ModelParams(Params, frozen=True):
    """One model by name."""

    model: Annotated[str, Meta(min_length=1)]


class IsRunningParams(Params, frozen=True):
    """A model, or a request of this connection; without either: anything at all."""

    model: str | None = None
    request: RawId | msgspec.UnsetType = msgspec.UNSET


class IsRunningResult(msgspec.Struct):
    is_running: bool


class NamesParams(Params, frozen=True):
    """Workers: ``demo:0``, a whole model ``demo`` or ``demo:*``, or ``all``."""

    names: Annotated[list[str], Meta(min_length=1, max_length=1000)]


class WorkerStatus(msgspec.Struct, kw_only=True):
    name: str
    state: str
    pid: int
    uptime_s: float
    requests: int
    rss_bytes: int
    is_stale: bool


class ModelStatus(msgspec.Struct, kw_only=True):
    name: str
    state: str
    queue: int
    health: float
    degraded_by: str | None
    workers: list[WorkerStatus]


class SystemStatus(msgspec.Struct, kw_only=True):
    node: str
    epoch: str
    models: list[ModelStatus]


class SystemVersion(msgspec.Struct, kw_only=True):
    version: str
    protocol: str
    node: str
    epoch: str


class ModelEntry(msgspec.Struct, kw_only=True):
    name: str
    runtime: str
    path: str
    state: str
    family: str | None
    runtime_version: str | None
    workers: int


class ModelList(msgspec.Struct, kw_only=True):
    models: list[ModelEntry]


class ModelInfo(msgspec.Struct, kw_only=True):
    """param: what the runtime was initialised with.  functions: those that it has.

    tokenizer, chat_template: the files that they are read from; null: there is none.
    troubles: what workers could not take of the calls that configure the model.
    """

    name: str
    runtime: str
    path: str
    state: str
    family: str | None
    runtime_version: str | None
    functions: list[str]
    can_force_tokens: bool
    tokenizer: str | None
    chat_template: str | None
    param: dict[str, Any]
    default_param: dict[str, Any]
    troubles: list[str]


class ModelState(msgspec.Struct, kw_only=True):
    """state: of the model when the call is done."""

    name: str
    state: str


class CrashesParams(Params, frozen=True):
    """limit: of reports.  worker: only of this one.  id: only this one, or those that begin so."""

    limit: Limit = 50
    worker: str | None = None
    id: Annotated[str, Meta(min_length=1, max_length=64)] | None = None


class DigestParams(Params, frozen=True):
    """A request's digest in hex, or its beginning."""

    digest: Digest


class PurgeParams(Params, frozen=True):
    """Without a digest: all."""

    digest: Digest | None = None


class Method(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the method table.  admin: only on the admin socket or for an admin key."""

    params: type[Params]
    result: Any
    summary: str
    admin: bool = False


METHODS: dict[str, Method] = {
    "rkllm.run": Method(params=RunParams, result=RunResult, summary="Run one inference, streamed on demand"),
    "rkllm.abort": Method(params=AbortParams, result=AbortResult, summary="End a request; it succeeds as aborted"),
    "rkllm.pause": Method(params=PauseParams, result=PauseResult, summary="Pause a request behind its next token"),
    "rkllm.resume": Method(params=ResumeParams, result=ResumeResult, summary="Let a paused request go on"),
    "rkllm.is_running": Method(params=IsRunningParams, result=IsRunningResult, summary="Whether a request runs"),
    "rkllm.createDefaultParam": Method(
        params=ModelParams, result=dict[str, Any], summary="The defaults of the model's runtime library"
    ),
    "rkllm.get_constants": Method(
        params=NoParams, result=dict[str, dict[str, int]], summary="The enums of the RKLLM ABI, by name"
    ),
    **{
        name: Method(
            params=params,
            result=KvCacheSizes if name == "rkllm.get_kv_cache_size" else CallResult,
            summary=f"{name.replace('.', '_')} on every worker of the model",
        )
        for name, params in CALLS.items()
    },
    "session.open": Method(params=OpenParams, result=OpenResult, summary="Begin a conversation"),
    "session.close": Method(params=SessionParams, result=ClosedResult, summary="End a conversation and forget it"),
    "session.list": Method(params=NoParams, result=SessionList, summary="The conversations of this principal"),
    "session.history": Method(params=HistoryParams, result=SessionHistory, summary="The turns of a conversation"),
    "model.info": Method(params=ModelParams, result=ModelInfo, summary="One model: its runtime and its parameters"),
    "model.load": Method(params=ModelParams, result=ModelState, summary="Start the workers of a model (rkllm_init)"),
    "model.unload": Method(
        params=ModelParams, result=ModelState, summary="Stop the workers of a model (rkllm_destroy)"
    ),
    "model.list": Method(params=NoParams, result=ModelList, summary="The configured models"),
    "system.status": Method(params=NoParams, result=SystemStatus, summary="Models, queues and workers"),
    "system.version": Method(params=NoParams, result=SystemVersion, summary="Versions, node and epoch"),
    "memory_tracker_status": Method(
        params=TrackerParams, result=TrackerStatus, summary="Native buffers that rkvisor holds for the runtimes"
    ),
    "system.crashes": Method(params=CrashesParams, result=CrashList, summary="Crash reports, newest first"),
    "memory.report": Method(
        params=MemoryParams, result=MemoryReport, summary="What each worker's memory does, and whose leak it is"
    ),
    "rpc.discover": Method(params=NoParams, result=dict[str, Any], summary="This document, as OpenRPC"),
    "admin.processes": Method(
        params=NoParams, result=list[dict[str, Any]], summary="Every worker as supervisord describes it", admin=True
    ),
    "admin.start": Method(params=NamesParams, result=list[dict[str, Any]], summary="Start workers", admin=True),
    "admin.stop": Method(params=NamesParams, result=list[dict[str, Any]], summary="Stop workers", admin=True),
    "admin.shutdown": Method(params=NoParams, result=bool, summary="Stop rkvisord", admin=True),
    "admin.dead_letters": Method(
        params=NoParams, result=DeadLetterList, summary="Requests that ended every process that ran them", admin=True
    ),
    "admin.dead_letter": Method(params=DigestParams, result=DeadLetter, summary="One dead letter", admin=True),
    "admin.release": Method(
        params=DigestParams, result=Released, summary="Let a refused request run again", admin=True
    ),
    "admin.purge": Method(params=PurgeParams, result=Purged, summary="Throw dead letters away", admin=True),
    "admin.pid": Method(params=NoParams, result=int, summary="The pid of rkvisord", admin=True),
}


def check_abort(params: AbortParams | PauseParams | ResumeParams) -> None:
    """Raises InvalidParams unless exactly one target is named, and a request by something that can be its id."""
    what = {PauseParams: "pause", ResumeParams: "resume"}.get(type(params), "abort")
    if (params.request is msgspec.UNSET) == (params.request_key is None):
        raise InvalidParams(f"cannot {what} without exactly one of request and request_key")
    if params.request is not msgspec.UNSET and not is_id(bytes(params.request).strip()):
        raise InvalidParams(f"cannot {what}: request is the id of one, a string, a number or null")
