"""What is asked of the memory of a worker itself: the tracker of native buffers, and the tests of it.

By the names, params and results of the requirements S0.10–S0.21; what stands beside those is rkvisor's own.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from rkvisor.protocol.params import Params

#: What ``test_memory_leak_detection`` can repeat.
STRESS = "rkllm_run_stress_test"


class TrackerParams(Params, frozen=True):
    """model: only its workers."""

    model: str | None = None


class TrackerState(msgspec.Struct, kw_only=True):
    """tracked_allocations, total_allocated_bytes: what is held now of what was allocated since the tracker was opened.

    allocations: since then.  warnings: frees of what was not held.  held_blocks, held_bytes: counted without a tracker.
    """

    tracker_initialized: bool
    tracked_allocations: int = 0
    total_allocated_bytes: int = 0
    allocations: int = 0
    warnings: int = 0
    held_blocks: int = 0
    held_bytes: int = 0


class TrackerStatus(TrackerState, kw_only=True):
    """Of all workers together, and of each.  error: "Memory tracker not initialized", where it is in none."""

    error: str | None = None
    workers: dict[str, TrackerState]


class LeakDetectionParams(Params, frozen=True):
    """iterations: runs.  prompt: of each.  max_new_tokens: of each.  model: without it the first that is up."""

    iterations: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    operation: str | None = None
    prompt: Annotated[str, Meta(min_length=1, max_length=4096)] = "leak test"
    max_new_tokens: Annotated[int, Meta(ge=1, le=1024)] = 2
    model: str | None = None


class LeakDetectionResult(msgspec.Struct, kw_only=True):
    """*_memory_usage: resident memory, bytes, behind a few runs that warm up, and at the end.

    memory_leaks_detected: allocations of the binding that are held at the end and were not at the beginning, not below
    0.  test_passed: none, and final < 1.1 × initial.
    """

    iterations_completed: int
    initial_memory_usage: int
    final_memory_usage: int
    memory_leaks_detected: int
    test_passed: bool
    initial_allocations: int
    final_allocations: int
    worker: str


class CleanupParams(Params, frozen=True):
    """allocate_test_buffers: of 1024 bytes.  force_cleanup: free them before the answer."""

    allocate_test_buffers: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    force_cleanup: bool | None = None
    model: str | None = None


class CleanupResult(msgspec.Struct, kw_only=True):
    """before, after: test buffers held when they were allocated, and at the end.  bytes_before: of all buffers."""

    before: int
    after: int
    bytes_before: int
    bytes_after: int
    worker: str


class ArraysParams(Params, frozen=True):
    """test_arrays: by any names; of numbers or of strings."""

    test_arrays: dict[str, list[float | str]] | None = None
    model: str | None = None


class ArraysResult(msgspec.Struct, kw_only=True):
    """arrays_processed: copied as for a runtime.  memory_freed_correctly: nothing of them is held any more."""

    arrays_processed: int
    memory_freed_correctly: bool
    bytes_held: int
    worker: str
