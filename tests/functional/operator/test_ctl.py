"""rkvisorctl against a real rkvisord, or none."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.rkvisord import DEMO, PATIENCE_S, Rkvisord

RUNNING = r"demo:%d                           RUNNING   pid \d+, uptime 0:00:\d\d"


@pytest.fixture(scope="module")
def shared() -> Iterator[Rkvisord]:
    with Rkvisord(DEMO) as running:
        yield running


@pytest.fixture
def server(shared: Rkvisord) -> Rkvisord:
    """All workers run."""
    ctl(shared, "start", "all")
    return shared


def run(*words: str, cwd: Path | None = None) -> tuple[int, str, str]:
    """rkvisorctl's exit status, stdout and stderr."""
    command = [sys.executable, "-P", "-c", "import sys; from rkvisor.supervisor.ctl.main import main; sys.exit(main())"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RKVISOR_")}
    done = subprocess.run(
        [*command, *words], capture_output=True, text=True, timeout=PATIENCE_S, cwd=cwd, env=environment
    )
    return done.returncode, done.stdout, done.stderr


def ctl(server: Rkvisord, *words: str) -> tuple[int, str]:
    code, out, err = run("-c", str(server.config), *words)
    assert err == ""
    return code, out


def test_status_shows_every_worker(server: Rkvisord) -> None:
    code, out = ctl(server, "status")
    assert code == 0
    first, second = out.splitlines()
    assert re.fullmatch(RUNNING % 0, first)
    assert re.fullmatch(RUNNING % 1, second)


def test_stop_and_start_answer_when_it_is_done(server: Rkvisord) -> None:
    assert ctl(server, "stop", "demo:0") == (0, "demo:0: stopped\n")
    code, out = ctl(server, "status", "demo:0")
    assert code == 3
    assert re.fullmatch(r"demo:0 +STOPPED   [A-Z][a-z]{2} \d\d \d\d:\d\d [AP]M\n", out)
    assert ctl(server, "stop", "demo:0") == (0, "demo:0: ERROR (not running)\n")
    assert ctl(server, "start", "demo:0") == (0, "demo:0: started\n")
    code, out = ctl(server, "status", "demo:0")
    assert code == 0
    assert "RUNNING" in out
    assert ctl(server, "start", "demo:0") == (0, "demo:0: ERROR (already started)\n")


def test_groups_and_all(server: Rkvisord) -> None:
    both = "demo:0: {0}\ndemo:1: {0}\n"
    assert ctl(server, "stop", "demo:*") == (0, both.format("stopped"))
    assert ctl(server, "stop", "all") == (0, "")
    assert ctl(server, "start", "demo:") == (0, both.format("started"))
    assert ctl(server, "start", "all") == (0, "")
    assert ctl(server, "restart", "all") == (0, both.format("stopped") + both.format("started"))


def test_names_that_do_not_exist(server: Rkvisord) -> None:
    assert ctl(server, "start", "nope") == (1, "nope: ERROR (no such process)\n")
    assert ctl(server, "start", "demo:9") == (1, "demo:9: ERROR (no such process)\n")
    assert ctl(server, "start", "nope:*") == (2, "nope: ERROR (no such group)\n")
    assert ctl(server, "stop", "nope:*") == (1, "nope: ERROR (no such group)\n")
    assert ctl(server, "restart", "nope") == (1, "nope: ERROR (no such process)\n" * 2)
    assert ctl(server, "status", "nope") == (4, "nope: ERROR (no such process)\n")


def test_restart_gives_a_worker_another_process(server: Rkvisord) -> None:
    _, before = ctl(server, "pid", "demo:0")
    assert ctl(server, "restart", "demo:0") == (0, "demo:0: stopped\ndemo:0: started\n")
    _, after = ctl(server, "pid", "demo:0")
    assert int(before) != int(after)


def test_pids_are_those_of_the_processes(server: Rkvisord) -> None:
    assert ctl(server, "pid") == (0, f"{server.pid}\n")
    code, out = ctl(server, "pid", "all")
    assert code == 0
    assert [int(line) for line in out.splitlines()] == [worker["pid"] for worker in server.workers()]


def test_version_is_rkvisords(server: Rkvisord) -> None:
    assert ctl(server, "version") == (0, server.call("system.version")["version"] + "\n")


def test_a_worker_that_cannot_start_is_a_spawn_error(tmp_path: Path) -> None:
    model = tmp_path / "model.toml"
    model.write_text("this is no model")
    with Rkvisord(f'[models.demo]\nruntime = "sim"\npath = "{model}"\n') as server:
        code, out = ctl(server, "status")
        assert code == 3
        assert out.split()[:2] == ["demo:0", "FATAL"]
        assert ctl(server, "start", "demo:0") == (7, "demo:0: ERROR (spawn error)\n")
        assert ctl(server, "pid", "demo:0") == (7, "0\n")


def test_shutdown_ends_rkvisord_and_then_there_is_none(tmp_path: Path) -> None:
    with Rkvisord(DEMO) as server:
        assert ctl(server, "shutdown") == (0, "Shut down\n")
        assert server.process is not None
        assert server.process.wait(PATIENCE_S) == 0
        code, out = ctl(server, "shutdown")
        assert code == 1
        assert out.startswith(f"ERROR: {server.admin} ")
        assert out.endswith("(already shut down?)\n")
        assert ctl(server, "status")[0] == 4


def test_no_server(tmp_path: Path) -> None:
    none = f"ipc://{tmp_path}/none"
    assert run("-s", none, "status")[:2] == (4, f"{none} no such file\n")
    assert run("-s", none, "pid")[:2] == (7, f"{none} no such file\n")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "stale"))
    stale_one = f"ipc://{tmp_path}/stale"
    assert run("-s", stale_one, "status")[:2] == (4, f"{stale_one} refused connection\n")
    assert run("-s", stale_one, "start", "demo:0")[:2] == (4, f"{stale_one} refused connection\n")
    code, _, err = run("status", cwd=tmp_path)
    assert code == 4
    assert f"no {tmp_path}/rkvisor.toml" in err


def test_a_start_that_loses_rkvisord_says_so(server: Rkvisord) -> None:
    with Rkvisord(DEMO.replace("workers = 2", "workers = 1")) as own:
        with own.client() as client:
            client.send("rkllm.run", {"model": "demo", "prompt": "[[sim:slow ms=100]]x", "max_new_tokens": 400})
            own.wait_until(lambda: own.call("rkllm.is_running")["is_running"])
            words = ["-P", "-m", "rkvisor.supervisor.ctl.main", "-s", own.admin, "stop", "demo:0"]
            with subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True) as stopping:
                own.wait_until(lambda: own.workers()[0]["state"] == "STOPPING")
                own.kill()
                out, _ = stopping.communicate(timeout=PATIENCE_S)
        assert out == f"{own.admin} closed the connection\n"
        assert stopping.returncode == 1


def test_a_status_imports_little(server: Rkvisord) -> None:
    script = (
        "import sys; from rkvisor.supervisor.ctl.main import main; main();"
        "heavy = {'asyncio', 'msgspec', 'loguru', 'psutil', 'argparse', 'dataclasses', 'subprocess', 'selectors'};"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    words = [sys.executable, "-P", "-c", script, "-s", server.admin, "status"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S)
    assert (done.returncode, done.stderr) == (0, "")
