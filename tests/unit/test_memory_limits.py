"""When it ends badly (supervisor/memory/limits.py)."""

from __future__ import annotations

from harness.samples import MB, sample
from rkvisor.supervisor.memory.limits import Limit, configured, soonest

RSS = Limit("max_rss", 300 * MB)
DATA = Limit("memory_limit", 200 * MB)
MACHINE = Limit("machine", 1000 * MB)


def test_a_mapped_model_counts_to_max_rss_and_not_to_the_kernels_limit() -> None:
    one = sample(1, 100 * MB, rss_bytes=250 * MB, swap_bytes=10 * MB)
    assert soonest(one, {"anon": MB}, [RSS]) == (RSS, 40.0)
    assert soonest(one, {"anon": MB}, [DATA]) == (DATA, 90.0)


def test_shared_memory_that_leaks_never_reaches_the_kernels_limit() -> None:
    one = sample(1, 100 * MB)
    assert soonest(one, {"file": MB}, [DATA]) is None
    assert soonest(one, {"file": MB, "anon": MB}, [DATA]) == (DATA, 100.0)
    assert soonest(one, {"file": MB, "anon": MB}, [RSS]) == (RSS, 100.0)


def test_of_several_limits_the_one_that_is_reached_first_counts() -> None:
    one = sample(1, 100 * MB)
    assert soonest(one, {"anon": 2 * MB}, [RSS, DATA, MACHINE]) == (DATA, 50.0)
    assert soonest(one, {"file": 2 * MB}, [DATA, MACHINE, RSS]) == (RSS, 100.0)
    assert soonest(one, {"anon": MB}, [MACHINE]) == (MACHINE, 900.0)


def test_what_does_not_grow_reaches_nothing_and_what_is_beyond_is_there_now() -> None:
    one = sample(1, 400 * MB)
    assert soonest(one, {}, [RSS]) is None
    assert soonest(one, {"anon": -MB, "descriptors": 5.0, "dmabuf": 5.0}, [RSS]) is None
    assert soonest(one, {"anon": MB}, []) is None
    assert soonest(one, {"anon": MB}, [RSS]) == (RSS, 0.0)


def test_the_smallest_limit_that_was_set_is_shown_where_nothing_grows() -> None:
    assert configured([MACHINE, RSS, DATA]) == DATA
    assert configured([MACHINE]) is None
