"""What the clients of a paused request hear, and when: with a loop that stands still."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from harness.still import StillLoop, StillProcess
from rkvisor.protocol.link import Kind
from rkvisor.protocol.run import RunParams
from rkvisor.supervisor.requests.jobs import Job, JobState, Pausing
from rkvisor.supervisor.requests.pauses import Pauses
from rkvisor.supervisor.requests.progress import PROGRESS_S, Progress

LIMIT_S = 25.0


class World:
    """A job that runs.  heard: phase, place and what is left.  asked: who wanted the pause, and what it was told."""

    def __init__(self) -> None:
        self.loop: Any = StillLoop()
        self.heard: list[tuple[str, int, float | None]] = []
        self.asked: list[bool] = []
        self.aborted: list[Job] = []
        self.requeued: list[Job] = []
        self.sent: list[Kind] = []
        guard: Any = SimpleNamespace(begin=lambda *_: None, end=lambda _: None)
        self.progress = Progress(self.loop, lambda: self.pauses.words())
        self.pauses = Pauses(self.loop, self._send, guard, self.progress, LIMIT_S, self._abort, self.requeued.append)
        self.slot: Any = SimpleNamespace(process=StillProcess(1))
        self.slot.process.ready.family = "F5"
        self.job = Job(
            number=1,
            model="demo",
            params=RunParams(model="demo", prompt="a"),
            raw_params=b"{}",
            known_digest=None,
            principal="local",
            connection=None,
            received_s=0.0,
            state=JobState.RUNNING,
            worker=self.slot,
        )
        listener: Any = SimpleNamespace(progress=lambda *word: self.heard.append(word))
        self.job.listeners.append(listener)

    def _send(self, process: Any, kind: Kind, *body: bytes, job: int) -> bool:
        self.sent.append(kind)
        return True

    def _abort(self, job: Job) -> bool:
        self.aborted.append(job)
        self.pauses.end(job)
        return True

    def pause(self) -> None:
        self.pauses.pause(self.job, self.asked.append)
        self.pauses.on_paused(self.slot, self.job, self.job.pause_number)


@pytest.fixture
def world() -> World:
    return World()


def test_a_pause_is_told_when_it_is_one_and_then_every_ten_seconds_with_what_is_left(world: World) -> None:
    world.pauses.pause(world.job, world.asked.append)
    world.loop.advance(PROGRESS_S)
    assert (world.heard, world.asked) == ([], [])
    world.pauses.on_paused(world.slot, world.job, world.job.pause_number)
    assert (world.heard, world.asked) == ([("paused", 0, LIMIT_S)], [True])
    world.loop.advance(PROGRESS_S)
    world.loop.advance(PROGRESS_S)
    assert world.heard[1:] == [("paused", 0, 15.0), ("paused", 0, 5.0)]


def test_a_resume_is_told_and_nothing_more(world: World) -> None:
    world.pause()
    assert world.pauses.resume(world.job, "") is True
    world.loop.advance(10 * LIMIT_S)
    assert world.heard == [("paused", 0, LIMIT_S), ("resumed", 0, None)]
    assert (world.sent, world.aborted) == ([Kind.PAUSE, Kind.RESUME], [])


def test_a_request_that_was_resumed_before_it_paused_hears_nothing(world: World) -> None:
    world.pauses.pause(world.job, world.asked.append)
    assert world.pauses.resume(world.job, "") is True
    world.pauses.on_paused(world.slot, world.job, world.job.pause_number)
    world.loop.advance(10 * LIMIT_S)
    assert (world.heard, world.asked) == ([], [False])


def test_the_end_of_a_pauses_time_is_told_before_the_request_is_aborted(world: World) -> None:
    world.pause()
    world.loop.advance(LIMIT_S)
    assert world.heard == [("paused", 0, LIMIT_S), ("paused", 0, 15.0), ("paused", 0, 5.0), ("pause_timeout", 0, None)]
    assert world.aborted == [world.job]
    world.loop.advance(10 * LIMIT_S)
    assert len(world.heard) == 4


def test_what_is_being_aborted_is_not_resumed(world: World) -> None:
    world.pause()
    world.job.is_aborting = True
    assert world.pauses.resume(world.job, "") is False
    assert (world.heard, world.sent) == ([("paused", 0, LIMIT_S)], [Kind.PAUSE])


def test_one_whose_process_died_is_still_told_to_be_paused_and_its_time_runs_on(world: World) -> None:
    world.pause()
    assert world.pauses.hold(world.job)
    assert world.job.pausing is Pausing.ALONE
    world.loop.advance(PROGRESS_S)
    assert world.heard[-1] == ("paused", 0, 15.0)
    assert world.pauses.resume(world.job, "") is True
    assert (world.heard[-1], world.requeued) == (("resumed", 0, None), [world.job])
    world.loop.advance(LIMIT_S)
    assert world.aborted == []


def test_one_that_ends_while_it_is_paused_hears_no_resume(world: World) -> None:
    world.pause()
    world.pauses.end(world.job)
    world.loop.advance(10 * LIMIT_S)
    assert (world.heard, world.aborted) == ([("paused", 0, LIMIT_S)], [])
