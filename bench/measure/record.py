"""What a measurement gives: series of values, goals met or missed, and how it was done.  Pure.

Nothing here asserts: a number that misses its goal is a row of the table, not a failure of the run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

#: Values of one series that go into the JSON; of more, evenly spaced ones of the sorted list.
KEPT_VALUES = 1000


def percentile(values: Sequence[float], share: float) -> float:
    """The least of *values* that at least *share* of them ([0, 1]) do not exceed.  Raises ValueError for no values."""
    if not values:
        raise ValueError("cannot take a percentile of no values")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(round(share * len(ordered), 9)) - 1)]


@dataclass(frozen=True, slots=True)
class Series:
    """Values of one kind.  who: rkvisor, or the peer.  what: "" where the measurement has only one quantity."""

    who: str
    unit: str
    values: Sequence[float]
    what: str = ""

    @property
    def p50(self) -> float:
        return percentile(self.values, 0.5)

    @property
    def p99(self) -> float:
        return percentile(self.values, 0.99)

    @property
    def label(self) -> str:
        return f"{self.who}: {self.what}" if self.what else self.who

    def to_object(self) -> dict[str, Any]:
        """For the JSON file."""
        n = len(self.values)
        kept = (
            self.values if n <= KEPT_VALUES else [sorted(self.values)[i * n // KEPT_VALUES] for i in range(KEPT_VALUES)]
        )
        return {
            "who": self.who,
            "what": self.what,
            "unit": self.unit,
            "n": n,
            "p50": round(self.p50, 4),
            "p99": round(self.p99, 4),
            "min": round(min(self.values), 4),
            "max": round(max(self.values), 4),
            "mean": round(sum(self.values) / n, 4),
            "values": [round(value, 4) for value in kept],
            "values_are": "all" if n <= KEPT_VALUES else f"{KEPT_VALUES} of the sorted list, evenly spaced",
        }


@dataclass(frozen=True, slots=True)
class Goal:
    """A number of design §10 that rkvisor shall stay at or below.  limit_text: as the design says it."""

    what: str
    value: float
    limit: float
    unit: str
    limit_text: str

    @property
    def is_met(self) -> bool:
        return self.value <= self.limit

    def to_object(self) -> dict[str, Any]:
        """For the JSON file."""
        return {
            "what": self.what,
            "value": round(self.value, 4),
            "limit": round(self.limit, 4),
            "unit": self.unit,
            "limit_text": self.limit_text,
            "met": self.is_met,
        }


@dataclass(slots=True)
class Measurement:
    """One measurement.  how: in words, precise enough to repeat it.  ratios: against the peers of the same run."""

    name: str
    title: str
    how: str
    series: list[Series] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def add(self, who: str, unit: str, values: Sequence[float], what: str = "") -> Series | None:
        """Add a series; one without values is a remark instead."""
        if not values:
            self.remarks.append(f"{who}: no values" + (f" of {what}" if what else ""))
            return None
        series = Series(who, unit, list(values), what)
        self.series.append(series)
        return series

    def find(self, who: str, what: str = "") -> Series | None:
        """The series of that name, or None."""
        return next((one for one in self.series if (one.who, one.what) == (who, what)), None)

    def to_object(self) -> dict[str, Any]:
        """For the JSON file."""
        return {
            "name": self.name,
            "title": self.title,
            "how": " ".join(self.how.split()),
            "goals": [goal.to_object() for goal in self.goals],
            "ratios": {key: round(value, 3) for key, value in self.ratios.items()},
            "series": [series.to_object() for series in self.series],
            "remarks": self.remarks,
        }
