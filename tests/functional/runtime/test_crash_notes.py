"""The note that a dying process leaves, whatever is broken in it (design §5)."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.resilience


def note_of(crash: str, tmp_path: Path) -> tuple[int, str, str]:
    """Wait status, note and stderr of a process that installs the handler and then executes *crash*."""
    path = tmp_path / "note"
    code = (
        "import ctypes, os, signal, sys, threading, time\n"
        "from rkvisor.worker.crash import CrashNotes\n"
        f"notes = CrashNotes(os.open({str(path)!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))\n{crash}\n"
    )
    end = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60)
    return end.returncode, path.read_text(), end.stderr


ADDRESS = "ctypes.CFUNCTYPE(None)(16)()"


@pytest.mark.parametrize("thread", [False, True])
def test_a_jump_to_nowhere_still_names_its_caller(tmp_path: Path, thread: bool) -> None:
    crash = f"def go(): notes.cover_runner(); {ADDRESS}\nt = threading.Thread(target=go); t.start(); t.join()"
    status, note, err = note_of(crash if thread else ADDRESS, tmp_path)
    assert status == -signal.SIGSEGV
    assert "address 0x10\n" in note
    frames = [line for line in note.splitlines() if line.startswith("frame ")]
    assert frames[0] == "frame 0x10"
    assert "libffi" in frames[1]
    assert note.endswith("end\n")
    assert "Fatal Python error" in err


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGSYS", "SIGTRAP"])
def test_the_wait_status_tells_the_first_signal(tmp_path: Path, name: str) -> None:
    number = getattr(signal, name)
    status, note, err = note_of(f"os.kill(os.getpid(), signal.{name})", tmp_path)
    assert status == -number
    assert note.startswith(f"rkvisor-crash 1\nsignal {int(number)}\n")
    assert "most recent call first" in err
    assert '"<string>", line 4' in err


def test_a_handler_that_crashes_itself_still_ends_by_the_first_signal(tmp_path: Path) -> None:
    broken = (
        "handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda number: None)\n"
        "libc = ctypes.CDLL(None)\nlibc.signal.restype = ctypes.c_void_p\n"
        "libc.signal(signal.SIGABRT, ctypes.c_void_p(8))\n"  # a handler before ours that is no code
        "notes._library.rkvisor_crash_install(os.open('/dev/null', os.O_WRONLY))\n"
        "os.abort()"
    )
    status, _, _ = note_of(broken, tmp_path)
    assert status == -signal.SIGABRT


def test_a_handler_that_hangs_is_ended_by_its_alarm(tmp_path: Path) -> None:
    broken = (
        "libc = ctypes.CDLL(None)\nlibc.signal.restype = ctypes.c_void_p\n"
        "libc.signal(signal.SIGABRT, ctypes.cast(libc.pause, ctypes.c_void_p))\n"
        "notes._library.rkvisor_crash_install(os.open('/dev/null', os.O_WRONLY))\n"
        "os.abort()"
    )
    status, _, _ = note_of(broken, tmp_path)
    assert status == -signal.SIGABRT


def test_two_threads_that_crash_at_once_leave_one_note(tmp_path: Path) -> None:
    crash = (
        "gate = threading.Barrier(4)\n"
        "def go(): notes.cover_runner(); gate.wait(); ctypes.string_at(0)\n"
        "threads = [threading.Thread(target=go) for _ in range(4)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]"
    )
    status, note, _ = note_of(crash, tmp_path)
    assert status == -signal.SIGSEGV
    assert note.count("rkvisor-crash 1\n") == 1
    assert note.count("end\n") == 1


def test_the_library_is_there() -> None:
    import rkvisor.cython_ext

    ctypes.CDLL(str(Path(rkvisor.cython_ext.__file__).parent / "librkvisor_crash.so"))


def test_an_exception_that_nobody_caught_ends_the_process_in_any_thread() -> None:
    code = (
        "import threading, time; from rkvisor.worker.crash import set_panic_hooks; set_panic_hooks()\n"
        "def go(): raise ValueError('bad')\n"
        "threading.Thread(target=go).start(); time.sleep(60)"
    )
    end = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=30)
    assert end.returncode == 70
    assert end.stderr.startswith("PANIC at <string>:2: ValueError: bad\nTraceback (most recent call last):\n")
