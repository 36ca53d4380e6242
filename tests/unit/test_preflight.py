"""A worker refuses to load what would end it, with a reason, and says whether another try could help (S1.30)."""

from __future__ import annotations

from pathlib import Path

import pytest

from rkvisor.worker import preflight
from rkvisor.worker.checks.machine import Machine
from rkvisor.worker.checks.npu import Npu
from rkvisor.worker.preflight import CannotLoad

NOTHING = Machine(npu=Npu(), available_bytes=1000, total_bytes=2000, cores=8)


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "model.rkllm"
    path.write_bytes(b"\1" * 1001)
    return str(path)


def refusal(runtime: str, path: str, machine: Machine = NOTHING, kind: str = "x86_64") -> CannotLoad:
    with pytest.raises(CannotLoad) as caught:
        preflight.check_machine(runtime, path, machine, kind)
    return caught.value


def test_too_little_memory_is_a_failure_that_another_try_may_not_meet(model: str) -> None:
    found = refusal("rknpu", model)
    assert found.error.to_object(0)["data"]["name"] == "RKLLM_MEMORY_ERROR"
    assert not found.is_permanent
    assert model in str(found)
    assert "free memory" in str(found)


def test_a_missing_driver_is_a_failure_for_good(model: str) -> None:
    found = refusal("rknpu", model, kind="aarch64")
    assert found.error.to_object(0)["data"]["name"] == "RKLLM_DEVICE_ERROR"
    assert found.is_permanent
    assert "driver" in str(found)


def test_a_stand_in_for_the_vendors_library_needs_no_npu_elsewhere(model: str) -> None:
    enough = Machine(npu=Npu(), available_bytes=10**9, total_bytes=10**9, cores=8)
    preflight.check_machine("rknpu", model, enough, "x86_64")


def test_a_simulated_model_is_held_to_the_memory_that_it_takes(tmp_path: Path) -> None:
    big, small = tmp_path / "big.toml", tmp_path / "small.toml"
    big.write_text("resident_mb = 1\n")
    small.write_text("memory_mb = 4000\n")
    assert "1 MB" in str(refusal("sim", str(big)))
    preflight.check_machine("sim", str(small), NOTHING)


def test_the_models_own_limit_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "short.toml"
    path.write_text("context = 64\n")
    preflight.check_parameters("sim", str(path), {"max_context_len": 64})
    with pytest.raises(CannotLoad, match="limit of 64") as caught:
        preflight.check_parameters("sim", str(path), {"max_context_len": 96})
    assert caught.value.is_permanent


@pytest.mark.parametrize(
    ("runtime", "content", "word"),
    [("rknpu", b"", "empty"), ("rknpu", b"version https://git-lfs", "git lfs pull"), ("llama", b"PK\3\4", "zip")],
)
def test_a_file_that_is_no_model_is_refused_with_what_it_is(
    tmp_path: Path, runtime: str, content: bytes, word: str
) -> None:
    path = tmp_path / "model"
    path.write_bytes(content)
    with pytest.raises(CannotLoad, match=word) as caught:
        preflight.check_file(runtime, str(path))
    assert caught.value.is_permanent
