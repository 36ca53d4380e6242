"""Sessions among requests and workers: whose KV cache has which, and what a turn leaves.

Decides nothing by itself: ``history.py``, ``store.py`` and ``affinity.py`` do.  ``session.*`` is in ``methods.py``.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from rkvisor.protocol import link
from rkvisor.protocol.errors import InvalidParams, from_object
from rkvisor.protocol.run import RunParams
from rkvisor.protocol.sessions import TurnEntry, check_turn
from rkvisor.supervisor.clock import Clock
from rkvisor.supervisor.config import Config
from rkvisor.supervisor.front.events import Events
from rkvisor.supervisor.requests.jobs import Job
from rkvisor.supervisor.sessions.history import Limits, Session, Turn
from rkvisor.supervisor.sessions.lost import REASONS, lost
from rkvisor.supervisor.sessions.store import Store
from rkvisor.supervisor.workers.budgets import FIRST_TOKEN_BASE_S, first_token_budget_s, load_timeout_s

if TYPE_CHECKING:
    from rkvisor.supervisor.workers.processes import Process
    from rkvisor.supervisor.workers.slot import Slot

#: A replay may take so many times as long as its turns took the first time.
SLOWER = 2.0


class _Answer(msgspec.Struct):
    """What a history needs of a result."""

    text: str
    token_ids: list[int]
    finish_reason: str


_read_answer = msgspec.json.Decoder(_Answer).decode


def entry_of(turn: Turn) -> TurnEntry:
    """*turn* as clients are shown it, without its token ids."""
    return TurnEntry(
        role=turn.role,
        prompt=turn.prompt,
        text=turn.text,
        finish_reason=turn.finish_reason,
        tokens=len(turn.ids),
    )


class Sessions:
    """store: all sessions.  held: process → the session that its KV cache has."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock, config: Config, epoch: str, events: Events):
        limits = config.limits
        self._loop = loop
        self._clock = clock
        self._events = events
        self.store: Store[Job] = Store(
            Limits(
                sessions=limits.sessions,
                turns=limits.session_turns,
                bytes=limits.session_bytes,
                tokens=limits.session_tokens,
                idle_s=limits.session_idle_s,
            ),
            epoch,
        )
        self._timer: asyncio.TimerHandle | None = None
        self.held: dict[Process, Session[Job]] = {}
        self._worn: dict[Process, tuple[tuple[str, ...], tuple[str, ...]]] = {}

    # A request of a session, on its way.

    def admit(self, params: RunParams, principal: str) -> Session[Job]:
        """The session that *params* names, if it can take another turn.

        Raises SessionLost, InvalidParams, TooLarge, QueueFull.
        """
        assert params.session is not None
        session = self.store.find(params.session, principal, self._clock.monotonic())
        check_turn(params)
        if params.model != session.model:
            text = f"it was opened for {session.model!r}"
            raise InvalidParams(f"cannot run model {params.model!r} in session {session.id!r}: {text}")
        session.check()
        return session

    def home(self, session: Session[Job] | None) -> Slot | None:
        """The worker whose KV cache has *session*."""
        if session is None or session.process is None or self.held.get(session.process) is not session:
            return None
        slot: Slot = session.worker
        return slot if slot.process is session.process else None  # it may be on its way out, for a new process

    def is_held(self, slot: Slot) -> bool:
        """Whether the KV cache of *slot* has a session."""
        return slot.process in self.held

    def dispatched(self, slot: Slot, job: Job) -> link.Session | None:
        """*slot* is given *job*: its KV cache has no other session from now on.  What the RUN brings for a session."""
        process, session = slot.process, job.session
        assert process is not None
        if session is None and process not in self.held and process not in self._worn:
            return None  # most requests
        before = self.held.pop(process, None)
        if before is not None and before is not session:
            before.process, before.cause = None, "evicted"
        job.turn_end, job.began_s, job.restore_s = None, self._clock.monotonic(), 0.0
        worn = (session.settings.template, session.settings.tools) if session is not None else ((), ())
        if worn != self._worn.get(process, ((), ())):
            job.restore_s = load_timeout_s(slot.section)  # undoing what a session has set may load the model again
            self._worn[process] = worn
        if session is None:
            return None
        if session.turns and before is not session:
            tokens_s = first_token_budget_s(session.replay_tokens) - FIRST_TOKEN_BASE_S
            job.restore_s += tokens_s + SLOWER * session.replay_s
        settings = session.settings
        return link.Session(
            id=session.id,
            turns=[msgspec.Raw(turn.wire) for turn in session.turns],
            template=[*settings.template],
            tools=[*settings.tools],
            lora=settings.lora,
            may_restore=settings.may_restore,
        )

    def on_turn(self, slot: Slot, job: Job, end: link.TurnEnd) -> None:
        """The worker's KV cache has the turn of *job*; its result comes next."""
        job.turn_end, job.turn_worker, job.turn_process = end, slot, slot.process

    def on_end(self, job: Job, body: bytes, is_error: bool) -> bytes:
        """*job* is over, with the JSON text *body* of its result or error.  Returns what to answer."""
        session: Session[Job] = job.session
        if is_error:
            body = self._explain(session, body)
        elif job.listeners and not job.is_answered and not session.is_closed:
            self._record(session, job, _read_answer(body))
        following = session.leave(job, self._clock.monotonic())
        if following is not None:
            following.home.release(following)
        elif session.running is None:
            self.arm()
        return body

    def _record(self, session: Session[Job], job: Job, answer: _Answer) -> None:
        end: link.TurnEnd | None = job.turn_end
        if end is None and not answer.token_ids:
            return  # aborted before its first token: nothing was said
        end = end or link.TurnEnd()
        params = job.params
        wire = link.Turn(
            job=job.number,
            params=job.raw_params,
            ids=answer.token_ids,
            end_id=end.end_id,
            is_natural=end.is_natural,
        )
        if end.is_restored:
            session.restored += 1
            self._tell("session.restored", session, reason=session.cause or "evicted", turns=len(session.turns))
        session.record(
            Turn(
                wire=link.encode_body(wire),
                role=params.role,
                prompt=params.prompt or "",
                text=answer.text,
                finish_reason=answer.finish_reason,
                ids=tuple(answer.token_ids),
                took_s=self._clock.monotonic() - job.began_s,
            )
        )
        session.process, session.cause = None, "crashed"
        if job.turn_end is not None and job.turn_process is not None and not job.turn_process.is_gone:
            session.worker, session.process, session.cause = job.turn_worker, job.turn_process, ""
            self.held[job.turn_process] = session
        if session.lost_because is not None:
            self._tell("session.lost", session, reason=session.lost_because, turns=len(session.turns))

    def _explain(self, session: Session[Job], body: bytes) -> bytes:
        """An error of a turn.  What says that the conversation cannot go on is told with the conversation."""
        if not body:
            return body
        error = from_object(msgspec.json.decode(body))
        reason = str(error.data.get("reason", ""))
        name = str(error.data.get("rkllm_code", error.name))
        if name == "SESSION_LOST" and reason in REASONS:
            if session.lost_because is None:
                session.lost_because = reason
                self._tell("session.lost", session, reason=reason, turns=len(session.turns))
        elif name == "RKLLM_CONTEXT_ERROR" and session.turns:
            reason = "context"  # a shorter prompt may still fit: the session stays as it was
        else:
            return body
        turns, state = [entry_of(turn) for turn in session.turns], "lost" if session.lost_because else "idle"
        told = lost(session.id, reason, detail=error.message, session_state=state, history=turns)
        return msgspec.json.encode(told.to_object(self._clock.wall()))

    def _tell(self, event: str, session: Session[Job], **members: Any) -> None:
        self._events.publish("session", event=event, session=session.id, model=session.model, **members)

    # What becomes of KV caches.

    def forget_place(self, session: Session[Job], cause: str) -> None:
        if session.process is not None:
            if self.held.get(session.process) is session:
                del self.held[session.process]
            session.process, session.cause = None, cause

    def on_gone(self, process: Process) -> None:
        """*process* is gone, its KV cache with it."""
        self._worn.pop(process, None)
        session = self.held.get(process)
        if session is not None:
            self.forget_place(session, "stopped" if process.sent else "crashed")

    def on_configured(self, process: Process) -> None:
        """*process* was configured anew, or told to clear its KV cache."""
        session = self.held.get(process)
        if session is not None:
            self.forget_place(session, "reconfigured")

    # Time.

    def arm(self) -> None:
        """Look again when the next session expires."""
        due_s = self.store.next_expiry_s()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due_s is not None:
            self._timer = self._loop.call_later(max(0.0, due_s - self._clock.monotonic()) + 0.001, self._expire)

    def _expire(self) -> None:
        self._timer = None
        for session in self.store.expire(self._clock.monotonic()):
            self.forget_place(session, "expired")
            self._tell("session.expired", session, turns=len(session.turns))
        self.arm()

    def shut(self) -> None:
        """No timer any more."""
        if self._timer is not None:
            self._timer.cancel()
