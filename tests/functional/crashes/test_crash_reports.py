"""Every way a worker dies leaves a complete report (design §5)."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from harness.crashing import CLASSES, FIELDS, IMPATIENT, NO_WINDOW, crashes, ctl, is_up, run
from harness.rkvisord import DEMO, Rkvisord, RpcError

pytestmark = pytest.mark.resilience


# Every kind of death.


@pytest.mark.parametrize(
    ("kind", "name", "code"),
    [
        ("segv", "SIGSEGV", "SEGV_MAPERR"),
        ("abrt", "SIGABRT", "SI_TKILL"),
        ("fpe", "SIGFPE", None),
        ("bus", "SIGBUS", "BUS_ADRERR"),
        ("ill", "SIGILL", "ILL_ILLOPN"),
        ("stack", "SIGSEGV", None),
    ],
)
@pytest.mark.parametrize("phase", ["prefill", "token"])
def test_a_fault_in_the_runtime_leaves_a_whole_report(kind: str, name: str, code: str | None, phase: str) -> None:
    with Rkvisord(supervisor=NO_WINDOW) as server, server.client() as client:
        pids = {worker["pid"]: worker["name"] for worker in server.workers()}
        run(client, "", prompt="warm up")
        result = run(client, f"[[sim:{kind} at={phase} after=3 times=1]]")
        assert result["resumed"] == 1
        (report,) = crashes(server, 1)
    assert report.keys() >= FIELDS
    assert (report["signal"], report["status"]) == (name, None)
    assert pids[report["pid"]] == report["worker"]
    assert report["class"] in CLASSES
    assert len(report["request_digest"]) == 64
    assert report["phase"] == ("prefill" if phase == "prefill" else "generating")
    assert any(frame.startswith("librkllmrt_sim.so+0x") for frame in report["frames"]), report["frames"]
    assert report["files"]["librkllmrt_sim.so"].endswith("/librkllmrt_sim.so")
    assert "librkllmrt_sim.so+0x" in report["signature"]
    assert any("worker/model.py" in line for line in report["python_stacks"])
    assert any("loading rkllm model" in line for line in report["log"])
    assert not any("worker/model.py" in line or "Fatal Python" in line for line in report["log"])
    assert report["registers"].keys() & {"rip", "pc"}
    assert report["code"] == code or code is None
    assert report["sender"] is None
    assert (report["family"], report["runtime"]) == ("F5", "sim")
    assert report["peak_rss_bytes"] >= report["rss_bytes"] > 2**20
    assert report["uptime_s"] > 0
    if kind == "stack":
        assert "stack ran over" in report["hint"]
        assert report["class"] == "resource-based"


@pytest.mark.parametrize(
    ("kind", "name", "status", "class_"),
    [("exit", None, 1, "systematic"), ("oom", "SIGKILL", None, "resource-based")],
)
def test_a_death_without_a_handler_leaves_a_report_too(
    kind: str, name: str | None, status: int | None, class_: str
) -> None:
    with Rkvisord(supervisor=NO_WINDOW) as server, server.client() as client:
        run(client, f"[[sim:{kind} after=3 times=1]]")
        (report,) = crashes(server, 1)
    assert (report["signal"], report["status"], report["class"]) == (name, status, class_)
    assert report["oom"] == ("presumed" if kind == "oom" else "")
    assert (report["frames"], report["phase"]) == ([], "generating")
    assert len(report["request_digest"]) == 64
    assert report["log"]
    assert report["rss_bytes"] > 2**20
    if kind == "oom":
        assert report["peak_rss_bytes"] > 64 * 2**20  # the memory that it had taken
        assert report["severity"] == "critical"


def test_a_hang_is_reported_with_the_place_where_it_hung() -> None:
    with Rkvisord(IMPATIENT, supervisor=NO_WINDOW) as server, server.client() as client:
        result = run(client, "[[sim:hang after=3 times=1]]")
        assert result["resumed"] == 1
        (report,) = crashes(server, 1)
    assert (report["signal"], report["class"]) == ("SIGABRT", "timing-based")
    assert report["trouble"].startswith("hung")
    assert any(frame.startswith("librkllmrt_sim.so+0x") for frame in report["frames"])  # of the runner …
    assert any(frame.startswith("libzmq") for frame in report["other_frames"])  # … not of the thread that was hit
    assert report["sender"] is None
    assert len(report["request_digest"]) == 64


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
def test_a_signal_from_outside_is_told_from_a_fault(number: signal.Signals) -> None:
    with Rkvisord(supervisor=NO_WINDOW) as server:
        worker = server.workers()[0]
        os.kill(worker["pid"], number)
        (report,) = crashes(server, 1)
    assert (report["signal"], report["pid"], report["worker"]) == (number.name, worker["pid"], worker["name"])
    assert (report["sender"], report["code"], report["class"]) == (os.getpid(), "SI_USER", "environmental")
    assert (report["phase"], report["request_digest"]) == ("idle", None)
    assert report["frames"]
    assert any("worker/main.py" in line for line in report["python_stacks"])


def test_a_sigkill_from_outside_passes_for_a_want_of_memory() -> None:
    with Rkvisord(supervisor=NO_WINDOW) as server:
        os.kill(server.workers()[0]["pid"], signal.SIGKILL)
        (report,) = crashes(server, 1)
    assert (report["signal"], report["class"], report["oom"]) == ("SIGKILL", "resource-based", "presumed")


def test_a_crash_in_init_is_a_crash_while_loading(tmp_path: Path) -> None:
    marked = "[[sim:segv at=init times=1]]"
    with Rkvisord(DEMO.replace("workers = 2", "workers = 1"), folder=tmp_path) as server, server.client() as client:
        run(client, marked)  # applies to the next init
        os.kill(server.workers()[0]["pid"], signal.SIGTERM)
        server.wait_until(lambda: len(server.call("system.crashes")["crashes"]) >= 2)
        reports = server.call("system.crashes")["crashes"]
    ended = next(one for one in reports if one["signal"] is None)
    assert (ended["status"], ended["class"], ended["phase"]) == (0, "environmental", "idle")
    assert "SIGTERM" in ended["hint"]
    report = next(one for one in reports if one["signal"] == "SIGSEGV")
    assert report["phase"] == "loading"
    assert any(frame.startswith("librkllmrt_sim.so+0x") for frame in report["frames"])
    assert "ABI" in report["hint"]


def test_a_crash_in_destroy_is_reported_though_the_end_was_asked_for() -> None:
    with Rkvisord(DEMO.replace("workers = 2", "workers = 1")) as server, server.client() as client:
        run(client, "[[sim:segv at=destroy times=1]]")
        server.admin_call("admin.stop", {"names": ["all"]})
        (report,) = crashes(server, 1)
    assert (report["signal"], report["phase"], report["class"]) == ("SIGSEGV", "stopping", "timing-based")
    assert any(frame.startswith("librkllmrt_sim.so+0x") for frame in report["frames"])


def test_what_was_asked_for_is_no_crash() -> None:
    with Rkvisord(supervisor=NO_WINDOW) as server:
        server.admin_call("admin.stop", {"names": ["all"]})
        server.admin_call("admin.start", {"names": ["all"]})
        server.stop()
        server.start()
        assert server.call("system.crashes")["crashes"] == []


def test_a_model_that_cannot_be_loaded_says_so_and_is_no_crash(tmp_path: Path) -> None:
    broken = DEMO.replace("builtin:tiny", "missing.toml").replace("faults = true", "")
    with Rkvisord(broken, folder=tmp_path) as server:
        assert {worker["state"] for worker in server.workers()} == {"FATAL"}
        assert server.call("system.crashes")["crashes"] == []


def test_a_worker_without_the_library_runs_and_its_death_is_reported_all_the_same() -> None:
    import rkvisor.worker.crash

    code = (
        "import sys, rkvisor.worker.crash as crash; crash.LIBRARY = 'librkvisor_missing.so';"
        "notes = crash.CrashNotes(int(sys.argv[1])); notes.cover_runner(); notes.refresh();"
        "assert notes.rss_bytes() > 0; import ctypes; ctypes.string_at(0)"
    )
    assert hasattr(rkvisor.worker.crash, "LIBRARY")
    end = subprocess.run([sys.executable, "-P", "-c", code, "2"], capture_output=True, text=True, timeout=60)
    assert end.returncode == -signal.SIGSEGV
    assert "no crash notes" in end.stderr
    assert "Fatal Python error: Segmentation fault" in end.stderr


# Nothing that it should not hold.


def test_a_report_never_holds_the_prompt(tmp_path: Path) -> None:
    secret = "xyzzy my secret"
    with Rkvisord(supervisor=NO_WINDOW, folder=tmp_path) as server, server.client() as client:
        with pytest.raises(RpcError) as caught:
            run(client, "[[sim:segv after=2]]", prompt=secret)
        assert caught.value.name == "POISON_REQUEST"
        reports = crashes(server, 2)
        letters = server.admin_call("admin.dead_letters")
        assert letters["dead_letters"][0]["digest"] == reports[0]["request_digest"] == reports[1]["request_digest"]
        assert server.stop() == 0
    assert secret not in json.dumps(reports) + json.dumps(letters)
    for path in (tmp_path / "state").glob("state.db*"):
        assert secret.encode() not in path.read_bytes()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


# Grouping and rate.


def test_deaths_at_one_place_are_one_group_and_systematic_from_the_second_on() -> None:
    with Rkvisord(supervisor=NO_WINDOW) as server, server.client() as client:
        for key in ("a", "b", "c"):
            run(client, f"[[sim:fpe after=3 times=1 key={key}]]", prompt=key)
        crashes(server, 3)
        found = server.call("system.crashes", {"limit": 2})
    assert [report["class"] for report in found["crashes"]] == ["systematic", "systematic"]
    assert "before" in found["crashes"][0]["hint"]
    (group,) = found["groups"]
    assert (group["count"], group["signature"]) == (3, found["crashes"][0]["signature"])
    assert group["workers"]


def test_reports_can_be_asked_for_by_worker_id_and_number() -> None:
    with Rkvisord(supervisor=NO_WINDOW) as server, server.client() as client:
        for key in ("a", "b", "c"):
            run(client, f"[[sim:segv after=3 times=1 key={key}]]", prompt=key)
            server.wait_until(lambda: is_up(server))
        newest, *older = crashes(server, 3)
        assert newest["time"] >= older[0]["time"] >= older[1]["time"]
        assert [one["id"] for one in crashes(server, 1, limit=1)] == [newest["id"]]
        assert [one["id"] for one in crashes(server, 1, id=older[0]["id"][:6])] == [older[0]["id"]]
        own = server.call("system.crashes", {"worker": newest["worker"]})["crashes"]
        assert {one["worker"] for one in own} == {newest["worker"]}
        with pytest.raises(RpcError, match="limit"):
            server.call("system.crashes", {"limit": 0})
        with pytest.raises(RpcError, match=r"no such worker; did you mean demo:\d\?"):
            server.call("system.crashes", {"worker": "demo:9"})
        text = server.config.read_text().replace("[models.demo]", "[models.other]")
        server.stop()
        server.config.write_text(text)
        server.start()
        assert server.call("system.crashes", {"worker": newest["worker"]})["crashes"] == own
        assert server.call("system.crashes", {"worker": "other:0"})["crashes"] == []


def test_a_crash_loop_does_not_flood_the_log() -> None:
    with Rkvisord(supervisor=NO_WINDOW) as server, server.client() as client:
        for key in range(30):
            run(client, f"[[sim:segv after=1 times=1 key=k{key}]]", prompt=str(key))
        crashes(server, 30)
        told = [line for line in server.log.read_text().splitlines() if "SIGSEGV" in line and " DEBUG " not in line]
    assert 2 <= len(told) <= 25, told  # two workers, five each, and their states a few times


# The operator's view.


def test_ctl_shows_crashes_and_all_of_one() -> None:
    with Rkvisord(supervisor=NO_WINDOW) as server, server.client() as client:
        assert ctl(server, "crashes") == (0, "no crashes\n")
        run(client, "[[sim:segv after=3 times=1]]")
        (report,) = crashes(server, 1)
        status, out = ctl(server, "crashes")
        assert status == 0
        assert all(word in out for word in (report["id"], report["worker"], "SIGSEGV", report["class"]))
        status, out = ctl(server, "crash", "show", report["id"][:5])
        assert status == 0
        wanted = [report["id"], report["request_digest"], report["frames"][0], "worker/model.py", "loading rkllm model"]
        assert [word for word in wanted if word not in out] == []
        assert ctl(server, "crash", "show", "nothing")[0] == 1
        assert ctl(server, "crash")[0] == 2
