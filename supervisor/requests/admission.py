"""``rkllm.run`` and ``rkllm.abort``: from the params of a request to a job, and from its end to everybody who listens.

Decides, by ``answers.py`` and ``quarantine.py``, whether a request runs, joins another, or has its answer already.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from rkvisor.protocol.errors import (
    CannotStream,
    InvalidParams,
    KeyConflict,
    ModelUnavailable,
    PoisonRequest,
    RateLimited,
    RkvisorError,
    ShuttingDown,
)
from rkvisor.protocol.jsonrpc import NULL, Request
from rkvisor.protocol.methods import AbortParams, PauseParams, ResumeParams, check_abort
from rkvisor.protocol.nearest import nearest
from rkvisor.protocol.params import decode_params
from rkvisor.protocol.run import RunParams, check_run
from rkvisor.protocol.tensors import check_attachments
from rkvisor.supervisor.clock import Clock
from rkvisor.supervisor.config import Config
from rkvisor.supervisor.confined import confine
from rkvisor.supervisor.front.replies import Connection, Reply
from rkvisor.supervisor.requests.answers import Answer, Answers
from rkvisor.supervisor.requests.audience import Audience
from rkvisor.supervisor.requests.digest import digest_of
from rkvisor.supervisor.requests.dispatcher import Dispatcher
from rkvisor.supervisor.requests.endings import cut_off
from rkvisor.supervisor.requests.jobs import Job, Pausing
from rkvisor.supervisor.requests.ladder import POISON_DEATHS
from rkvisor.supervisor.requests.quarantine import Quarantine
from rkvisor.supervisor.sessions.room import Sessions

#: Told to clients while rkvisord stops: it is up again in about that time.
SHUTDOWN_RETRY_MS = 5000


class Requests:
    """dispatchers: by model name."""

    def __init__(self, config: Config, clock: Clock, dispatchers: dict[str, Dispatcher]):
        self._clock = clock
        self._in_flight = config.limits.in_flight
        self._models = config.models
        self._dispatchers = dispatchers
        self.quarantine = Quarantine(config.supervisor.poison_ttl_s)
        self.answers: Answers[Job] = Answers(config.supervisor.answer_ttl_s, config.supervisor.answer_bytes)
        self._numbers = itertools.count(1)
        self._audience = Audience(clock, self._deserted)
        self._live: dict[int, Job] = {}
        self.is_closing = False
        self.sessions: Sessions | None = None
        self.on_quiet: Callable[[], None] | None = None
        self.on_poison: Callable[[Job, bytes], None] = lambda job, error: None

    @property
    def live(self) -> int:
        """Jobs that are queued or run."""
        return len(self._live)

    # rkllm.run

    def run(self, request: Request, reply: Reply, attachments: Sequence[bytes] = ()) -> None:
        """Admit *request*.  Raises catalogue errors for what is refused at once."""
        params: RunParams = decode_params(RunParams, request.params)
        raw = msgspec.json.encode(params) if request.params[:1] == b"[" else request.params
        check_run(params)
        if attachments or params.embed is not None or params.multimodal is not None:
            check_attachments(params, attachments, is_batch=reply.batch is not None)
        if reply.batch is not None and params.mode != "generate" and params.tensor_format == "attachment":
            raise InvalidParams('cannot answer with an attachment inside a batch array: ask for tensor_format "list"')
        if request.id is None:
            reply.result(NULL)  # a notification of rkllm.run runs nothing (design §4)
            return
        dispatcher = self._dispatcher(params.model)
        self._check_connection(reply, params)
        if self.is_closing:
            raise ShuttingDown("cannot take a new request: rkvisord is shutting down", retry_after_ms=SHUTDOWN_RETRY_MS)
        key = (reply.connection.principal, params.request_key) if params.request_key else None
        digest = digest_of(params, attachments) if key is not None or len(self.quarantine) else None
        if digest is not None:
            self._check_poison(digest)
        reply.is_stream = params.stream
        if key is not None and digest is not None and self._answered(key, digest, reply, params.deadline_ms):
            return
        session = None
        if params.session is not None and self.sessions is not None:
            session = self.sessions.admit(params, reply.connection.principal)
        job = Job(
            number=next(self._numbers),
            model=params.model,
            params=params,
            raw_params=raw,
            known_digest=digest,
            attachments=attachments,
            prompt_cache=self._prompt_cache(params),
            principal=reply.connection.principal,
            connection=reply.connection,
            received_s=self._clock.monotonic(),
            session=session,
            time_s=self._clock.wall(),
        )
        self._begin(job, reply, dispatcher, key)

    def _prompt_cache(self, params: RunParams) -> str:
        if params.prompt_cache is None:
            return ""
        folder = self._models[params.model].prompt_cache_dir
        return confine(params.prompt_cache, folder, "prompt_cache_dir", must_exist=False)

    def _begin(self, job: Job, reply: Reply, dispatcher: Dispatcher, key: tuple[str, str] | None) -> None:
        self._live[job.number] = job
        if key is not None:
            self.answers.begin(key, job.digest, job)
        self._audience.listen(job, reply)
        try:
            dispatcher.submit(job)
        except RkvisorError:
            self._audience.forget(reply)
            reply.connection.replies.discard(reply)
            if key is not None:
                self.answers.forget(key, job)
            self._ended(job)
            raise

    def _dispatcher(self, model: str) -> Dispatcher:
        dispatcher = self._dispatchers.get(model)
        if dispatcher is None:
            near = nearest(model, self._dispatchers)
            hint = f"did you mean {near!r}?" if near else f"configured: {', '.join(sorted(self._dispatchers))}"
            raise InvalidParams(f"cannot run model {model!r}: no such model; {hint}")
        return dispatcher

    def check_model(self, model: str) -> str:
        """*model* itself.  Raises InvalidParams if it is not configured."""
        self._dispatcher(model)
        return model

    def unavailable(self, model: str) -> bytes:
        """The JSON text of the error that says why *model* does not run."""
        return self._dispatcher(model).unavailable()

    def _check_connection(self, reply: Reply, params: RunParams) -> None:
        connection = reply.connection
        if len(connection.replies) >= self._in_flight:
            text = f"cannot take another request of this connection: {self._in_flight} are in flight"
            raise RateLimited(text, retry_after_ms=1000)
        if not params.stream:
            return
        if reply.is_req:
            raise CannotStream("cannot stream to a REQ socket, which takes one answer a request: use a DEALER")
        if reply.batch is not None:
            raise CannotStream("cannot stream inside a batch array: send the request by itself")
        if reply.id == NULL:
            raise CannotStream("cannot stream under the id null: tokens are told apart by the request's id")
        if any(other.is_stream and other.id == reply.id for other in connection.replies):
            raise CannotStream(f"cannot stream under the id {(reply.id or b'').decode()}: a stream of it runs already")

    def _check_poison(self, digest: bytes) -> None:
        left_s = self.quarantine.left_s(digest, self._clock.monotonic())
        if not left_s:
            return
        text = "cannot run this request: it ended every process that ran it, and is kept out for a while"
        raise PoisonRequest(text, retry_after_ms=None, quarantined_s=round(left_s, 1))

    def _answered(self, key: tuple[str, str], digest: bytes, reply: Reply, deadline_ms: int | None) -> bool:
        """Whether *key* is known: then *reply* joins the job, or gets the answer that is kept."""
        found = self.answers.lookup(key, self._clock.monotonic())
        if found is None:
            return False
        if found[0] != digest:
            raise KeyConflict(f"cannot use request_key {key[1]!r}: another payload was sent under it")
        known = found[1]
        fragments = known.fragments
        if isinstance(known, Answer):
            for fragment in fragments:
                reply.token(fragment)
            (reply.error if known.is_error else reply.result)(known.body)
            return True
        for fragment in list(fragments):
            reply.token(fragment)
        if reply.is_done:  # its client did not read them
            return True
        self._audience.join(known, reply, deadline_ms)
        return True

    def _deserted(self, job: Job) -> None:
        """Nobody listens to *job* any more."""
        if job.params.request_key:
            self.answers.forget((job.principal, job.params.request_key), job)
        job.home.abort(job)

    def finish(self, job: Job, body: bytes, attachments: Sequence[bytes], is_error: bool, is_retryable: bool) -> None:
        """*job* is answered: tell all who listen, keep the answer for its key."""
        if job.pausing is not Pausing.NOT:
            job.home.pauses.end(job)
        key = (job.principal, job.params.request_key) if job.params.request_key else None
        if key is not None:
            if is_retryable or attachments or job.is_aborting:
                self.answers.forget(key, job)
            else:
                now_s = self._clock.monotonic()
                self.answers.finish(key, job, job.fragments, body, is_error=is_error, now_s=now_s)
        if is_error and job.charged >= POISON_DEATHS:
            self.quarantine.add(job.digest, self._clock.monotonic())
            self.on_poison(job, body)
        listeners, job.listeners = job.listeners, []
        for reply in listeners:
            self._audience.forget(reply)  # type: ignore[arg-type]
            if is_error:
                reply.error(body)
            else:
                reply.result(body, attachments)
        self._ended(job)

    def _ended(self, job: Job) -> None:
        self._live.pop(job.number, None)
        if not self._live and self.on_quiet is not None:
            self.on_quiet()

    # rkllm.abort, rkllm.is_running

    def abort(self, params: AbortParams, connection: Connection) -> bool:
        """Whether something was aborted."""
        check_abort(params)
        if params.request is msgspec.UNSET:
            aborted = [job.home.abort(job) for job in self._named(params, connection)]
        else:
            found = self._audience.of(connection, bytes(params.request))
            aborted = [self._audience.abort(reply) for reply in found]
        return any(aborted)

    def _named(self, params: AbortParams | PauseParams | ResumeParams, connection: Connection) -> set[Job]:
        """The jobs that *params* name and that are not over.  Raises InvalidParams."""
        check_abort(params)
        if params.request_key is not None:
            found = self.answers.lookup((connection.principal, params.request_key), self._clock.monotonic())
            return {found[1]} if found is not None and isinstance(found[1], Job) else set()
        return set(self._audience.of(connection, bytes(params.request)).values())  # type: ignore[arg-type]

    # rkllm.pause, rkllm.resume

    def pause(self, params: PauseParams, reply: Reply) -> None:
        """Pause a request; the reply comes when it is paused, or over.  Raises InvalidParams, NotSupported."""
        jobs = self._named(params, reply.connection)
        if not jobs:
            reply.result(b'{"paused":false}')
        for job in jobs:  # one: an id of a connection, or a key, names no more
            job.home.pauses.pause(job, lambda is_paused: reply.result(msgspec.json.encode({"paused": is_paused})))
            return

    def resume(self, params: ResumeParams, connection: Connection) -> bool:
        """Whether something went on.  Raises InvalidParams, NotSupported."""
        if "\0" in params.prompt:
            raise InvalidParams("cannot pass a prompt with U+0000: the runtime reads it as the end of the text")
        resumed = [job.home.pauses.resume(job, params.prompt) for job in self._named(params, connection)]
        return any(resumed)

    def is_running(self, params: Any, connection: Connection) -> bool:
        """From rkvisor's own knowledge: RKLLM's answer changes its sense between releases."""
        if params.request is not msgspec.UNSET:
            return bool(self._audience.of(connection, bytes(params.request)))
        if params.model is not None:
            self._dispatcher(params.model)
        return any(params.model in (None, job.model) for job in self._live.values())

    def abort_all(self) -> None:
        """End everything that still runs, for the last moment of a shutdown."""
        for job in list(self._live.values()):
            job.home.fail(job, cut_off(job, SHUTDOWN_RETRY_MS))

    def default_param(self, model: str) -> dict[str, Any]:
        """What ``rkllm_createDefaultParam`` of the model's runtime gave."""
        dispatcher = self._dispatcher(model)
        for slot in dispatcher.slots:
            if slot.process is not None and slot.process.ready is not None:
                return slot.process.ready.default_param
        text = f"cannot tell the defaults of model {model!r}: no worker of it has loaded its runtime yet"
        raise ModelUnavailable(text, retry_after_ms=1000, component=model)
