"""Questions to workers about their own memory: ``memory_tracker_status`` and the ``test_memory_*`` methods."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from rkvisor.protocol import link
from rkvisor.protocol.errors import InvalidParams, ModelUnavailable, WorkerCrashed
from rkvisor.protocol.link import Header, Kind
from rkvisor.protocol.memory_tests import (
    STRESS,
    ArraysParams,
    CleanupParams,
    LeakDetectionParams,
    TrackerParams,
    TrackerState,
    TrackerStatus,
)
from rkvisor.supervisor.clock import Clock
from rkvisor.supervisor.front.replies import Reply
from rkvisor.supervisor.workers.fleet import Fleet
from rkvisor.supervisor.workers.lifecycle import Phase
from rkvisor.supervisor.workers.pool import Pool
from rkvisor.supervisor.workers.processes import Process

STATUS = "memory_tracker_status"
NOT_INITIALISED = "Memory tracker not initialized"  # S0.19, to the letter


@dataclass(slots=True)
class _Question:
    """left: who has not answered, and the worker that it fills.  done: what the others said, by worker."""

    name: str
    reply: Reply
    left: dict[Process, str]
    done: dict[str, bytes] = field(default_factory=dict)
    error: bytes = b""


class Asking:
    """pools: by model name.  on_disturbed: told of a process whose KV cache a test takes away."""

    def __init__(self, clock: Clock, fleet: Fleet, pools: dict[str, Pool], on_disturbed: Callable[[Process], None]):
        self._clock = clock
        self._fleet = fleet
        self._pools = pools
        self._on_disturbed = on_disturbed
        self._numbers = itertools.count(1)
        self._open: dict[int, _Question] = {}
        fleet.on_answer = self.on_answer

    def tracker_status(self, params: TrackerParams, reply: Reply) -> None:
        """Ask every worker that is loaded; one that dies meanwhile is left out."""
        self._check_model(params.model)
        found = {
            slot.process: slot.name
            for name, pool in self._pools.items()
            if params.model in (None, name)
            for slot in pool.slots
            if slot.process is not None and slot.process.ready is not None
        }
        self._ask(STATUS, b"{}", reply, found)

    def leak_detection(self, params: LeakDetectionParams, reply: Reply) -> None:
        """Raises InvalidParams, in the words of S0.4 where params miss."""
        self._require(params.iterations, params.operation)
        if params.operation != STRESS:
            raise InvalidParams(f"cannot test the operation {params.operation!r}: there is {STRESS!r}")
        self._test("test_memory_leak_detection", params, params.model, reply)

    def cleanup(self, params: CleanupParams, reply: Reply) -> None:
        """Raises InvalidParams."""
        self._require(params.allocate_test_buffers, params.force_cleanup)
        self._test("test_memory_cleanup", params, params.model, reply)

    def arrays(self, params: ArraysParams, reply: Reply) -> None:
        """Raises InvalidParams."""
        self._require(params.test_arrays)
        assert params.test_arrays is not None
        for name, values in params.test_arrays.items():
            if not values or any("\0" in one for one in values if isinstance(one, str)):
                raise InvalidParams(f"cannot test the array {name!r}: it is empty, or a string of it contains U+0000")
        self._test("test_array_memory_handling", params, params.model, reply)

    @staticmethod
    def _require(*values: object) -> None:
        if any(value is None for value in values):
            raise InvalidParams("Missing required parameters")

    def _check_model(self, model: str | None) -> None:
        if model is not None and model not in self._pools:
            raise InvalidParams(f"cannot ask workers of {model!r}: no such model is configured")

    def _test(self, name: str, params: msgspec.Struct, model: str | None, reply: Reply) -> None:
        """On one worker that is up, rather an idle one."""
        self._check_model(model)
        up = [
            slot
            for name, pool in self._pools.items()
            if model in (None, name)
            for slot in pool.slots
            if slot.process is not None and slot.phase is Phase.RUNNING
        ]
        if not up:
            raise ModelUnavailable("cannot test the memory of a worker: none is up", retry_after_ms=1000)
        chosen = next((slot for slot in up if slot.is_idle), up[0])
        assert chosen.process is not None
        self._on_disturbed(chosen.process)
        self._ask(name, msgspec.json.encode(params), reply, {chosen.process: chosen.name})

    def _ask(self, name: str, raw_params: bytes, reply: Reply, whom: dict[Process, str]) -> None:
        number = next(self._numbers)
        question = self._open[number] = _Question(name, reply, whom)
        body = link.encode_body(link.Call(name=name))
        for process in list(whom):
            if not self._fleet.send(process, Kind.ASK, body, raw_params, job=number):
                del whom[process]
        self._settle(number, question)

    def on_answer(self, process: Process, header: Header, parts: list[bytes]) -> None:
        """*process* answered: its result or its error."""
        question = self._open.get(header.job)
        if question is None or process not in question.left:
            return
        worker = question.left.pop(process)
        if parts[3]:
            question.error = parts[3]
        else:
            question.done[worker] = parts[2]
        self._settle(header.job, question)

    def on_gone(self, process: Process) -> None:
        """*process* is gone: it owes no answer any more."""
        for number, question in list(self._open.items()):
            if question.left.pop(process, None) is not None:
                self._settle(number, question)

    def _settle(self, number: int, question: _Question) -> None:
        if question.left:
            return
        del self._open[number]
        if question.error:
            question.reply.error(question.error)
        elif question.name == STATUS:
            question.reply.result(msgspec.json.encode(sum_up(question.done)))
        elif question.done:
            question.reply.result(next(iter(question.done.values())))
        else:
            error = WorkerCrashed(f"cannot finish {question.name}: the worker died of it", retry_after_ms=1000)
            question.reply.error(msgspec.json.encode(error.to_object(self._clock.wall())))


def sum_up(answers: dict[str, bytes]) -> TrackerStatus:
    """One status of what the workers said."""
    workers: dict[str, Any] = {name: msgspec.json.decode(body, type=TrackerState) for name, body in answers.items()}
    names = [name for name in TrackerState.__struct_fields__ if name != "tracker_initialized"]
    is_open = any(one.tracker_initialized for one in workers.values())
    return TrackerStatus(
        tracker_initialized=is_open,
        error=None if is_open else NOT_INITIALISED,
        workers=dict(sorted(workers.items())),
        **{name: sum(getattr(one, name) for one in workers.values()) for name in names},
    )
