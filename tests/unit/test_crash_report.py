"""From a note, a log and a wait status to a crash report (protocol/crash_note.py, supervisor/crash_*.py)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkvisor.protocol.crash_note import Frame, parse_note, split_log
from rkvisor.protocol.crashes import CrashReport, Evidence
from rkvisor.protocol.page import Last
from rkvisor.supervisor.crashes.classes import RULES, Context, classify
from rkvisor.supervisor.crashes.kernel import counted_kills
from rkvisor.supervisor.crashes.report import Death, code_name, conclude, gather, phase_of
from rkvisor.supervisor.crashes.signature import signature, telling

NOTE = b"""rkvisor-crash 1
signal 11
code 1
address 0xd0
page_bytes 4096
statm 22701 3518 1729 1 0 4237 0
thread 4712
name runner
register rip 0x7f0000001234 /opt/my models/librkllmrt.so+0x1234
register rsp 0x7f00aaaa0000
frame 0x7f0000001234 /opt/my models/librkllmrt.so+0x1234
frame 0x7f0000005678 /opt/my models/librkllmrt.so+0x5678
frame 0x55d000000000
frame 0x7f1000001000 /usr/lib/libpython3.11.so.1.0+0x1000
end
"""
PYTHON = [
    "Fatal Python error: Segmentation fault",
    "",
    "Current thread 0x00007f9767ff56c0 (most recent call first):",
    '  File "/x/worker/model.py", line 127 in run',
    "",
    "Thread 0x00007f9767ff5780 (most recent call first):",
    '  File "/x/worker/main.py", line 70 in serve',
    "",
    "Extension modules: msgspec._core (total: 1)",
]
DEATH = Death(
    worker="demo:0",
    model="demo",
    pid=4711,
    incarnation=3,
    status=-11,
    how="SIGSEGV",
    note=NOTE,
    phase="generating",
)


def evidence(**members: Any) -> Evidence:
    return Evidence(**{"worker": "demo:0", "model": "demo", "pid": 1, "incarnation": 1, **members})


def report(death: Death, context: Context = Context()) -> CrashReport:  # noqa: B008  it is frozen
    return conclude(gather(death), context, id="1a2b3c4d", time=1.0, boot_id="b")


# The note.


def test_a_note_is_read_to_its_last_member() -> None:
    note = parse_note(NOTE)
    assert note is not None
    assert (note.signal, note.code, note.address, note.sender) == (11, 1, 0xD0, None)
    assert note.rss_bytes == 3518 * 4096
    (thread,) = note.threads
    assert (thread.number, thread.name, thread.is_whole) == (4712, "runner", True)
    assert thread.registers == {"rip": 0x7F0000001234, "rsp": 0x7F00AAAA0000}
    assert thread.frames[0] == Frame(0x7F0000001234, "/opt/my models/librkllmrt.so", 0x1234)
    assert [str(frame) for frame in thread.frames] == [
        "librkllmrt.so+0x1234",
        "librkllmrt.so+0x5678",
        "0x55d000000000",
        "libpython3.11.so.1.0+0x1000",
    ]


@pytest.mark.parametrize("size", range(0, len(NOTE), 7))
def test_a_note_that_was_cut_off_anywhere_tells_what_was_whole(size: int) -> None:
    note = parse_note(NOTE[:size])
    if size <= len("rkvisor-crash 1"):
        assert note is None
        return
    assert note is not None
    whole = NOTE[:size].rpartition(b"\n")[0] + b"\n"
    assert note.signal == (11 if b"signal 11\n" in whole else 0)
    frames = sum(len(thread.frames) for thread in note.threads)
    assert frames == whole.count(b"\nframe ")


@given(st.binary(max_size=300))
def test_any_bytes_are_read_without_an_exception(raw: bytes) -> None:
    parse_note(raw)
    parse_note(b"rkvisor-crash 1\n" + raw)


@given(st.lists(st.sampled_from([*NOTE.decode().splitlines(), "frame", "statm x", "thread -", "register"])))
def test_lines_in_any_order_and_broken_ones_are_read_without_an_exception(lines: list[str]) -> None:
    death = replace(DEATH, note="\n".join(["rkvisor-crash 1", *lines, ""]).encode())
    assert report(death).signature


def test_of_a_hang_the_frames_are_those_of_the_runner() -> None:
    block = "thread {0}\nname {1}\nframe 0x1 /lib/{1}.so+0x10\nend\n"
    note = "rkvisor-crash 1\nsignal 6\ncode 0\nsender 99\n" + block.format(1, "python") + block.format(2, "runner")
    death = replace(DEATH, note=note.encode(), status=-6, how="SIGABRT", trouble="hung", supervisor_pid=99)
    found = gather(death)
    assert found.frames == ["runner.so+0x10"]
    assert found.other_frames == ["python.so+0x10"]
    assert found.sender is None  # rkvisord's own signal is nobody else's
    assert classify(found, Context()).kind == "timing-based"


# The log.


def test_python_stacks_are_told_from_the_runtimes_own_lines() -> None:
    log = ["I rkllm: hello", *PYTHON[:4], "E rkllm: a line of another thread", *PYTHON[4:], "W rkllm: after"]
    own, stacks = split_log(log)
    assert own == ["I rkllm: hello", "E rkllm: a line of another thread", "W rkllm: after"]
    assert stacks == [line for line in PYTHON if line]


def test_a_panic_is_kept_with_its_traceback() -> None:
    panic = [
        "PANIC at /x/worker/main.py:12: ValueError: bad",
        "Traceback (most recent call last):",
        '  File "/x/worker/main.py", line 12, in serve',
        "    raise ValueError()",
        "ValueError: bad",
    ]
    own, stacks = split_log(["E rkllm: first", *panic])
    assert (own, stacks) == (["E rkllm: first"], panic)
    death = replace(DEATH, note=b"", status=70, how="exit status 70", log=panic)
    found = report(death)
    assert found.signature == "exit 70 PANIC at main.py:#: ValueError: bad"
    assert "rkvisor's own code" in found.hint


def test_a_line_that_looks_like_a_frame_outside_of_a_stack_is_the_runtimes() -> None:
    assert split_log(['  File "x", line 1 in y', "Thread safety is off"]) == (
        ['  File "x", line 1 in y', "Thread safety is off"],
        [],
    )


# The evidence.


def test_a_report_is_complete() -> None:
    log = ["I rkllm: loading", "E rkllm: oh", *PYTHON]
    found = report(replace(DEATH, log=log, digest=b"\xab" * 32, requests=7, uptime_s=3.5, peak_rss_bytes=99))
    assert (found.signal, found.code, found.address, found.status) == ("SIGSEGV", "SEGV_MAPERR", "0xd0", None)
    assert found.request_digest == "ab" * 32
    assert (found.requests, found.uptime_s, found.rss_bytes, found.peak_rss_bytes) == (7, 3.5, 3518 * 4096, 99)
    assert found.files["librkllmrt.so"] == "/opt/my models/librkllmrt.so"
    assert found.log == ["I rkllm: loading", "E rkllm: oh"]
    assert '  File "/x/worker/model.py", line 127 in run' in found.python_stacks
    assert found.error == "demo:0: process 4711 ended with SIGSEGV at librkllmrt.so+0x1234 while it generated"


def test_a_report_does_not_need_the_handler() -> None:
    found = report(replace(DEATH, note=b"", log=["E rkllm: last words 17"], rss_bytes=5, digest=b"\1" * 32))
    assert (found.signal, found.frames, found.rss_bytes) == ("SIGSEGV", [], 5)
    assert found.signature == "SIGSEGV E rkllm: last words #"
    assert found.class_ == "systematic"


def test_the_log_is_bounded_and_the_end_of_it_kept() -> None:
    found = gather(replace(DEATH, log=[f"line {i}" for i in range(500)]))
    assert found.log == [f"line {i}" for i in range(450, 500)]


def test_the_first_signal_counts_where_a_sigkill_came_meanwhile() -> None:
    found = gather(replace(DEATH, status=-9, how="SIGKILL"))
    assert (found.signal, found.oom) == ("SIGSEGV", "")


def test_a_recursion_is_shown_once_with_its_depth() -> None:
    note = NOTE.replace(b"frame 0x55d000000000\n", b"frame 0x7f0000005678 /opt/my models/librkllmrt.so+0x5678\n" * 40)
    found = report(replace(DEATH, note=note))
    assert found.frames[:3] == [
        "librkllmrt.so+0x1234",
        "librkllmrt.so+0x5678 (41 times)",
        "libpython3.11.so.1.0+0x1000",
    ]
    assert found.signature == "SIGSEGV librkllmrt.so+0x1234 < librkllmrt.so+0x5678"


@pytest.mark.parametrize(
    ("death", "oom"),
    [
        ({"oom_kills": 0}, "presumed"),
        ({"oom_kills": None}, "presumed"),
        ({"oom_kills": 1}, "confirmed"),
        ({"was_ours": True, "oom_kills": 1}, ""),
        ({"status": -11, "how": "SIGSEGV"}, ""),
    ],
)
def test_a_sigkill_that_nobody_here_sent_is_for_want_of_memory(death: dict[str, Any], oom: str) -> None:
    members: dict[str, Any] = {"note": b"", "status": -9, "how": "SIGKILL", **death}
    found = report(replace(DEATH, **members))
    assert found.oom == oom
    if oom:
        assert (found.class_, found.severity) == ("resource-based", "critical")


@pytest.mark.parametrize(
    ("signal", "code", "name"),
    [
        ("SIGSEGV", 1, "SEGV_MAPERR"),
        ("SIGSEGV", 2, "SEGV_ACCERR"),
        ("SIGBUS", 2, "BUS_ADRERR"),
        ("SIGFPE", 1, "FPE_INTDIV"),
        ("SIGILL", 2, "ILL_ILLOPN"),
        ("SIGABRT", -6, "SI_TKILL"),
        ("SIGSEGV", 0, "SI_USER"),
        ("SIGSEGV", 128, "SI_KERNEL"),
        ("SIGSEGV", 77, "77"),
    ],
)
def test_codes_have_the_kernels_names(signal: str, code: int, name: str) -> None:
    assert code_name(signal, code) == name


@pytest.mark.parametrize(
    ("last", "job", "told", "ready", "stopping", "phase"),
    [
        (Last(), None, False, False, False, "blank"),
        (Last(), None, True, False, False, "loading"),
        (Last(), None, True, True, False, "idle"),
        (Last(job=4), 5, True, True, False, "idle"),  # it was given job 5, but never saw it
        (Last(job=5, progress=9, base=9), 5, True, True, False, "prefill"),
        (Last(job=5, progress=10, base=9), 5, True, True, False, "generating"),
        (Last(job=5, progress=10, base=9), None, True, True, True, "stopping"),
        (Last(job=5, progress=10, base=9), 5, True, True, True, "generating"),
    ],
)
def test_the_phase_is_read_from_the_page(
    last: Last, job: int | None, told: bool, ready: bool, stopping: bool, phase: str
) -> None:
    assert phase_of(last, job, was_told=told, is_ready=ready, was_stopping=stopping) == phase


@pytest.mark.parametrize(
    ("text", "kills"),
    [
        ("nr_free 1\noom_kill 7\n", 7),
        ("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n", 2),
        ("oom_killer 3\n", None),
        ("oom_kill many\n", None),
        ("", None),
    ],
)
def test_the_kernels_counters_are_read(text: str, kills: int | None) -> None:
    assert counted_kills(text) == kills


# Signatures.


def test_deaths_at_one_place_have_one_signature_wherever_the_library_was_loaded() -> None:
    moved = NOTE.replace(b"0x7f0000001234 /opt", b"0x7eeeeeeee234 /opt").replace(b"0x55d0", b"0x66e0")
    first, second = report(DEATH), report(replace(DEATH, note=moved, pid=9, worker="demo:1"))
    assert first.signature == second.signature


def test_another_place_or_another_signal_is_another_signature() -> None:
    elsewhere = report(replace(DEATH, note=NOTE.replace(b"0x1234\nframe", b"0x1235\nframe")))
    otherwise = report(replace(DEATH, note=NOTE.replace(b"signal 11", b"signal 7"), status=-7, how="SIGBUS"))
    assert len({report(DEATH).signature, elsewhere.signature, otherwise.signature}) == 3


def test_frames_of_the_c_library_are_passed_over_and_python_ends_the_walk() -> None:
    frames = ["libc.so.6+0x8aeec", "libstdc++.so.6+0x1", "librkllmrt.so+0x5", "_rkllm.x.so+0x1", "libpython3.11.so+0x9"]
    assert telling(frames) == ["librkllmrt.so+0x5"]
    assert telling(["libc.so.6+0x8aeec", "libc.so.6+0x1"]) == ["libc.so.6+0x8aeec"]
    assert telling(["a.so+0x1", "b.so+0x1", "a.so+0x1", "b.so+0x1", "c.so+0x1"]) == ["a.so+0x1", "b.so+0x1", "c.so+0x1"]
    assert telling(["0x0", "librkllmrt.so+0x5", "0x7f0012345678"]) == ["0x0", "librkllmrt.so+0x5"]
    assert telling(["libpython3.11.so+0x9", "libpython3.11.so+0x8"]) == ["libpython3.11.so+0x9"]


@pytest.mark.parametrize(
    ("members", "key"),
    [
        ({"signal": "SIGSEGV", "sender": 77}, "SIGSEGV from outside"),
        ({"signal": "SIGKILL", "oom": "presumed", "phase": "generating"}, "SIGKILL out of memory while generating"),
        ({"status": 1, "log": ["E rkllm: malloc npu memory fail, 4096"]}, "exit 1 RKLLM_MEMORY_ERROR"),
        ({"status": 1, "log": ["error in 'my secret' at 0xff: 3"]}, "exit 1 error in '…' at #: #"),
        ({"status": 1, "log": ["I rkllm: chatter"], "phase": "loading"}, "exit 1 while loading"),
        ({"signal": "SIGABRT", "trouble": "hung", "frames": ["a.so+0x1"]}, "hang, SIGABRT a.so+0x1"),
    ],
)
def test_without_frames_a_signature_is_made_of_what_there_is(members: dict[str, Any], key: str) -> None:
    assert signature(evidence(**members)) == key


# Classes.

NEAR = {"signal": "SIGSEGV", "registers": {"rsp": "0x7f0000001000"}, "address": "0x7f0000000ff8"}


@pytest.mark.parametrize(
    ("members", "context", "kind"),
    [
        ({"signal": "SIGKILL", "oom": "presumed"}, {}, "resource-based"),
        ({"signal": "SIGABRT", "trouble": "hung: made no progress"}, {}, "timing-based"),
        (NEAR, {}, "resource-based"),
        ({**NEAR, "registers": {"sp": "0x7f0000001000"}}, {}, "resource-based"),
        ({**NEAR, "address": "0xd0", "phase": "generating"}, {}, "systematic"),
        ({"signal": "SIGABRT", "log": ["E rkllm: malloc npu memory fail"]}, {}, "resource-based"),
        ({"signal": "SIGABRT", "log": ["  what():  std::bad_alloc"]}, {}, "resource-based"),
        ({"status": 1, "log": ["E rkllm: failed to submit task"]}, {}, "environmental"),
        ({"signal": "SIGILL", "frames": ["a.so+0x1"]}, {}, "environmental"),
        ({"signal": "SIGBUS", "code": "BUS_ADRERR"}, {}, "environmental"),
        ({"signal": "SIGSEGV", "sender": 7}, {"earlier": 3}, "environmental"),
        ({"status": 0, "log": ["rkvisor: ending because of SIGTERM"]}, {"earlier": 3}, "environmental"),
        ({"signal": "SIGSEGV", "frames": ["a.so+0x1"]}, {"others": 1}, "environmental"),
        ({"signal": "SIGSEGV", "frames": ["a.so+0x1"], "phase": "idle"}, {"earlier": 1}, "systematic"),
        ({"signal": "SIGSEGV", "frames": ["a.so+0x1"], "phase": "idle"}, {}, "timing-based"),
        ({"signal": "SIGSEGV", "phase": "stopping"}, {}, "timing-based"),
        ({"signal": "SIGSEGV", "phase": "generating"}, {}, "systematic"),
        ({"status": 1, "phase": "loading"}, {}, "systematic"),
        ({"status": 70}, {}, "systematic"),
    ],
)
def test_causes_are_classed_by_rules(members: dict[str, Any], context: dict[str, int], kind: str) -> None:
    rule = classify(evidence(**members), Context(**context))
    assert rule.kind == kind
    assert rule.hint


def test_a_first_request_that_ends_in_a_fault_hints_at_the_abi() -> None:
    first = evidence(signal="SIGSEGV", phase="prefill", requests=0, frames=["a.so+0x1"])
    assert "ABI" in classify(first, Context()).hint
    assert "ABI" not in classify(msgspec.structs.replace(first, requests=1), Context()).hint


def test_every_rule_can_be_reached_and_the_last_one_fits_all() -> None:
    assert RULES[-1].fits(evidence(), Context())
    assert {rule.kind for rule in RULES} == {"systematic", "environmental", "resource-based", "timing-based"}


def test_a_report_survives_its_storage() -> None:
    found = report(DEATH)
    text = msgspec.json.encode(found)
    assert b'"class":"systematic"' in text
    assert msgspec.json.decode(text, type=CrashReport) == found
