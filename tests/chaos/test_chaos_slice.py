"""A slice of the chaos suite, for every run of the tests; ``make chaos`` plays all of it."""

import os
from itertools import islice
from pathlib import Path

import pytest

from chaos.run import command, play
from chaos.schedule import schedule

pytestmark = [pytest.mark.resilience, pytest.mark.timeout(900)]
#: Any other seed: RKVISOR_CHAOS_SEED=n.
SEED = int(os.environ.get("RKVISOR_CHAOS_SEED", "1"))
COUNT = 60


def test_sixty_scenarios_of_the_schedule_leave_no_request_unanswered_and_nothing_behind(tmp_path: Path) -> None:
    report = play(SEED, islice(schedule(SEED), COUNT), tmp_path)
    assert report.played == COUNT
    again = [f"{problems}: {command(SEED, scenario)}" for scenario, problems in report.failures]
    assert not again
