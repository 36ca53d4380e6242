"""What a worker is asked about its own memory: the state of the tracker, and the tests that measure something real."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from rkvisor.cython_ext import _rkllm
from rkvisor.cython_ext.inputs import Infer, Input
from rkvisor.protocol.errors import InvalidParams
from rkvisor.protocol.memory_tests import (
    STRESS,
    ArraysParams,
    ArraysResult,
    CleanupParams,
    CleanupResult,
    LeakDetectionParams,
    LeakDetectionResult,
    TrackerState,
)

#: Bytes of a test buffer (requirements S0.13).
BUFFER_BYTES = 1024
#: Runs before the memory is looked at first: allocators fill their caches in them.
WARM_UP = 3


def tracker_state() -> TrackerState:
    """Of this process."""
    blocks, held = _rkllm.held()
    status = _rkllm.tracker_status()
    if status is None:
        return TrackerState(tracker_initialized=False, held_blocks=blocks, held_bytes=held)
    return TrackerState(
        tracker_initialized=True,
        tracked_allocations=status["count"],
        total_allocated_bytes=status["bytes"],
        allocations=status["allocations"],
        warnings=status["warnings"],
        held_blocks=blocks,
        held_bytes=held,
    )


class Trials:
    """model: loaded.  worker: its name.  rss_bytes: of this process, now.  mute: who hears the tokens of our runs."""

    def __init__(self, model: Any, worker: str, rss_bytes: Callable[[], int], mute: Callable[[Any], None]):
        self._model = model
        self._worker = worker
        self._rss_bytes = rss_bytes
        self._mute = mute

    def perform(self, name: str, raw_params: bytes) -> Any:
        """The result of the test *name*.  Raises the binding's errors and InvalidParams."""
        match name:
            case "test_memory_leak_detection":
                return self._detect(msgspec.json.decode(raw_params, type=LeakDetectionParams))
            case "test_memory_cleanup":
                return self._clean_up(msgspec.json.decode(raw_params, type=CleanupParams))
            case "test_array_memory_handling":
                return self._arrays(msgspec.json.decode(raw_params, type=ArraysParams))
        raise InvalidParams(f"cannot test {name!r}: no such test")

    def _detect(self, params: LeakDetectionParams) -> LeakDetectionResult:
        if params.operation != STRESS:
            raise InvalidParams(f"cannot test the operation {params.operation!r}: there is {STRESS!r}")
        for _ in range(WARM_UP):
            self._stress(params)
        first, before = _rkllm.held()[0], self._rss_bytes()
        done = 0
        for _ in range(params.iterations or 0):
            self._stress(params)
            done += 1
        last, after = _rkllm.held()[0], self._rss_bytes()
        leaks = max(0, last - first)
        return LeakDetectionResult(
            iterations_completed=done,
            initial_memory_usage=before,
            final_memory_usage=after,
            memory_leaks_detected=leaks,
            test_passed=leaks == 0 and after < 1.1 * before,
            initial_allocations=first,
            final_allocations=last,
            worker=self._worker,
        )

    def _stress(self, params: LeakDetectionParams) -> None:
        """One real run, and 1 KiB taken, written and freed."""
        runtime, most = self._model.runtime, params.max_new_tokens
        self._model.start_over()
        is_native = self._model.is_native(most)
        left = most

        def on_token(state: int, token_id: int) -> int:
            nonlocal left
            left -= 1
            if left == 0 and not is_native:
                runtime.abort()
            return 0

        held = _rkllm.Held()
        held.take(1, BUFFER_BYTES)
        self._mute(on_token)
        try:
            infer = Infer(max_new_tokens=most) if self._model.can_sample_per_run else Infer()
            runtime.run(Input(kind="prompt", prompt=params.prompt), infer)
        finally:
            self._mute(None)
            held.release()

    def _clean_up(self, params: CleanupParams) -> CleanupResult:
        held = _rkllm.Held()
        for _ in range(params.allocate_test_buffers or 0):
            held.take(1, BUFFER_BYTES)
        before, bytes_before = held.count, _rkllm.held()[1]
        if params.force_cleanup:
            held.release()
        result = CleanupResult(
            before=before,
            after=held.count,
            bytes_before=bytes_before,
            bytes_after=_rkllm.held()[1],
            worker=self._worker,
        )
        held.release()
        return result

    def _arrays(self, params: ArraysParams) -> ArraysResult:
        before = _rkllm.held()
        held = _rkllm.Held()
        taken = processed = 0
        for values in (params.test_arrays or {}).values():
            if any(isinstance(one, str) for one in values):
                taken += sum(held.keep(str(one)) for one in values)
            else:
                taken += held.keep(_numbers(values))
            processed += 1
        was_held = _rkllm.held()[1] - before[1] == taken
        held.release()
        return ArraysResult(
            arrays_processed=processed,
            memory_freed_correctly=was_held and _rkllm.held() == before,
            bytes_held=taken,
            worker=self._worker,
        )


def _numbers(values: Any) -> list[Any]:
    """Integers as such where all are whole: JSON does not tell 1.0 from 1."""
    if values and all(float(one).is_integer() and abs(one) < 2**31 for one in values):
        return [int(one) for one in values]
    return [float(one) for one in values]
