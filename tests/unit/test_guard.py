"""Who counts as hung apart from a run: a worker that answers no ping, a control call that never ends."""

from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import Any

import pytest

from harness.still import StillLoop, StillProcess
from rkvisor.protocol.link import Kind
from rkvisor.supervisor.config import ModelSection
from rkvisor.supervisor.workers.guard import MAX_UNANSWERED, PING_S, Guard
from rkvisor.supervisor.workers.lifecycle import Phase

SECTION = ModelSection(runtime="sim", path="builtin:tiny", control_timeout_s=20.0)


class Sender:
    """Answers each ping, unless the process is deaf."""

    def __init__(self) -> None:
        self.deaf: set[int] = set()

    def send(self, process: Any, kind: Kind, *bodies: bytes, job: int = 0) -> bool:
        if kind == Kind.PING and process.pid not in self.deaf:
            process.unanswered = 0
        return True


class Process(StillProcess):
    """Tells when it is dumped."""

    def dump(self, wait_s: float) -> None:
        self.signals += [int(signal.SIGABRT), int(signal.SIGKILL)]


def up(process: Process, job: Any = None) -> Any:
    return SimpleNamespace(name="demo:0", process=process, phase=Phase.RUNNING, job=job, trouble="")


@pytest.fixture
def loop() -> StillLoop:
    return StillLoop()


@pytest.fixture
def sender() -> Sender:
    return Sender()


def guarded(loop: StillLoop, sender: Sender, slots: list[Any], standbys: list[Any]) -> Guard:
    guard = Guard(loop, loop, SECTION, sender, 1.0)  # type: ignore[arg-type]
    guard.attach(slots, standbys)
    return guard


def test_who_answers_its_pings_is_left_alone(loop: StillLoop, sender: Sender) -> None:
    slot, standby = up(Process(1)), Process(2)
    guarded(loop, sender, [slot], [standby])
    loop.advance(100 * PING_S)
    assert (slot.process.signals, standby.signals, slot.trouble) == ([], [], "")


def test_a_worker_and_a_standby_that_answer_no_ping_are_ended(loop: StillLoop, sender: Sender) -> None:
    slot, standby = up(Process(1)), Process(2)
    sender.deaf = {1, 2}
    guarded(loop, sender, [slot], [standby])
    loop.advance((MAX_UNANSWERED + 0.5) * PING_S)
    assert slot.process.signals == standby.signals == []
    loop.advance(PING_S)
    assert slot.process.signals == standby.signals == [signal.SIGABRT, signal.SIGKILL]
    assert slot.trouble == "hung: its socket is not served"


def test_a_standby_that_still_loads_is_not_pinged(loop: StillLoop, sender: Sender) -> None:
    standby = Process(2)
    standby.ready = None  # type: ignore[assignment]
    sender.deaf = {2}
    guarded(loop, sender, [], [standby])
    loop.advance(100 * PING_S)
    assert standby.signals == []


def test_a_control_call_that_takes_longer_than_its_budget_ends_its_process(loop: StillLoop, sender: Sender) -> None:
    slot, standby = up(Process(1)), Process(2)
    for process in (slot.process, standby):
        process.owed, process.owed_s = 1, loop.now_s
    guarded(loop, sender, [slot], [standby])
    loop.advance(20.0)
    assert slot.process.signals == standby.signals == []
    loop.advance(PING_S)
    assert slot.process.signals == standby.signals == [signal.SIGABRT, signal.SIGKILL]
    assert slot.trouble == "hung: a control call took more than 20 s (control_timeout_s)"


def test_a_call_that_waits_behind_a_run_is_not_late(loop: StillLoop, sender: Sender) -> None:
    slot = up(Process(1), job=SimpleNamespace(number=7))
    slot.process.begun = 7
    slot.process.owed, slot.process.owed_s = 1, loop.now_s
    guarded(loop, sender, [slot], [])
    loop.advance(1000.0)
    assert slot.process.signals == []


def test_a_call_before_a_run_that_has_not_begun_may_be_late(loop: StillLoop, sender: Sender) -> None:
    slot = up(Process(1), job=SimpleNamespace(number=7))
    slot.process.begun = 6
    slot.process.owed, slot.process.owed_s = 1, loop.now_s
    guarded(loop, sender, [slot], [])
    loop.advance(20.0 + PING_S)
    assert slot.process.signals == [signal.SIGABRT, signal.SIGKILL]
