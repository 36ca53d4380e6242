"""What clients configured on a model: kept here, so that every worker of it has it, those that start later too.

A call goes to every loaded process of the model, in order with its requests; it counts when all of them did it, and is
kept then.  Where some did it and some could not, those that did take it back: the workers stay alike.  A process that
becomes ready is given everything that is kept before its first request; what it cannot take is told, by an event and
by ``model.info``.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from loguru import logger

from rkvisor.protocol import link, rkllm_log
from rkvisor.protocol.calls import (
    CallResult,
    ClearKvCacheParams,
    KvCacheSizes,
    LoadLoraParams,
    LoadPromptCacheParams,
    check_call,
    kept_as,
)
from rkvisor.protocol.errors import InvalidParams, ModelUnavailable, NotSupported, WorkerCrashed
from rkvisor.protocol.link import Header, Kind
from rkvisor.protocol.tensors import check_attachments
from rkvisor.supervisor.calls.configured import Call, Configured, undo_of
from rkvisor.supervisor.calls.owed import Owed
from rkvisor.supervisor.clock import Clock
from rkvisor.supervisor.confined import confine
from rkvisor.supervisor.front.replies import Reply
from rkvisor.supervisor.requests.pauses import held_by
from rkvisor.supervisor.workers.fleet import Fleet
from rkvisor.supervisor.workers.pool import Pool
from rkvisor.supervisor.workers.processes import Process

#: How long a status waits for the workers, seconds.
STATUS_S = 0.5


@dataclass(slots=True)
class _Pending:
    """A call under way.  sent: processes that were given it.  left: those that have not answered, and who they were.
    did: those that did it.  failed: error objects, by worker."""

    call: Call
    key: tuple[str, str] | None
    model: str
    reply: Reply
    sent: frozenset[Process]
    left: dict[Process, str]
    done: dict[str, Any] = field(default_factory=dict)
    did: list[Process] = field(default_factory=list)
    failed: dict[str, bytes] = field(default_factory=dict)


class Setup:
    """pools: by model name."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock, fleet: Fleet, pools: dict[str, Pool]):
        self._loop = loop
        self._clock = clock
        self._fleet = fleet
        self._pools = pools
        self._kept: dict[str, Configured] = {name: Configured() for name in pools}
        self._troubles: dict[Process, tuple[str, str]] = {}
        self._pending: dict[int, _Pending] = {}
        self._owed = Owed()
        self._sizes: dict[tuple[str, str], list[int]] = {}
        self._numbers = itertools.count(1)
        self.on_done: Callable[[Process, str], None] = lambda process, name: None
        self.on_configured: Callable[[Process], None] = lambda process: None
        self.on_trouble: Callable[[str, str, str], None] = lambda worker, name, text: None

    def call(self, name: str, params: Any, attachments: Sequence[bytes], reply: Reply) -> None:
        """Do *name* on every worker of the model; the reply comes when all have answered.

        Raises:
            InvalidParams, NotSupported: before any worker is asked.
            ModelUnavailable: no worker of the model is loaded.
        """
        check_call(params)
        check_attachments(params, attachments, is_batch=reply.batch is not None)
        pool = self._pools[params.model]
        workers = self._loaded(pool)
        if isinstance(params, ClearKvCacheParams) and params.start is not None:
            workers = self._paused(pool, params, reply) or workers
        if not workers:
            text = f"cannot call {name} for model {params.model!r}: no worker of it is loaded"
            raise ModelUnavailable(text, retry_after_ms=1000, component=params.model)
        self._check_supported(name, workers)
        if isinstance(params, LoadLoraParams):
            params = msgspec.structs.replace(params, path=confine(params.path, pool.section.lora_dir, "lora_dir"))
        elif isinstance(params, LoadPromptCacheParams):
            path = confine(params.path, pool.section.prompt_cache_dir, "prompt_cache_dir")
            params = msgspec.structs.replace(params, path=path)
        call = Call(name, msgspec.json.encode(params), tuple(attachments))
        pending = _Pending(call, kept_as(name, params), params.model, reply, frozenset(workers), workers)
        number = next(self._numbers)
        self._pending[number] = pending
        for process in list(workers):
            if not self._send(process, call, number):
                del workers[process]
        self._settle(number, pending)
        if call.name == "rkllm.get_kv_cache_size":
            self._loop.call_later(STATUS_S, self._answer_stale, number)

    @staticmethod
    def _loaded(pool: Pool) -> dict[Process, str]:
        found = {slot.process: slot.name for slot in pool.slots if slot.process is not None and slot.process.ready}
        waiting = [*pool.standbys, *(slot.replacement for slot in pool.slots if slot.replacement is not None)]
        return found | {process: f"{pool.name}:standby" for process in waiting if process.ready is not None}

    @staticmethod
    def _check_supported(name: str, workers: dict[Process, str]) -> None:
        function = name.replace(".", "_")
        for process, worker in workers.items():
            ready = process.ready
            if ready is not None and function not in ready.functions:
                text = f"the runtime of {worker} is of family {ready.family}, which has no {function}"
                raise NotSupported(f"cannot call {name}: {text}", component=worker)

    @staticmethod
    def _paused(pool: Pool, params: ClearKvCacheParams, reply: Reply) -> dict[Process, str]:
        """The processes that hold a paused request of this client: a range of the cache is cleared in theirs only.

        Raises InvalidParams where the request that *params* name is not paused.
        """
        wanted = None if params.request is msgspec.UNSET else bytes(params.request).strip()
        held = held_by(pool.slots, reply.connection.principal, wanted)
        if wanted is not None and not held:
            shown = wanted[:64].decode(errors="replace")  # what stays raw was not validated
            raise InvalidParams(f"cannot clear a range of the KV cache: the request {shown} is not paused")
        for _, job in held.values():
            job.is_edited = True
        return {process: worker for process, (worker, _) in held.items()}

    def _send(self, process: Process, call: Call, number: int) -> bool:
        if call.name != "rkllm.get_kv_cache_size":
            self.on_configured(process)
        body = link.encode_body(link.Call(name=call.name))
        if not self._fleet.send(process, Kind.CONTROL, body, call.raw_params, *call.attachments, job=number):
            return False
        self._owed.sent(process, call)
        return True

    def on_result(self, process: Process, header: Header, parts: list[bytes]) -> None:
        """*process* answered a call: its result or its error."""
        # A call that went well takes no lines: a request behind it may have written some already.
        said = process.take_log() if parts[3] else []
        call = self._owed.answered(process)
        if call is not None and not parts[3]:
            self.on_done(process, call.name)
        pending = self._pending.get(header.job)
        if pending is None or process not in pending.left:
            if parts[3]:
                self._trouble(process, rkllm_log.explained(parts[3], said))
            return
        worker = pending.left.pop(process)
        if parts[3]:
            pending.failed[worker] = rkllm_log.explained(parts[3], said)
        else:
            pending.done[worker] = msgspec.json.decode(parts[2])
            pending.did.append(process)
        self._settle(header.job, pending)

    def on_gone(self, process: Process) -> None:
        """*process* is gone: it owes no answer any more; its successor is given what is kept."""
        self._troubles.pop(process, None)
        poison = self._owed.gone(process, is_suspect=signal.SIGTERM not in process.sent and not process.died_running)
        if poison is not None:
            self._drop(process, poison)
        for number, pending in list(self._pending.items()):
            if pending.left.pop(process, None) is not None:
                self._settle(number, pending)

    def _settle(self, number: int, pending: _Pending) -> None:
        if pending.left:
            return
        del self._pending[number]
        if pending.failed:
            self._take_back(pending)
            pending.reply.error(self._error(pending))
            return
        if not pending.done:
            text = f"cannot finish {pending.call.name}: every worker that it was sent to died"
            error = WorkerCrashed(text, retry_after_ms=1000, component=pending.model)
            pending.reply.error(msgspec.json.encode(error.to_object(self._clock.wall())))
            return
        self._keep(pending)
        if pending.call.name == "rkllm.get_kv_cache_size":
            self._sizes.update({(pending.model, worker): sizes for worker, sizes in pending.done.items()})
            result: Any = KvCacheSizes(workers=pending.done)
        else:
            result = CallResult(workers=sorted(pending.done))
        pending.reply.result(msgspec.json.encode(result))

    def _answer_stale(self, number: int) -> None:
        """A status is not waited for: who does not answer is told of as it was, if that is known (S4.2)."""
        pending = self._pending.get(number)
        if pending is None or pending.failed:
            return
        known = {worker: self._sizes.get((pending.model, worker)) for worker in pending.left.values()}
        old = {worker: sizes for worker, sizes in known.items() if sizes is not None}
        if len(old) < len(known):
            return
        del self._pending[number]
        sizes = KvCacheSizes(workers={**old, **pending.done}, stale=sorted(old))
        pending.reply.result(msgspec.json.encode(sizes))

    def _drop(self, process: Process, call: Call) -> None:
        """Processes die of *call*: nobody is given it any more."""
        for model, configured in self._kept.items():
            if configured.drop(call):
                text = f"{call.name} is given to no worker of model {model} any more: processes died of it"
                logger.error("process {}: {}", process.pid, text)
                self.on_trouble(model, "POISON_REQUEST", text)

    def _take_back(self, pending: _Pending) -> None:
        """Some workers could not do the call: those that did are made as they were."""
        undo = undo_of(pending.call, pending.key)
        if undo is None:
            return
        for process in pending.did:
            self._send(process, undo, 0)

    @staticmethod
    def _error(pending: _Pending) -> bytes:
        """The error of the first worker that failed; where others did not, it says who they were."""
        error = msgspec.json.decode(next(iter(pending.failed.values())))
        failed, done = sorted(pending.failed), sorted(pending.done)
        error["data"]["failed"] = failed
        if done:
            error["message"] += f" (on {', '.join(failed)}; not on {', '.join(done)})"
            error["data"]["taken_back"] = done if undo_of(pending.call, pending.key) is not None else []
        return msgspec.json.encode(error)

    def _keep(self, pending: _Pending) -> None:
        """The call counts: new processes get it from now on, and those that became ready while it was under way."""
        if not self._kept[pending.model].count(pending.call, pending.key):
            return
        for process in self._loaded(self._pools[pending.model]):
            if process not in pending.sent:
                self._send(process, pending.call, 0)

    # What a process cannot take of it.

    def _trouble(self, process: Process, body: bytes) -> None:
        error = msgspec.json.decode(body)
        worker = self._name_of(process)
        text = f"cannot be configured as its model is: {error['message']}"
        logger.error("{}: process {} {}", worker, process.pid, text)
        self._troubles[process] = (worker.partition(":")[0], f"{worker}: {text}")
        self.on_trouble(worker, str(error["data"]["name"]), text)

    def _name_of(self, process: Process) -> str:
        known = (self._loaded(pool).get(process) for pool in self._pools.values())
        return next((name for name in known if name is not None), "?")

    def troubles(self, model: str) -> list[str]:
        """What workers of *model* could not take of its configuration."""
        return [text for name, text in self._troubles.values() if name == model]

    def on_loaded(self, model: str, process: Process) -> None:
        """*process* has loaded *model*: give it what the model is configured with."""
        process.take_log()  # what the load said explains no request
        for call in self._kept[model]:
            self._send(process, call, 0)
