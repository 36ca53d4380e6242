"""What is known of a life from one estimate to the next (supervisor/memory/judge.py)."""

from __future__ import annotations

import pytest

from harness.still import StillLoop
from rkvisor.supervisor.memory import judge as module
from rkvisor.supervisor.memory.attribution import Attribution
from rkvisor.supervisor.memory.estimate import Report, Verdict
from rkvisor.supervisor.memory.history import Life
from rkvisor.supervisor.memory.judge import Judge

BECAUSE = Attribution(cause="runtime", reasons=("heap +9 MB",))


def test_a_verdict_that_outlives_an_estimate_keeps_its_cause_and_changes_are_written_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, told = StillLoop(), []
    estimates: list[Verdict] = ["leaking", "leaking", "leaking", "clean", "clean", "clean"]
    life = Life(worker="demo:0", process="e:1", pid=1, began_s=0.0)
    judge = Judge(clock, lambda _: (), lambda _, known, before: told.append((before, known.standing.verdict)))
    causes = []
    for number, verdict in enumerate(estimates):
        report = Report(
            verdict=verdict, series=(), at_s=clock.now_s, requests=200 + 50 * number, span_s=9.0, samples=99
        )
        monkeypatch.setattr(module, "estimate", lambda *_, report=report: report)
        found = BECAUSE if verdict == "leaking" else Attribution()
        monkeypatch.setattr(module, "attribute", lambda *_, found=found, **__: found)
        known = judge.judge(life)
        assert known.report is not None
        causes.append((known.standing.verdict, known.report.cause, known.attribution.reasons))
        clock.advance(60.0)
    assert causes[2:5] == [("leaking", "runtime", BECAUSE.reasons)] * 3
    assert causes[5] == ("clean", "unknown", ())
    assert told == [("warming_up", "suspect"), ("suspect", "leaking"), ("leaking", "clean")]
    assert list(life.verdicts) == [(1000.0, "suspect"), (1120.0, "leaking"), (1300.0, "clean")]
