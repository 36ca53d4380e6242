"""Who is sampled, and how a life ends (supervisor/memory/sampler.py).  The process that is watched is this one."""

from __future__ import annotations

import os

import pytest

from harness.still import StillLoop
from rkvisor.supervisor.memory.history import History, Life
from rkvisor.supervisor.memory.probe import Probe
from rkvisor.supervisor.memory.sampler import Sampler, Target


class Room:
    """A sampler of whoever is in *roster*."""

    def __init__(self) -> None:
        self.clock, self.history = StillLoop(), History()
        self.roster: list[Target] = []
        self.seen: list[str] = []
        self.sampler = Sampler(
            self.clock,
            self.history,
            lambda: self.roster,
            lambda life, *_: self.seen.append(life.process),
            interval_s=5.0,
            look_interval_s=300.0,
        )

    def enter(self, process: str = "e:1", worker: str = "demo:0") -> None:
        self.roster.append(Target(worker, process, os.getpid()))
        self.sampler.tick()

    def done(self, process: str, ending: str) -> list[Life]:
        """Lives that are told of when *process* has ended so."""
        told: list[Life] = []
        self.sampler.gone(process, ending, told.append)
        self.sampler.start()
        self.sampler.close()
        return told


def test_a_process_that_is_gone_is_told_of_with_its_ending() -> None:
    room = Room()
    room.enter()
    (life,) = room.done("e:1", "SIGSEGV")
    assert (life.process, life.ending, life.last is not None) == ("e:1", "SIGSEGV", True)


def test_one_that_left_the_roster_before_it_was_gone_has_its_ending_all_the_same() -> None:
    """The old process of a recycling fills no worker any more, and needs some time to end."""
    room = Room()
    room.enter("e:1")
    room.roster.clear()
    room.enter("e:2")
    (life,) = room.done("e:1", "recycled: it leaks")
    assert (life.process, life.ending) == ("e:1", "recycled: it leaks")
    assert life.ended_s is not None


def test_nobody_is_told_of_a_process_that_was_never_seen() -> None:
    assert Room().done("e:9", "ended") == []


def test_a_process_that_may_not_be_read_is_told_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Probe, "count_descriptors", denied)
    lines: list[str] = []
    from loguru import logger

    number = logger.add(lambda message: lines.append(str(message)), level="WARNING")
    try:
        room = Room()
        room.enter()
        room.sampler.tick()
    finally:
        logger.remove(number)
    assert len(lines) == 1
    assert f"demo:0: cannot watch the memory of process {os.getpid()}" in lines[0]
    assert room.seen == []
