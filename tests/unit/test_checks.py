"""The rules of the preflight and of ``rkvisor doctor`` (S1.30): each names the thing, the limit and the way out."""

from __future__ import annotations

from typing import Any

import pytest

from rkvisor.protocol.errors import RKLLM_CODES
from rkvisor.worker.checks import heads, memory, npu, parameters
from rkvisor.worker.checks.finding import Finding, first_problem
from rkvisor.worker.checks.npu import Node, Npu

DEFAULTS = {"max_context_len": 512, "enabled_cpus_num": 4, "enabled_cpus_mask": 0xF0, "n_batch": 1, "base_domain_id": 1}
MIB = memory.MIB


def found(runtime: str = "rknpu", *, limit: int | None = None, cores: int | None = 8, **param: Any) -> list[Finding]:
    return parameters.check(DEFAULTS | param, runtime=runtime, context_limit=limit, cores=cores)


def test_the_vendors_defaults_are_fine() -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("param", "limit", "parts"),
    [
        ({"max_context_len": 100}, None, ["max_context_len = 100", "32", "max_context_len = 96"]),
        ({"max_context_len": 0}, None, ["max_context_len = 0", "32", "max_context_len = 32"]),
        ({"max_context_len": -32}, None, ["max_context_len = -32"]),
        ({"max_context_len": 16416}, None, ["16416", "16384"]),
        ({"max_context_len": 4096}, 2048, ["4096", "the model's limit of 2048"]),
        ({"n_keep": 512}, None, ["n_keep = 512", "max_context_len = 512", "511"]),
        ({"enabled_cpus_num": 3}, None, ["0xf0", "4 CPUs", "enabled_cpus_num = 3", "set enabled_cpus_num = 4"]),
        ({"enabled_cpus_mask": -1}, None, ["enabled_cpus_mask = -1", "negative"]),
        ({"n_batch": 101}, None, ["n_batch = 101", "100"]),
        ({"n_batch": -1}, None, ["n_batch = -1"]),
        ({"is_async": True}, None, ["is_async"]),
        ({"base_domain_id": 16}, None, ["base_domain_id = 16", "15"]),
        ({"base_domain_id": -1}, None, ["base_domain_id = -1"]),
    ],
)
def test_a_parameter_that_init_would_fail_at_is_a_problem_that_names_value_and_limit(
    param: dict[str, Any], limit: int | None, parts: list[str]
) -> None:
    (one,) = found(limit=limit, **param)
    assert (one.level, one.code) == ("problem", "RKLLM_INVALID_PARAM")
    assert [part for part in parts if part not in f"{one.text}; {one.remedy}"] == []


@pytest.mark.parametrize(
    "param",
    [
        {"max_context_len": 32},
        {"max_context_len": 16384},
        {"n_keep": 511},
        {"n_keep": -1},
        {"n_batch": 8},
        {"n_batch": 0},
        {"enabled_cpus_num": 0},
        {"enabled_cpus_mask": 0},
        {"enabled_cpus_mask": 3, "enabled_cpus_num": 2},
        {"base_domain_id": 15},
        {"is_async": False},
    ],
)
def test_the_last_value_that_is_allowed_is_allowed(param: dict[str, Any]) -> None:
    assert found(limit=16384, **param) == []


def test_what_only_may_be_wrong_is_a_warning() -> None:
    for param in ({"n_batch": 9}, {"base_domain_id": 0}, {"enabled_cpus_mask": 0x100, "enabled_cpus_num": 1}):
        (one,) = found(**param)
        assert one.level == "warning"
        assert one.remedy
    assert found("llama", cores=2) == [], "the CPU runtime takes the mask for a number of threads"
    assert found("sim", base_domain_id=0) == []


def test_the_cpu_runtime_takes_one_prompt_at_a_time() -> None:
    (one,) = found("llama", n_batch=2)
    assert one.level == "problem"


def test_a_family_without_cpu_settings_has_none_to_be_wrong() -> None:
    assert parameters.check({"max_context_len": 512}, runtime="sim", cores=1) == []


def test_only_the_combination_that_kills_1_2_3_is_refused() -> None:
    fatal = {"mode": "logits", "kind": "tokens", "keeps_history": True}
    assert "abort" in (parameters.fatal_combination("F4", **fatal) or "")
    for change in ({"mode": "generate"}, {"mode": "hidden"}, {"kind": "prompt"}, {"keeps_history": False}):
        assert parameters.fatal_combination("F4", **(fatal | change)) is None
    assert parameters.fatal_combination("F5", **fatal) is None


# Memory.


def fits(runtime: str, needed: int, available: int | None, total: int | None = 1000 * MIB) -> Finding:
    return memory.check(runtime, needed_bytes=needed, available_bytes=available, total_bytes=total)


def test_a_model_needs_as_much_available_memory_as_its_file_is_long() -> None:
    one = fits("rknpu", 800 * MIB + 1, 800 * MIB)
    assert (one.level, one.code) == ("problem", "RKLLM_MEMORY_ERROR")
    assert "800 MB" in one.text
    assert "available" in one.text
    assert fits("rknpu", 800 * MIB, 800 * MIB).level == "ok"
    assert fits("rknpu", 1, None).level == "note"


def test_a_mapped_model_is_refused_only_where_it_could_never_be_resident_as_a_whole() -> None:
    assert fits("llama", 900 * MIB, 1).level == "ok"
    assert fits("llama", 1000 * MIB + 1, 10**12).level == "problem"


@pytest.mark.parametrize(
    ("count", "text"), [(187, "187 bytes"), (20_480, "20 kB"), (791 * MIB, "791 MB"), (5986 * MIB, "5.8 GB")]
)
def test_sizes_are_written_as_people_read_them(count: int, text: str) -> None:
    assert memory.size(count) == text


# The NPU.

BOARD = Npu(
    driver="0.9.8",
    nodes=(Node(path="/dev/dri/renderD128", driver="panthor"), Node(path="/dev/dri/renderD129", driver="RKNPU")),
    chips=("radxa,rock-5b", "rockchip,rk3588"),
)


def levels(board: Npu, machine: str = "aarch64") -> dict[str, str]:
    return {one.about: one.level for one in npu.check(board, machine)}


def test_a_board_that_has_everything_is_fine() -> None:
    assert levels(BOARD) == {"driver": "ok", "devices": "ok", "chip": "ok"}
    assert "renderD129" in npu.check(BOARD, "aarch64")[1].text
    assert "renderD128" not in npu.check(BOARD, "aarch64")[1].text, "that one is a graphics card's"


@pytest.mark.parametrize(
    ("driver", "level"),
    [("0.9.7", "problem"), ("0.8.10", "problem"), ("0.9.8", "ok"), ("0.9.10", "ok"), ("1.0.0", "ok"), ("?", "warning")],
)
def test_the_driver_must_be_0_9_8_or_newer(driver: str, level: str) -> None:
    board = Npu(driver=driver, nodes=BOARD.nodes, chips=BOARD.chips)
    assert levels(board)["driver"] == level


def replaced(**members: Any) -> Npu:
    return Npu(**({"driver": BOARD.driver, "nodes": BOARD.nodes, "chips": BOARD.chips} | members))


def test_what_is_missing_is_named_with_the_way_out() -> None:
    assert levels(replaced(driver=None))["driver"] == "note", "its version may be readable by root only"
    assert levels(replaced(driver=None, nodes=())) == {"driver": "problem", "devices": "problem", "chip": "ok"}
    assert levels(replaced(nodes=BOARD.nodes[:1]))["devices"] == "problem"
    assert levels(replaced(chips=()))["chip"] == "warning"
    locked = replaced(nodes=(Node(path="/dev/dri/renderD129", driver="RKNPU", group="render", is_usable=False),))
    (one,) = [one for one in npu.check(locked, "aarch64") if one.level == "problem"]
    assert "renderD129" in one.text
    assert "group render" in one.text
    assert "70-rknpu.rules" in one.remedy
    for board in (BOARD, locked, replaced(driver=None, nodes=())):
        for one in npu.check(board, "aarch64"):
            assert one.level != "problem" or one.code in RKLLM_CODES


def test_the_character_device_needs_heaps_to_take_its_buffers_from() -> None:
    own = (Node(path="/dev/rknpu"),)
    assert levels(replaced(nodes=own))["dma heaps"] == "problem"
    locked = (Node(path="/dev/dma_heap/system", is_usable=False),)
    assert levels(replaced(nodes=own, heaps=locked))["dma heaps"] == "problem"
    assert "dma heaps" not in levels(replaced(nodes=own, heaps=(Node(path="/dev/dma_heap/system"),)))


def test_no_other_machine_than_an_aarch64_one_has_the_npu() -> None:
    assert levels(BOARD, "x86_64") == {"machine": "problem"}


def test_a_model_named_for_another_chip_is_pointed_at() -> None:
    one = npu.platform_mismatch("/srv/Qwen3_w8a8_rk3576.rkllm", BOARD)
    assert one is not None
    assert one.level == "warning"
    assert "rk3576" in one.text
    assert "rk3588" in one.text
    assert npu.platform_mismatch("/srv/rk3576/Qwen3_w8a8_RK3588.rkllm", BOARD) is None
    assert npu.platform_mismatch("/srv/model.rkllm", BOARD) is None
    assert npu.platform_mismatch("/srv/x_rk3576.rkllm", replaced(chips=())) is None


# Heads of files.


@pytest.mark.parametrize(
    ("head", "word"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\x7fELF\x02\x01", "library"),
        (b"RKNN\0\0\0\0", "RKNN"),
        (b"PK\x03\x04", "zip"),
        (bytes(heads.HEAD_BYTES), "blank"),
        (b'\x88\x13\0\0\0\0\0\0{"__metadata__":', "safetensors"),
    ],
)
def test_a_file_that_is_certainly_no_model_is_called_what_it_is(head: bytes, word: str) -> None:
    told = heads.stranger(head)
    assert told is not None
    assert word in told[0]
    assert told[1]


@pytest.mark.parametrize("head", [b"RKLLM\1\0\0", b"\1\2\3\4" * 16, b"GGUF\3\0\0\0", bytes(10)])
def test_a_file_that_may_be_a_model_is_left_to_the_runtime(head: bytes) -> None:
    assert heads.stranger(head) is None


def test_the_first_problem_is_the_first_one() -> None:
    good, bad = (Finding(about=level, level=level, text="") for level in ("warning", "problem"))  # type: ignore[arg-type]
    assert first_problem([good, bad]) is bad
    assert first_problem([good]) is None
