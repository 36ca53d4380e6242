"""The tracker of native buffers and the tests of memory, asked of real workers (S0.10–S0.21, S0.37–S0.47)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.rkvisord import DEMO, Rkvisord, RpcError

DIAGNOSTICS = "[diagnostics]\nenabled = true\n"
TRACKER = "[memory]\ntracker = true\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Rkvisord]:
    with Rkvisord(DIAGNOSTICS + DEMO) as one:
        yield one


@pytest.fixture
def tracked(tmp_path: Path) -> Iterator[Rkvisord]:
    with Rkvisord(DIAGNOSTICS + TRACKER + DEMO, folder=tmp_path) as one:
        yield one


def test_without_a_tracker_its_status_says_so(server: Rkvisord) -> None:
    """S0.19"""
    status = server.call("memory_tracker_status", {})
    assert status["tracker_initialized"] is False
    assert status["error"] == "Memory tracker not initialized"
    assert set(status["workers"]) == {"demo:0", "demo:1"}


def test_a_tracker_counts_what_every_worker_hands_to_its_runtime(tracked: Rkvisord) -> None:
    """S0.17, S0.18, S0.38"""
    before = tracked.call("memory_tracker_status", {})
    assert before["tracker_initialized"] is True
    assert before["error"] is None
    for _ in range(4):
        tracked.call("rkllm.run", {"model": "demo", "prompt": "tell me a story", "max_new_tokens": 2})
    after = tracked.call("memory_tracker_status", {})
    assert after["tracked_allocations"] > 0
    assert after["total_allocated_bytes"] > len("tell me a story")
    assert after["allocations"] > before["allocations"]
    assert after["warnings"] == 0
    sums = {name: sum(one[name] for one in after["workers"].values()) for name in ("allocations", "held_bytes")}
    assert sums == {name: after[name] for name in sums}


def test_runs_do_not_add_up_in_the_tracker(tracked: Rkvisord) -> None:
    """S0.44: what a run was given is freed when the next one comes."""

    def held() -> int:
        for _ in range(20):
            tracked.call("rkllm.run", {"model": "demo", "prompt": "again", "max_new_tokens": 1})
        return int(tracked.call("memory_tracker_status", {"model": "demo"})["tracked_allocations"])

    assert held() == held()


def test_the_log_of_a_worker_has_a_line_for_each_allocation_and_none_of_a_leak(tracked: Rkvisord) -> None:
    """S0.37, S0.41, S0.42, S0.44: one file a worker, with site, size and time; an orderly end leaves nothing."""
    tracked.call("rkllm.run", {"model": "demo", "prompt": "tell me", "max_new_tokens": 2})
    assert tracked.stop() == 0
    logs = sorted(one.name for one in (tracked.folder / "state").glob("memory_tracker-*.log"))
    assert logs == ["memory_tracker-demo-0.log", "memory_tracker-demo-1.log"]
    text = "".join((tracked.folder / "state" / one).read_text() for one in logs)
    form = r"\[\d{13}\] (ALLOC|FREE): (0x[0-9a-f]+) \(\d+ bytes(?:, array)?\) in \S.* at (\w+\.(?:pxi|hpp)):\d+"
    found = re.findall(form, text)
    assert len(found) == len(text.splitlines())
    assert {kind for kind, *_ in found} == {"ALLOC", "FREE"}
    assert sum(kind == "ALLOC" for kind, *_ in found) == sum(kind == "FREE" for kind, *_ in found)
    assert "_runtime.pxi" in {file for *_, file in found}


@pytest.mark.parametrize("size", [16384, 4_000_000])
def test_a_stress_of_real_runs_tells_a_runtime_that_leaks_from_one_that_does_not(server: Rkvisord, size: int) -> None:
    """S0.10–S0.14: the binding leaks nothing in either; resident memory shows the runtime's leak."""
    asked = {"iterations": 30, "operation": "rkllm_run_stress_test"}
    result = server.call("test_memory_leak_detection", asked)
    assert result["iterations_completed"] == 30
    assert result["memory_leaks_detected"] == 0
    assert result["final_memory_usage"] < 1.1 * result["initial_memory_usage"]
    assert result["test_passed"] is True
    if size > 1_000_000:
        leaky = server.call("test_memory_leak_detection", asked | {"prompt": f"[[sim:leak bytes={size}]]leak"})
        assert leaky["final_memory_usage"] - leaky["initial_memory_usage"] >= 30 * size
        assert leaky["test_passed"] is False


def test_test_buffers_are_held_and_then_freed(server: Rkvisord) -> None:
    """S0.20"""
    result = server.call("test_memory_cleanup", {"allocate_test_buffers": 50, "force_cleanup": True})
    assert (result["before"], result["after"]) == (50, 0)
    assert result["bytes_before"] - result["bytes_after"] == 50 * 1024
    kept = server.call("test_memory_cleanup", {"allocate_test_buffers": 5, "force_cleanup": False})
    assert (kept["before"], kept["after"]) == (5, 5)


def test_arrays_are_copied_and_freed(server: Rkvisord) -> None:
    """S0.21"""
    arrays = {
        "float_array": [1.5, 2.5, 3.5, 4.5, 5.5],
        "int_array": [1, 2, 3, 4, 5],
        "string_array": ["a", "bc", "def"],
    }
    result = server.call("test_array_memory_handling", {"test_arrays": arrays})
    assert (result["arrays_processed"], result["memory_freed_correctly"]) == (3, True)
    assert result["bytes_held"] == 5 * 4 + 5 * 4 + 2 + 3 + 4


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("test_memory_leak_detection", {"iterations": 1}),
        ("test_memory_cleanup", {"allocate_test_buffers": 50}),
        ("test_array_memory_handling", {}),
    ],
)
def test_missing_params_are_refused_in_the_requirements_words(server: Rkvisord, method: str, params: dict) -> None:  # type: ignore[type-arg]
    """S0.4"""
    with pytest.raises(RpcError, match="Missing required parameters") as caught:
        server.call(method, params)
    assert caught.value.code == -32602


def test_a_worker_that_dies_of_the_test_is_an_error_and_not_a_silence(server: Rkvisord) -> None:
    asked = {"iterations": 5, "operation": "rkllm_run_stress_test", "prompt": "[[sim:segv]]die"}
    with pytest.raises(RpcError) as caught:
        server.call("test_memory_leak_detection", asked)
    assert caught.value.name == "WORKER_CRASHED"


def test_a_memory_limit_makes_the_runtimes_allocations_fail_and_not_the_board(tmp_path: Path) -> None:
    """S1.22: a leak beyond it finds no memory; the worker lives on."""
    limited = DEMO.replace("workers = 2", 'workers = 1\nmemory_limit = "400M"')
    with Rkvisord(limited, folder=tmp_path) as server:
        pid = server.workers()[0]["pid"]
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert re.search(rf"Max data size\s+{400 * 2**20}\s", limits)
        for _ in range(4):
            prompt = "[[sim:leak bytes=200000000 where=mmap]]x"
            server.call("rkllm.run", {"model": "demo", "prompt": prompt, "max_new_tokens": 2})
        assert server.workers()[0]["pid"] == pid
        assert server.workers()[0]["rss_bytes"] < 400 * 2**20
