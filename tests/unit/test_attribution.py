"""Whose leak it is: the runtime's, rkvisor's, or nobody's that could be named (design §7)."""

from __future__ import annotations

from typing import Any

import pytest

from rkvisor.supervisor.memory.attribution import BLOCK_BYTES, attribute
from rkvisor.supervisor.memory.estimate import Rate, Report, SeriesEstimate, Verdict
from rkvisor.supervisor.memory.history import Look
from rkvisor.supervisor.memory.proc import Mappings

KB16 = 16384


def report(name: str = "anon", verdict: Verdict = "leaking", since_s: float = 0.0) -> Report:
    """16 KB, or one descriptor in ten, a request."""
    rate = 0.1 if name == "descriptors" else float(KB16)
    one = SeriesEstimate(
        name=name,
        verdict=verdict,
        value=1e8,
        per_request=Rate(value=rate),
        per_hour=Rate(value=rate * 3600),
        grown=rate * 1000,
        since_s=since_s,
    )
    return Report(verdict=verdict, series=(one,), at_s=1000.0, requests=1000, span_s=1000.0, samples=100)


def look(at_s: float, **changes: Any) -> Look:
    """A process that holds what it held at its beginning."""
    calm: dict[str, Any] = {
        "requests": int(at_s),
        "mappings": Mappings(size_bytes={"heap": 10_000_000}),
        "descriptors": {"socket": 6, "eventfd": 4},
        "buffers_bytes": 2000,
        "python_blocks": 50_000,
    }
    return Look(at_s=at_s, **(calm | changes))


def test_a_process_that_does_not_leak_has_no_cause() -> None:
    found = attribute(report(verdict="clean"), [look(0), look(1000)])
    assert (found.cause, found.reasons) == ("unknown", ())


GROWN = KB16 * 1000


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "runtime"),
        ({"buffers_bytes": 2000 + GROWN}, "rkvisor"),
        ({"buffers_bytes": 2000 + int(GROWN * 0.51)}, "rkvisor"),
        ({"buffers_bytes": 2000 + int(GROWN * 0.3)}, "unknown"),
        ({"buffers_bytes": 2000 + int(GROWN * 0.1)}, "runtime"),
        ({"python_blocks": 50_000 + GROWN // BLOCK_BYTES}, "rkvisor"),
        ({"python_blocks": 40_000}, "runtime"),
        ({"buffers_bytes": 0, "python_blocks": 0}, "runtime"),
        ({"buffers_bytes": None}, "unknown"),
    ],
)
def test_private_memory_is_whose_accounts_grew_with_it(changes: dict[str, Any], expected: str) -> None:
    assert attribute(report(), [look(0), look(1000, **changes)]).cause == expected


@pytest.mark.parametrize("name", ["file", "dmabuf"])
def test_mapped_memory_is_the_runtimes_and_its_class_is_named(name: str) -> None:
    grown = Mappings(size_bytes={"heap": 10_000_000, "memfd": GROWN})
    found = attribute(report(name), [look(0), look(1000, mappings=grown)])
    assert found.cause == "runtime"
    assert found.growth == {"memfd": GROWN}
    assert "memfd +16.4 MB" in found.reasons[0]


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ({"socket": 6, "eventfd": 4, "memfd": 100}, "runtime"),
        ({"socket": 6, "eventfd": 4, "dmabuf": 100}, "runtime"),
        ({"socket": 106, "eventfd": 4}, "rkvisor"),
        ({"socket": 36, "eventfd": 4, "memfd": 70}, "unknown"),
        ({"socket": 6, "eventfd": 4}, "unknown"),
    ],
)
def test_descriptors_are_whose_kind_grew(kinds: dict[str, int], expected: str) -> None:
    assert attribute(report("descriptors"), [look(0), look(1000, descriptors=kinds)]).cause == expected


def test_only_looks_since_the_growth_began_are_compared() -> None:
    """What a warm-up took from Python's allocator is not held against rkvisor."""
    looks = [look(0, python_blocks=0), look(500, python_blocks=400_000), look(1000, python_blocks=400_000)]
    assert attribute(report(since_s=400.0), looks).cause == "runtime"
    assert attribute(report(since_s=0.0), looks).cause == "rkvisor"


def test_without_two_looks_the_cause_is_unknown_and_it_is_said_why() -> None:
    for looks in ([], [look(10)]):
        found = attribute(report(), looks)
        assert found.cause == "unknown"
        assert "not looked at twice" in found.reasons[0]


def test_resident_pages_count_where_both_looks_have_them() -> None:
    def both(resident: int) -> Mappings:
        return Mappings(size_bytes={"anonymous": 999}, resident_bytes={"anonymous": resident})

    found = attribute(report(), [look(0, mappings=both(10)), look(1000, mappings=both(10 + GROWN))])
    assert found.growth == {"anonymous": GROWN}


def test_a_leak_in_descriptors_is_told_after_one_in_bytes() -> None:
    two = report("descriptors").series + report("anon").series
    both = Report(verdict="leaking", series=two, at_s=1.0, requests=1, span_s=1.0, samples=1)
    assert "Python" in attribute(both, [look(0), look(1000)]).reasons[0]


def test_what_rkvisord_holds_is_its_own() -> None:
    assert attribute(report(), [], is_worker=False).cause == "rkvisor"
