"""``python -P -m chaos.run``: plays a schedule, prints a line for each scenario, and how to play it again."""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from chaos.beheading import Beheading
from chaos.drill import Drill
from chaos.schedule import BEHEADING, KINDS, Scenario, schedule
from chaos.subject import Subject
from harness import processes

COUNT = 1000
#: Scenarios before memory counts: Python's heap finds its size.
WARM_UP = 20
#: What rkvisord may grow by after that.  Measured: requests cost nothing; each death about 5 KB until SQLite's page
#: cache is full (2 MiB, some 400 deaths), then less than 1 KB; all in all 4.6 MB over 900 scenarios.
GROWTH_FREE_BYTES = 6 << 20
GROWTH_BYTES = 2048


@dataclass(slots=True)
class Report:
    """What a run found.  anon_bytes: private memory of rkvisord after the warm-up, and at the end."""

    seed: int
    failures: list[tuple[Scenario, list[str]]] = field(default_factory=list)
    played: int = 0
    rescues: int = 0
    anon_bytes: tuple[int, int] = (0, 0)
    measured: int = 0

    @property
    def growth(self) -> str:
        """What is wrong with its memory, or ""."""
        grown = self.anon_bytes[1] - self.anon_bytes[0]
        allowed = GROWTH_FREE_BYTES + GROWTH_BYTES * self.measured
        return "" if grown <= allowed else f"rkvisord grew by {grown} bytes in {self.measured} scenarios"


def selected(seed: int, count: int, only: str | None, one: int | None) -> Iterator[Scenario]:
    """The scenarios to play: the first *count*, of those the ones that were asked for."""
    if one is not None:
        return islice(schedule(seed), one, one + 1)
    return (scenario for scenario in islice(schedule(seed), count) if only in (None, scenario.kind))


def play(seed: int, scenarios: Iterable[Scenario], folder: Path) -> Report:
    """Play *scenarios*; prints as it goes.  A subject that did not recover is replaced, so that the rest counts."""
    report = Report(seed)
    subject = Subject(folder)
    try:
        for scenario in scenarios:
            began_s = time.monotonic()
            problems = _play_one(subject, scenario, seed)
            print(f"{'FAIL' if problems else 'ok'}  {time.monotonic() - began_s:5.2f} s  {scenario.line()}", flush=True)
            if problems:
                report.failures.append((scenario, problems))
                for problem in problems:
                    print(f"      {problem}")
                print(f"      again: {command(seed, scenario)}", flush=True)
                if subject.settle():
                    subject.restart()
            report.played += 1
            if report.played == WARM_UP:
                report.anon_bytes = (processes.private_bytes(subject.pid), 0)
        if report.played > WARM_UP:
            report.measured = report.played - WARM_UP
            report.anon_bytes = (report.anon_bytes[0], processes.private_bytes(subject.pid))
    finally:
        report.rescues = subject.rescues
        subject.close()
    return report


def _play_one(subject: Subject, scenario: Scenario, seed: int) -> list[str]:
    key = f"s{seed}n{scenario.number}x"
    if scenario.kind == BEHEADING:
        return Beheading(subject, scenario, key).run()
    return Drill(subject, scenario, key).run()


def command(seed: int, scenario: Scenario) -> str:
    """The command line that plays it again."""
    return f"PYTHONPATH=tests python -P -m chaos.run --seed {seed} --scenario {scenario.number}"


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 when everything held, 1 when something did not."""
    parser = argparse.ArgumentParser(prog="chaos.run", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="default: by chance")
    parser.add_argument("--count", type=int, default=COUNT, help=f"scenarios of the schedule (default {COUNT})")
    parser.add_argument("--only", choices=KINDS, help="of them, those of one kind")
    parser.add_argument("--scenario", type=int, metavar="K", help="only scenario K")
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that rkvisord is ended, too
    print(f"chaos: seed {args.seed}; again: PYTHONPATH=tests python -P -m chaos.run --seed {args.seed}", flush=True)
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="rkc") as folder:
        report = play(args.seed, selected(args.seed, args.count, args.only, args.scenario), Path(folder))
        if report.failures:
            kept = Path(tempfile.gettempdir()) / f"rkvisord-chaos-{args.seed}.log"
            kept.write_bytes((Path(folder) / "rkvisord.log").read_bytes())
            print(f"log of rkvisord: {kept}")
    print(
        f"{report.played} scenarios in {time.monotonic() - began_s:.0f} s, {len(report.failures)} failed; "
        f"{report.rescues} workers were started by hand; private memory {report.anon_bytes[0]} → {report.anon_bytes[1]}"
    )
    if report.growth:
        print(report.growth)
    for scenario, _ in report.failures:
        print(f"  {scenario.line()}\n    {command(args.seed, scenario)}")
    return 1 if report.failures or report.growth else 0


if __name__ == "__main__":
    sys.exit(main())
