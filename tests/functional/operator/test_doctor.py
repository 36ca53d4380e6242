"""``rkvisor doctor``: run for real, on this machine, on a board made of files, and on what is wrong with both."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from harness.rkvisord import DEMO, Rkvisord
from rkvisor.cython_ext.libraries import PACKAGE

pytestmark = pytest.mark.api


#: Becomes a program to which permissions apply, also where root runs the tests (PR_CAPBSET_DROP, CAP_DAC_OVERRIDE); for
#: others they apply as it is, and the call fails.
BOUND = "import ctypes, os, sys; ctypes.CDLL(None).prctl(24, 1, 0, 0, 0); os.execv(sys.argv[1], sys.argv[1:])"


def doctor(*words: str, columns: int = 100, is_bound: bool = False) -> subprocess.CompletedProcess[str]:
    """is_bound: permissions apply to it."""
    command = [sys.executable, "-P", "-m", "rkvisor.client.command", "doctor", *words]
    if is_bound:
        command = [sys.executable, "-P", "-c", BOUND, *command]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": str(columns)})


def findings(*words: str, is_bound: bool = False) -> tuple[int, dict[str, dict[str, Any]]]:
    """(exit status, title of the group → about → finding; the worse one where two are about the same thing)."""
    done = doctor("--json", *words, is_bound=is_bound)
    assert done.stderr == ""
    order = ["ok", "note", "warning", "problem"]
    groups = {}
    for group in json.loads(done.stdout)["groups"]:
        ranked = sorted(group["findings"], key=lambda one: order.index(one["level"]))
        groups[group["title"]] = {one["about"]: one for one in ranked}
    return done.returncode, groups


def write(folder: Path, models: str) -> str:
    path = folder / "rkvisor.toml"
    path.write_text(models)
    return str(path)


def test_a_machine_without_an_npu_is_fine_as_long_as_no_model_needs_one(tmp_path: Path) -> None:
    status, groups = findings()
    assert status == 0
    assert list(groups) == ["machine", "installation", "NPU"]
    assert groups["installation"]["simulators"]["level"] == "ok"
    assert {one["level"] for one in groups["NPU"].values()} <= {"note", "ok", "warning"}
    status, groups = findings("-c", write(tmp_path, DEMO))
    assert status == 0
    assert groups["model demo (sim)"]["library"]["text"].endswith("family F5")
    assert "context 512" in groups["model demo (sim)"]["param"]["text"]
    assert not (tmp_path / "run").exists(), "it looks, and makes nothing"


BROKEN = """
[models.npu]
runtime = "rknpu"
path = "model_rk3576.rkllm"
param = { max_context_len = 100 }
[models.lfs]
runtime = "rknpu"
path = "pointer.rkllm"
library = "{sim}"
param = {{ enabled_cpus_mask = 3 }}
[models.cut]
runtime = "llama"
path = "none.gguf"
lora_dir = "nowhere"
[models.wide]
runtime = "sim"
path = "short.toml"
library = "f4"
param = {{ max_context_len = 96, ignore_eos_token = 1 }}
"""


def test_each_thing_that_is_wrong_is_a_problem_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "model_rk3576.rkllm").write_bytes(b"\1\2\3\4" * 100)
    (tmp_path / "pointer.rkllm").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    (tmp_path / "short.toml").write_text("context = 64\n")
    models = BROKEN.replace("{ max_context_len = 100 }", "{{ max_context_len = 100 }}")
    config = write(tmp_path, models.format(sim=PACKAGE / "librkllmrt_sim_f4.so"))
    status, groups = findings("-c", config)
    assert status == 1
    assert any(one["level"] == "problem" for one in groups["NPU"].values()), "a model needs it"
    npu, lfs, cut, wide = (
        groups[f"model {name}"] for name in ("npu (rknpu)", "lfs (rknpu)", "cut (llama)", "wide (sim)")
    )
    assert npu["context"]["level"] == "problem"
    assert "max_context_len = 96" in npu["context"]["remedy"]
    assert "cut off" in npu["file"]["text"]
    assert npu["tensors"]["level"] == "note"
    assert "git lfs pull" in lfs["file"]["text"]
    assert lfs["library"]["text"].endswith("version 1.2.3, family F4")
    assert "set enabled_cpus_num = 2" in lfs["CPUs"]["remedy"]
    assert "none.gguf" in cut["file"]["text"]
    assert cut["lora_dir"]["level"] == "problem"
    assert "limit of 64" in wide["context"]["text"]
    assert "ignore_eos_token" in wide["param"]["text"]
    assert groups["configuration"]["domains"]["text"].startswith("2 models share base_domain_id = 0")
    assert all(one["remedy"] for group in groups.values() for one in group.values() if one["level"] == "warning")


def test_a_configuration_that_cannot_be_read_is_the_problem_that_is_told(tmp_path: Path) -> None:
    status, groups = findings("-c", write(tmp_path, "[models.demo]\nruntime = 5\n"))
    assert status == 1
    assert "[models.demo]" in groups["configuration"]["file"]["text"]
    assert findings("-c", str(tmp_path / "none.toml"))[0] == 1


@pytest.mark.parametrize("is_bound", [False, True])
@pytest.mark.parametrize("folder", ["/proc/nowhere", "/sys/nowhere"])
def test_a_folder_that_nobody_can_make_is_a_problem_for_root_too(tmp_path: Path, folder: str, is_bound: bool) -> None:
    config = write(tmp_path, f'[supervisor]\nstate_dir = "{folder}"\n{DEMO}')
    status, groups = findings("-c", config, is_bound=is_bound)
    assert status == 1
    found = groups["configuration"]["state_dir"]
    assert found["level"] == "problem"
    assert found["text"].startswith(f"{folder} cannot be made")


def test_what_is_in_the_way_of_a_socket_is_a_problem() -> None:
    with tempfile.TemporaryDirectory(prefix="rkv") as name, socket.socket(socket.AF_UNIX) as other:
        (Path(name) / "precious.txt").write_text("")
        status, groups = findings("-c", write(Path(name), f'[listen]\nadmin = "ipc://precious.txt"\n{DEMO}'))
        assert status == 1
        assert f"{name}/precious.txt is a file, not a socket" in groups["configuration"]["file"]["text"]
        other.bind(f"{name}/other.sock")
        other.listen()
        status, groups = findings("-c", write(Path(name), f'[listen]\nadmin = "ipc://other.sock"\n{DEMO}'))
        assert status == 1
        assert "[listen]: admin" in groups["configuration"]["socket"]["text"]
        assert "stop that program" in groups["configuration"]["socket"]["remedy"]


def test_a_folder_that_may_not_be_written_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o555)
    config = write(tmp_path, f'[supervisor]\nstate_dir = "{tmp_path}/closed/state"\n{DEMO}')
    status, groups = findings("-c", config, is_bound=True)
    assert status == 1
    assert groups["configuration"]["state_dir"]["text"].endswith(f"no right to write in {tmp_path}/closed")


def test_a_daemon_that_runs_is_named_and_its_port_is_not_held_against_it() -> None:
    with Rkvisord() as server:
        status, groups = findings("-c", str(server.config))
        assert status == 0
        assert groups["configuration"]["rkvisord"]["text"].endswith(f"pid {server.pid}")


def test_the_report_is_text_that_fits_a_terminal_and_names_every_way_out(tmp_path: Path) -> None:
    config = write(tmp_path, '[models.m]\nruntime = "rknpu"\npath = "none.rkllm"\n')
    done = doctor("-c", config, columns=80)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert [line for line in lines if len(line) > 80 and str(tmp_path) not in line and "/" not in line] == []
    assert lines[-1].endswith("problems and 1 warning")
    assert any(line.startswith("  PROBLEM  file") for line in lines)
    assert any(line.lstrip().startswith("→") for line in lines)


def board(root: Path, driver: str = "0.9.8") -> None:
    for path, text in {
        "sys/module/rknpu/version": driver,
        "proc/device-tree/compatible": "radxa,rock-5b\0rockchip,rk3588\0",
        "proc/meminfo": "MemTotal: 1024 kB\nMemAvailable: 1024 kB\n",
        "sys/devices/system/cpu/present": "0-3",
        "dev/rtc0": "",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def test_the_machine_is_read_below_a_root(tmp_path: Path) -> None:
    board(tmp_path)
    (tmp_path / "big.toml").write_text("resident_mb = 4\n")
    config = write(tmp_path, '[models.big]\nruntime = "sim"\npath = "big.toml"\n')
    status, groups = findings("-c", config, "--root", str(tmp_path))
    assert status == 1
    assert "1 MB of 1 MB memory" in groups["machine"]["system"]["text"]
    assert "4 CPUs" in groups["machine"]["system"]["text"]
    assert groups["machine"]["clock"]["level"] == "ok"
    assert groups["model big (sim)"]["memory"]["level"] == "problem"
