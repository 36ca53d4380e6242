"""The first sign of a death: nothing goes to a dying process any more; what it ran goes on where somebody is idle."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from harness.still import StillLoop, StillProcess
from rkvisor.protocol.link import Kind
from rkvisor.protocol.run import RunParams
from rkvisor.supervisor.config import ModelSection
from rkvisor.supervisor.requests.dispatcher import Dispatcher
from rkvisor.supervisor.requests.endings import Endings
from rkvisor.supervisor.requests.faults import FaultWindow
from rkvisor.supervisor.requests.jobs import Job, JobState
from rkvisor.supervisor.workers.lifecycle import Phase, Ready, Start
from rkvisor.supervisor.workers.processes import Exit
from rkvisor.supervisor.workers.slot import Slot

SECTION = ModelSection(runtime="sim", path="builtin:tiny", workers=2)
SEGV = Exit(status=-11, note=b"")


class Nothing:
    """Takes every call."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


class Keeper(Nothing):
    """Fills slots with processes that do nothing, and passes on what slots tell.

    phases: each that a slot came into, and how many requests had been answered by then.  lost: what each process that
    died had been given."""

    dispatcher: Dispatcher

    def __init__(self, answers: list[bytes]) -> None:
        self.pids = iter(range(1, 100))
        self.answers = answers
        self.phases: list[tuple[Phase, int]] = []
        self.lost: list[Job | None] = []

    def take(self, slot: Slot) -> Any:
        return StillProcess(next(self.pids))

    def on_phase(self, slot: Slot, before: Phase) -> None:
        self.phases.append((slot.phase, len(self.answers)))
        self.dispatcher.on_phase(slot)

    def on_sign(self, slot: Slot) -> None:
        self.dispatcher.on_sign(slot)

    def on_death(self, slot: Slot, process: Any, job: Job | None, *what: Any, **how: Any) -> None:
        self.lost.append(job)
        self.dispatcher.on_death(slot, process, job, *what, **how)


class World:
    """Two workers that are idle.  sent: numbers of the jobs that processes were told to run, by pid."""

    def __init__(self) -> None:
        loop: Any = StillLoop()
        self.sent: list[tuple[int, int]] = []
        self.answers: list[bytes] = []
        self.loop, self.faults, nothing = loop, FaultWindow(2.0), Nothing()
        endings = Endings(loop, self.faults, lambda job, body, *_: self.answers.append(body), lambda: None)
        self.dispatcher = Dispatcher(
            loop,
            loop,
            "demo",
            SECTION,
            self.faults,
            endings,
            nothing,
            self._send,
            nothing,  # type: ignore[arg-type]
        )
        self.keeper = Keeper(self.answers)
        self.keeper.dispatcher = self.dispatcher
        self.slots = [Slot(loop, loop, lambda: 0.0, f"demo:{i}", SECTION, self.keeper) for i in range(2)]
        self.dispatcher.attach(self.slots, [])
        for slot in self.slots:
            self.bring_up(slot)

    def bring_up(self, slot: Slot) -> None:
        slot.feed(Start())
        slot.feed(Ready())

    def _send(self, process: Any, kind: Kind, *bodies: bytes, job: int = 0) -> bool:
        if kind == Kind.RUN:
            self.sent.append((process.pid, job))
            process.begun = process.last_job = job
        return True

    def submit(self, number: int, retry: str = "auto") -> Job:
        params = RunParams(model="demo", prompt="x", retry=retry)  # type: ignore[arg-type]
        job = Job(
            number=number, model="demo", params=params, raw_params=b"{}", known_digest=None, principal="local",
            connection=None, received_s=0.0,
        )  # fmt: skip
        self.dispatcher.submit(job)
        return job

    def doom(self, slot: Slot) -> Any:
        process: Any = slot.process
        process.is_doomed = True
        slot.on_sign(process)
        return process


@pytest.fixture
def world() -> World:
    return World()


def test_what_a_dying_process_ran_goes_on_at_once_where_somebody_is_idle(world: World) -> None:
    job = world.submit(7)
    dying = world.doom(world.slots[0])
    assert world.sent == [(1, 7), (2, 7)]
    assert (job.state, job.worker, job.charged, job.resumed) == (JobState.RUNNING, world.slots[1], 1, 1)
    world.slots[0].on_exit(dying, SEGV)
    assert (job.charged, world.sent, world.answers) == (1, [(1, 7), (2, 7)], []), "one death is charged once"
    assert world.dispatcher.recovery.breaker.failures == 0
    assert world.keeper.lost == [job], "a report of the crash tells of it"


def test_the_next_death_of_a_worker_counts_whatever_became_of_the_one_before(world: World) -> None:
    world.submit(7)
    world.slots[0].on_exit(world.doom(world.slots[0]), SEGV)
    world.loop.advance(1.0)
    world.slots[0].feed(Ready())
    world.slots[0].on_exit(world.slots[0].process, SEGV)
    assert (world.keeper.lost[-1], world.dispatcher.recovery.breaker.failures) == (None, 1)


def test_without_an_idle_worker_it_waits_until_the_process_is_gone(world: World) -> None:
    job, other = world.submit(7), world.submit(8)
    dying = world.doom(world.slots[0])
    assert job.state is JobState.RUNNING
    world.slots[0].on_exit(dying, SEGV)
    assert (job.state, job.charged, other.state) == (JobState.QUEUED, 1, JobState.RUNNING)


def test_an_idle_process_that_is_dying_gets_no_request(world: World) -> None:
    dying = world.doom(world.slots[0])
    world.submit(7)
    world.submit(8)
    assert world.sent == [(2, 7)]
    world.slots[0].on_exit(dying, SEGV)
    assert world.dispatcher.recovery.breaker.failures == 1, "a death without a request"


def test_a_result_that_arrives_in_time_is_the_answer_and_frees_nobody(world: World) -> None:
    world.submit(7)
    world.submit(8)
    world.doom(world.slots[0])
    world.dispatcher.on_message(world.slots[0], SimpleNamespace(kind=Kind.RESULT, job=7), [b"", b"", b"{}"])  # type: ignore[arg-type]
    assert world.answers == [b"{}"]
    world.submit(9)
    assert [job for _, job in world.sent] == [7, 8]


def test_a_worker_that_is_filled_again_gets_requests_again(world: World) -> None:
    dying = world.doom(world.slots[0])
    world.slots[0].on_exit(dying, SEGV)
    world.loop.advance(1.0)
    world.slots[0].feed(Ready())
    world.submit(7)
    world.submit(8)
    assert sorted(pid for pid, _ in world.sent) == [2, 3]


def test_a_client_whose_request_is_lost_is_told_before_its_slot_changes(world: World) -> None:
    world.submit(7, retry="never")
    world.submit(8)
    dying = world.doom(world.slots[0])
    world.keeper.phases.clear()
    world.slots[0].on_exit(dying, SEGV)
    assert b"WORKER_CRASHED" in world.answers[0]
    assert world.keeper.phases == [(Phase.BACKOFF, 1)]
