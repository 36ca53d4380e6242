"""What is kept of the lives of workers, and how a sample is packed (design §7)."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rkvisor.supervisor.memory.history import (
    ENDED,
    LIVES,
    LOOKS,
    History,
    Life,
    Look,
    pack,
    past,
    unpack,
)
from rkvisor.supervisor.memory.proc import Mappings
from rkvisor.supervisor.memory.sample import Sample


def sample(at_s: float, requests: int = 0, **more: Any) -> Sample:
    return Sample(at_s=at_s, wall_s=at_s, requests=requests, rss_bytes=1, rss_anon_bytes=1, **more)


def life(worker: str = "demo:0", process: str = "e:1") -> Life:
    return Life(worker=worker, process=process, pid=1, began_s=0.0)


@given(st.data())
def test_a_packed_sample_is_the_sample(data: st.DataObject) -> None:
    values: dict[str, Any] = {}
    for field in fields(Sample):
        if field.name in ("at_s", "wall_s"):
            values[field.name] = data.draw(st.floats(0, 1e10))
        elif field.name == "is_idle":
            values[field.name] = data.draw(st.booleans())
        else:
            number: st.SearchStrategy[Any] = st.integers(0, 2**62)
            optional = field.name in ("dmabuf_bytes", "pss_bytes", "uss_bytes", "npu_bytes")
            values[field.name] = data.draw(number | st.none() if optional else number)
    one = Sample(**values)
    assert unpack(pack(one)) == one


def test_a_life_that_ended_is_kept_evenly_and_thinner() -> None:
    one = life()
    for index in range(2 * ENDED):
        one.add(sample(float(index), index))
    one.add_look(Look(at_s=0.0, requests=0, mappings=Mappings(size_bytes={}), descriptors={}))
    one.end(300.0, "recycled: it leaks")
    kept = one.samples()
    assert (len(kept), kept[0].at_s, kept[-1].at_s) == (ENDED, 0.0, 2 * ENDED - 1.0)
    assert (one.ended_s, one.ending, one.looks) == (300.0, "recycled: it leaks", [])


def test_the_first_looks_and_the_last_ones_are_kept() -> None:
    one = life()
    for index in range(100):
        one.add_look(Look(at_s=float(index), requests=index, mappings=Mappings(size_bytes={}), descriptors={}))
    times = [look.at_s for look in one.looks]
    assert len(times) == LOOKS
    assert times[:4] == [0.0, 1.0, 2.0, 3.0]
    assert times[4:] == [float(index) for index in range(100 - LOOKS + 4, 100)]


def test_the_lives_of_a_worker_are_bounded_and_the_last_is_the_one_that_lasts() -> None:
    history = History()
    for index in range(3 * LIVES):
        one = life(process=f"e:{index}")
        history.begin(one)
        if index < 3 * LIVES - 1:
            assert history.current("demo:0") is one
            one.end(1.0, "")
            assert history.current("demo:0") is None
    assert [one.process for one in history.lives("demo:0")] == [f"e:{index}" for index in range(2 * LIVES, 3 * LIVES)]
    assert list(history.lasting()) == [one]


def test_a_standby_takes_its_life_with_it_when_it_becomes_a_worker() -> None:
    history = History()
    one = life(worker="demo:standby-7")
    history.begin(one)
    history.move(one, "demo:0")
    assert history.workers() == ["demo:0"]
    assert one.worker == "demo:0"
    assert history.current("demo:0") is one


def test_what_was_stored_comes_back_on_the_clock_of_this_start() -> None:
    rows = [
        ("demo:0", "e:1", "sample", pack(sample(7.0, 5)), 120.0),
        ("demo:0", "e:1", "sample", b"of another version", 90.0),
        ("demo:0", "e:1", "sample", pack(sample(67.0, 9)), 60.0),
        ("demo:0", "e:1", "end", b"recycled: it leaks", 30.0),
    ]
    (one,) = past(rows, now_s=100.0)
    assert [(kept.at_s, kept.requests) for kept in one.samples()] == [(-20.0, 5), (40.0, 9)]
    assert (one.began_s, one.ended_s, one.ending) == (-20.0, 70.0, "recycled: it leaks")
