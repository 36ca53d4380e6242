"""``session.*``: sessions as clients open, close and look at them."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from rkvisor.protocol.errors import NotSupported
from rkvisor.protocol.sessions import (
    ClosedResult,
    HistoryParams,
    OpenParams,
    OpenResult,
    SessionEntry,
    SessionHistory,
    SessionList,
    SessionParams,
    check_open,
)
from rkvisor.supervisor.clock import Clock
from rkvisor.supervisor.config import ModelSection
from rkvisor.supervisor.requests.jobs import Job
from rkvisor.supervisor.sessions.history import Session, Settings
from rkvisor.supervisor.sessions.room import Sessions, entry_of

if TYPE_CHECKING:
    from rkvisor.supervisor.workers.processes import Process


class SessionMethods:
    """check_model: raises for an unknown one.  processes_of: a model's processes, to ask what its runtime can."""

    def __init__(
        self,
        clock: Clock,
        models: dict[str, ModelSection],
        sessions: Sessions,
        check_model: Callable[[str], str],
        processes_of: Callable[[str], list[Process]],
    ):
        self._clock = clock
        self._models = models
        self._sessions = sessions
        self._store = sessions.store
        self._check_model = check_model
        self._processes_of = processes_of

    def open(self, params: OpenParams, principal: str) -> OpenResult:
        """Begin a conversation.  Raises InvalidParams, NotSupported, RateLimited."""
        check_open(params)
        self._check_can(self._check_model(params.model), params)
        template, tools = params.chat_template, params.function_tools
        session = self._store.open(
            principal,
            params.model,
            Settings(
                template=msgspec.structs.astuple(template) if template is not None else (),
                tools=msgspec.structs.astuple(tools) if tools is not None else (),
                lora=params.lora,
                may_restore=params.on_lost == "replay",
            ),
            idle_timeout_s=params.idle_timeout_s,
            max_turns=params.max_turns,
            chance=secrets.token_hex(8),
            now_s=self._clock.monotonic(),
        )
        self._sessions.arm()
        return OpenResult(
            session=session.id,
            model=session.model,
            idle_timeout_s=session.idle_timeout_s,
            max_turns=session.max_turns,
        )

    def _check_can(self, model: str, params: OpenParams) -> None:
        """Raise NotSupported for what the runtime of *model* has not, as far as one of its processes tells."""
        batch = self._models[model].param.get("n_batch", 1)
        if batch > 1:
            text = f"it is configured for n_batch = {batch}, several conversations at once"
            raise NotSupported(f"cannot open a session of model {model!r}: {text}", component=model)
        needed = {"keeps no history in its KV cache": "rkllm_clear_kv_cache"}
        if params.chat_template is not None:
            needed["has no rkllm_set_chat_template"] = "rkllm_set_chat_template"
        if params.function_tools is not None:
            needed["has no rkllm_set_function_tools"] = "rkllm_set_function_tools"
        for process in self._processes_of(model):
            for what, function in needed.items():
                if process.ready is not None and function not in process.ready.functions:
                    text = f"family {process.ready.family} {what}"
                    raise NotSupported(f"cannot open a session of model {model!r}: {text}", component=model)

    def close(self, params: SessionParams, principal: str) -> ClosedResult:
        """End a conversation, and what runs or waits in it."""
        found = [one for one in self._store.of(principal, self._clock.monotonic()) if one.id == params.session]
        for session in found:
            self._store.close(session)
            for job in (*session.waiting, *([session.running] if session.running is not None else [])):
                job.home.abort(job)
            self._sessions.forget_place(session, "closed")
        return ClosedResult(closed=bool(found))

    def list(self, principal: str) -> SessionList:
        """Every session of *principal*."""
        now_s = self._clock.monotonic()
        return SessionList(sessions=[self._entry(one, now_s) for one in self._store.of(principal, now_s)])

    def _entry(self, session: Session[Job], now_s: float) -> SessionEntry:
        home = self._sessions.home(session)
        return SessionEntry(
            session=session.id,
            model=session.model,
            state=session.state,  # type: ignore[arg-type]
            turns=len(session.turns),
            tokens=session.tokens,
            bytes=session.size_bytes,
            waiting=len(session.waiting),
            restored=session.restored,
            worker=home.name if home is not None else None,
            idle_s=0.0 if session.running is not None else round(now_s - session.used_s, 3),
            idle_timeout_s=session.idle_timeout_s,
            lost_because=session.lost_because,
        )

    def history(self, params: HistoryParams, principal: str) -> SessionHistory:
        """The turns of a session, also of one that is lost.  Raises SessionLost."""
        session = self._store.find(params.session, principal, self._clock.monotonic())
        turns = [entry_of(turn) for turn in session.turns]
        if params.token_ids:
            for entry, turn in zip(turns, session.turns, strict=True):
                entry.token_ids = [*turn.ids]
        return SessionHistory(
            session=session.id,
            model=session.model,
            state=session.state,  # type: ignore[arg-type]
            lost_because=session.lost_because,
            turns=turns,
        )
