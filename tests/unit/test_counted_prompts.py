"""The time that a prompt may take goes by its length as the worker counted it (design §5)."""

from __future__ import annotations

from typing import Any

import pytest

from harness.still import StillLoop, StillProcess
from rkvisor.protocol.link import Kind
from rkvisor.protocol.run import RunParams
from rkvisor.supervisor.config import ModelSection
from rkvisor.supervisor.requests.jobs import Job
from rkvisor.supervisor.workers.budgets import first_token_budget_s
from rkvisor.supervisor.workers.guard import Guard, prompt_tokens
from rkvisor.supervisor.workers.lifecycle import Phase

SECTION = ModelSection(runtime="sim", path="builtin:tiny")


class Sender:
    """Keeps what was sent; answers pings."""

    def __init__(self) -> None:
        self.sent: list[Kind] = []

    def send(self, process: Any, kind: Kind, *bodies: bytes, job: int = 0) -> bool:
        self.sent.append(kind)
        process.unanswered = 0
        return True

    @property
    def has_aborted(self) -> bool:
        return Kind.ABORT in self.sent


def job(size_bytes: int = 300, **members: Any) -> Job:
    params = RunParams(model="demo", **({"prompt": "x"} | members))
    return Job(
        number=1,
        model="demo",
        params=params,
        raw_params=b"x" * size_bytes,
        known_digest=None,
        principal="local",
        connection=None,
        received_s=0.0,
    )


def test_what_the_worker_counted_goes_before_any_estimate() -> None:
    one = job(300)
    assert prompt_tokens(one) == 100
    one.prompt_tokens = 40
    assert prompt_tokens(one) == 40
    one.ids = [1, 2]
    assert prompt_tokens(one) == 42, "what was streamed is prefilled again"
    assert prompt_tokens(job(300, prompt=None, tokens=[5, 6, 7])) == 3


class Slot:
    """One that runs."""

    def __init__(self, of: Job):
        self.name, self.phase, self.trouble = "demo:0", Phase.RUNNING, ""
        self.process, self.job = StillProcess(1), of


class World:
    """One run, just begun, of a prompt that is estimated at 100 tokens.  No callback ever comes."""

    def __init__(self) -> None:
        self.loop, self.sender, self.job = StillLoop(), Sender(), job(300)
        self.guard = Guard(self.loop, self.loop, SECTION, self.sender, 1.0)  # type: ignore[arg-type]
        self.slot: Any = Slot(self.job)
        self.guard.attach([self.slot], [])
        self.guard.begin(self.slot, self.job)

    def counted(self, tokens: int) -> None:
        self.job.prompt_tokens = tokens
        self.guard.measured(self.slot, self.job)


@pytest.mark.parametrize("late_s", [0.0, 11.0], ids=["before anybody looked", "after the first look"])
def test_a_longer_prompt_than_was_thought_gets_its_time(late_s: float) -> None:
    world = World()
    world.loop.advance(late_s)
    world.counted(1000)
    world.loop.advance(first_token_budget_s(1000) - late_s - 0.1)
    assert not world.sender.has_aborted
    world.loop.advance(0.2)
    assert world.sender.has_aborted


@pytest.mark.parametrize("late_s", [0.0, 11.0], ids=["before anybody looked", "after the first look"])
def test_a_shorter_one_is_missed_sooner(late_s: float) -> None:
    world = World()
    world.loop.advance(late_s)
    world.counted(50)
    world.loop.advance(first_token_budget_s(50) - late_s + 0.1)
    assert world.sender.has_aborted


def test_a_count_about_a_run_that_is_over_changes_nothing() -> None:
    world = World()
    world.guard.end(world.slot)
    world.counted(50)
    world.loop.advance(100)
    assert not world.sender.has_aborted
