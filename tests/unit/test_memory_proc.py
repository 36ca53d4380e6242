"""What is read out of the texts below /proc/PID; texts as Linux 6.18 and a board's 5.10 write them."""

from __future__ import annotations

import os

import pytest

from rkvisor.supervisor.memory.proc import (
    Mappings,
    Status,
    buffers_of,
    classify_descriptor,
    classify_mapping,
    parse_mappings,
    parse_status,
)

STATUS = b"""Name:\tpython3
VmPeak:\t  233468 kB
VmHWM:\t   24628 kB
VmRSS:\t   24500 kB
RssAnon:\t   13436 kB
RssFile:\t   11064 kB
RssShmem:\t       4 kB
VmData:\t   40084 kB
VmSwap:\t      12 kB
Threads:\t5
"""
MAPS = b"""55d0c0000000-55d0c0001000 r--p 00000000 fd:00 100 /usr/bin/python3.11
55d0c1000000-55d0c1021000 rw-p 00000000 00:00 0                          [heap]
7f0000000000-7f0000004000 rw-p 00000000 00:00 0
7f0000004000-7f0000008000 ---p 00000000 00:00 0
7f1000000000-7f1000004000 rw-s 00000000 00:01 77                         /dev/zero (deleted)
7f2000000000-7f2000008000 rw-s 00000000 00:01 78                         /memfd:rkllm-buffer (deleted)
7f3000000000-7f3000010000 rw-s 00000000 00:0b 79                         /dmabuf:system
7f4000000000-7f4000100000 r--s 00000000 fd:00 80                         /models/qwen 3.gguf
7f5000000000-7f5000001000 rw-p 00000000 fd:00 81                         /opt/librkllmrt.so
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                          [stack]
"""
SMAPS = b"""55d0c1000000-55d0c1021000 rw-p 00000000 00:00 0                          [heap]
Size:                132 kB
Rss:                 100 kB
Pss:                  90 kB
Pss_Dirty:            90 kB
Private_Clean:         8 kB
Private_Dirty:        80 kB
Swap:                  4 kB
SwapPss:               4 kB
VmFlags: rd wr mr mw me ac sd
7f4000000000-7f4000100000 r--s 00000000 fd:00 80                         /models/qwen 3.gguf
Size:               1024 kB
Rss:                 512 kB
Pss:                 256 kB
Private_Clean:         0 kB
Private_Dirty:         0 kB
Swap:                  0 kB
"""


def test_the_status_of_a_process_is_read() -> None:
    assert parse_status(STATUS) == Status(
        rss_bytes=24500 * 1024,
        rss_anon_bytes=13436 * 1024,
        rss_file_bytes=11064 * 1024,
        rss_shmem_bytes=4096,
        swap_bytes=12 * 1024,
        hwm_bytes=24628 * 1024,
        threads=5,
    )


def test_a_process_that_has_no_memory_any_more_has_no_status() -> None:
    assert parse_status(b"Name:\tpython3\nState:\tZ (zombie)\nThreads:\t1\n") is None


def test_of_maps_only_what_can_be_written_counts() -> None:
    assert parse_mappings(MAPS, b"/models/qwen 3.gguf") == Mappings(
        size_bytes={
            "heap": 0x21000,
            "anonymous": 0x4000,
            "shmem": 0x4000,
            "memfd": 0x8000,
            "dmabuf": 0x10000,
            "library": 0x1000,
            "stack": 0x21000,
        }
    )


def test_of_smaps_what_is_resident_counts_and_what_is_swapped_with_it() -> None:
    assert parse_mappings(SMAPS, b"/models/qwen 3.gguf") == Mappings(
        size_bytes={"heap": 0x21000},
        resident_bytes={"heap": 104 * 1024, "model": 512 * 1024},
        pss_bytes=346 * 1024,
        uss_bytes=88 * 1024,
    )


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"", "anonymous"),
        (b"[heap]", "heap"),
        (b"[stack]", "stack"),
        (b"[vdso]", "kernel"),
        (b"[anon:glibc: malloc]", "anonymous"),
        (b"[anon_shmem:x]", "shmem"),
        (b"/dev/shm/x", "shmem"),
        (b"/SYSV00000000 (deleted)", "shmem"),
        (b"anon_inode:dmabuf", "dmabuf"),
        (b"/dev/dri/renderD128", "device"),
        (b"/dev/rknpu", "device"),
        (b"/m.gguf", "model"),
        (b"/m.gguf (deleted)", "model"),
        (b"/usr/lib/libc.so.6", "library"),
        (b"/var/x.so.d/data", "file"),
    ],
)
def test_a_mapping_has_a_class(path: bytes, expected: str) -> None:
    assert classify_mapping(path, b"/m.gguf") == expected


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("socket:[1]", "socket"),
        ("pipe:[2]", "pipe"),
        ("anon_inode:[eventfd]", "eventfd"),
        ("anon_inode:[eventpoll]", "eventfd"),
        ("anon_inode:[pidfd]", "other"),
        ("/memfd:rkllm-forgotten (deleted)", "memfd"),
        ("/dmabuf:", "dmabuf"),
        ("anon_inode:dmabuf", "dmabuf"),
        ("/dev/dri/renderD129", "device"),
        ("/tmp/x", "file"),
        ("mnt:[4]", "other"),
    ],
)
def test_a_descriptor_has_a_kind(target: str, expected: str) -> None:
    assert classify_descriptor(target) == expected


def test_a_buffer_behind_two_descriptors_counts_once() -> None:
    one = b"pos:\t0\nflags:\t02\nino:\t5\nsize:\t4096\ncount:\t2\nexp_name:\tsystem\n"
    other = b"ino:\t6\nsize:\t8192\n"
    assert buffers_of([one, one, other]) == (12288, None)


def test_what_a_drm_driver_tells_counts_once_a_client() -> None:
    """NPU memory, where the driver tells of it."""
    text = b"drm-driver:\trknpu\ndrm-client-id:\t7\ndrm-total-dma:\t64 KiB\ndrm-total-sram:\t1 MiB\n"
    assert buffers_of([text, text]) == (0, 64 * 1024 + 1024 * 1024)
    assert buffers_of([b"pos:\t0\nflags:\t02\n"]) == (0, None)


@pytest.mark.parametrize(
    ("text", "npu"),
    [
        (b"drm-client-id:\t7\ndrm-total-stolen-local0:\t4 KiB\n", 4096),
        (b"drm-client-id:\t7\ndrm-total-dma:\t0\ndrm-memory-dma:\t4 KiB\n", 0),
        (b"drm-client-id:\t7\ndrm-memory-dma:\t4096\n", 4096),
        (b"drm-client-id:\t7\ndrm-total-dma:\tmany KiB\n", None),
    ],
)
def test_what_drivers_tell_in_other_words(text: bytes, npu: int | None) -> None:
    """A told zero is told; what is no number counts as none and costs no sample."""
    assert buffers_of([text]) == (0, npu)


def test_this_very_process_can_be_read() -> None:
    from rkvisor.supervisor.memory.probe import Probe

    probe = Probe(os.getpid())
    status, looked = probe.status(), probe.mappings("", is_thorough=True)
    assert status is not None
    assert status.rss_bytes == status.rss_anon_bytes + status.rss_file_bytes + status.rss_shmem_bytes
    assert looked.resident_bytes is not None
    assert 0.5 < sum(looked.resident_bytes.values()) / (status.rss_bytes + status.swap_bytes) < 2
    assert abs(sum(probe.descriptors().kinds.values()) - probe.count_descriptors()) <= 2
    probe.close()
