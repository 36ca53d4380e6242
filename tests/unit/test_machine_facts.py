"""What is read of a machine, from a root that looks like a board's, like a container's, and like nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from rkvisor.worker.checks import machine
from rkvisor.worker.checks.machine import read

GIB = 1024**3


def put(root: Path, path: str, text: str = "") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


@pytest.fixture
def board(tmp_path: Path) -> Path:
    put(tmp_path, "sys/kernel/debug/rknpu/version", "RKNPU driver: v0.9.8\n")
    put(tmp_path, "proc/device-tree/compatible", "radxa,rock-5b\0rockchip,rk3588\0")
    put(tmp_path, "proc/meminfo", "MemTotal: 8388608 kB\nMemFree: 1 kB\nMemAvailable: 6291456 kB\nHugePages_Total: 0\n")
    put(tmp_path, "sys/devices/system/cpu/present", "0-7\n")
    for number, driver in ((128, "panthor"), (129, "RKNPU")):
        put(tmp_path, f"dev/dri/renderD{number}")
        put(tmp_path, f"sys/class/drm/renderD{number}/device/uevent", f"OF_NAME=x\nDRIVER={driver}\n")
    put(tmp_path, "dev/dri/card0")
    put(tmp_path, "dev/dma_heap/system")
    return tmp_path


def test_a_board_is_read_as_it_is(board: Path) -> None:
    found = read(board)
    assert found.npu.driver == "0.9.8"
    assert found.npu.chips == ("radxa,rock-5b", "rockchip,rk3588")
    assert [(node.path, node.driver) for node in found.npu.nodes] == [
        ("/dev/dri/renderD128", "panthor"),
        ("/dev/dri/renderD129", "RKNPU"),
    ]
    assert [node.path for node in found.npu.own_nodes] == ["/dev/dri/renderD129"]
    assert [heap.path for heap in found.npu.heaps] == ["/dev/dma_heap/system"]
    assert all(node.is_usable for node in found.npu.nodes)
    assert (found.available_bytes, found.total_bytes, found.cores) == (6 * GIB, 8 * GIB, 8)


def test_the_modules_version_is_taken_before_the_debug_files(board: Path) -> None:
    put(board, "sys/module/rknpu/version", "0.9.6\n")
    assert read(board).npu.driver == "0.9.6"


def test_a_machine_that_tells_nothing_has_nothing(tmp_path: Path) -> None:
    found = read(tmp_path)
    assert (found.npu.driver, found.npu.nodes, found.npu.heaps, found.npu.chips) == (None, (), (), ())
    assert (found.available_bytes, found.total_bytes, found.cores) == (None, None, None)


def test_the_limit_of_a_control_group_counts_and_cached_files_in_it_do_not(board: Path) -> None:
    put(board, "proc/self/cgroup", "0::/system.slice/rkvisor.service\n")
    put(board, "sys/fs/cgroup/system.slice/rkvisor.service/memory.max", "max\n")
    put(board, "sys/fs/cgroup/system.slice/memory.max", f"{4 * GIB}\n")
    put(board, "sys/fs/cgroup/system.slice/memory.current", f"{3 * GIB}\n")
    put(board, "sys/fs/cgroup/system.slice/memory.stat", f"anon {GIB}\ninactive_file {GIB}\nactive_file {GIB}\n")
    assert machine.memory_bytes(board) == (3 * GIB, 4 * GIB)


def test_a_group_that_is_over_its_limit_leaves_nothing(board: Path) -> None:
    put(board, "proc/self/cgroup", "0::/\n")
    put(board, "sys/fs/cgroup/memory.max", f"{GIB}\n")
    put(board, "sys/fs/cgroup/memory.current", f"{2 * GIB}\n")
    assert machine.memory_bytes(board) == (0, GIB)


@pytest.mark.parametrize(("text", "cores"), [("0\n", 1), ("0-3\n", 4), ("0-1,4-7\n", 8), ("nonsense", None)])
def test_cores_are_counted_by_the_highest_number(tmp_path: Path, text: str, cores: int | None) -> None:
    put(tmp_path, "sys/devices/system/cpu/present", text)
    assert machine.cores(tmp_path) == cores
