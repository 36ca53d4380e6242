"""What ``make bench`` makes of its values.  The measurements themselves are not run here."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """The entry, as ``make bench`` starts it."""
    sys.path.insert(0, str(BENCH))
    try:
        return importlib.import_module("run")
    finally:
        sys.path.remove(str(BENCH))


@pytest.mark.parametrize(
    ("share", "value"), [(0.0, 1), (0.01, 1), (0.5, 50), (0.51, 51), (0.99, 99), (0.991, 100), (1.0, 100)]
)
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(
    bench: ModuleType, share: float, value: float
) -> None:
    record = importlib.import_module("measure.record")
    assert record.percentile(list(range(100, 0, -1)), share) == value


def test_a_goal_is_met_at_its_limit_and_missed_above_it(bench: ModuleType) -> None:
    goal = importlib.import_module("measure.record").Goal
    assert goal("x", 6.0, 6.0, "ms", "≤ 6 ms").is_met
    assert not goal("x", 6.01, 6.0, "ms", "≤ 6 ms").is_met


def test_the_table_says_what_was_missed_and_counts_what_was_met(bench: ModuleType) -> None:
    record = importlib.import_module("measure.record")
    one = record.Measurement("n", "Title", "how")
    one.add("rkvisord", "ms", [1.0, 2.0, 3.0])
    one.goals = [record.Goal("fast", 2, 6, "ms", "≤ 6 ms"), record.Goal("small", 9, 6, "MB", "≤ 6 MB")]
    text = bench.table.render([one])
    assert "MISSED small: 9.00 MB (goal ≤ 6 MB)" in text
    assert "met    fast: 2.00 ms (goal ≤ 6 ms)" in text
    assert "1 of 2 goals" in text


def test_a_result_keeps_every_value_of_a_short_series_and_a_sample_of_a_long_one(bench: ModuleType) -> None:
    record = importlib.import_module("measure.record")
    short = record.Series("rkvisord", "ms", [3.0, 1.0]).to_object()
    long = record.Series("rkvisord", "ms", [float(i) for i in range(5000)]).to_object()
    assert (short["values"], short["values_are"]) == ([3.0, 1.0], "all")
    assert (long["n"], long["max"], len(long["values"])) == (5000, 4999.0, record.KEPT_VALUES)


def test_a_series_without_values_is_a_remark_and_no_row(bench: ModuleType) -> None:
    record = importlib.import_module("measure.record")
    one = record.Measurement("n", "Title", "how")
    assert one.add("circus", "ms", []) is None
    assert one.series == []
    assert one.remarks == ["circus: no values"]


def test_every_measurement_that_can_be_asked_for_says_how_it_is_done(bench: ModuleType) -> None:
    for name in bench.NAMES:
        module = importlib.import_module(f"measure.{name}")
        assert callable(module.measure)
        assert len(module.HOW) > 100
    readme = (BENCH / "README.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in readme for name in bench.NAMES)
