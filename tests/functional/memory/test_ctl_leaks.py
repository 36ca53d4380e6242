"""``rkvisorctl leaks`` against a live rkvisord whose simulator leaks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.rkvisord import Rkvisord

MODEL = """
[memory]
interval_s = 0.5
request_interval_s = 0.05
look_interval_s = 5.0

[models.demo]
runtime = "sim"
path = "builtin:tiny"
spares = 0
faults = true
"""


def ctl(server: Rkvisord, *words: str, encoding: str = "utf-8") -> subprocess.CompletedProcess[str]:
    """rkvisorctl in a terminal of 80 columns."""
    command = [sys.executable, "-P", "-m", "rkvisor.supervisor.ctl.main", "-s", server.admin, *words]
    environment = os.environ | {"COLUMNS": "80", "PYTHONIOENCODING": encoding}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.timeout(600)
def test_rkvisorctl_shows_leaks_as_a_table_as_json_and_as_a_page(tmp_path: Path) -> None:
    with Rkvisord(MODEL) as server:
        with server.client() as client:
            for number in range(120):
                prompt = f"[[sim:leak bytes=65536 where=mmap]]tell {number}"
                client.call("rkllm.run", {"model": "demo", "prompt": prompt, "max_new_tokens": 2})
        table = ctl(server, "leaks")
        lines = table.stdout.splitlines()
        assert table.returncode == 0
        assert lines[0].split()[:4] == ["WORKER", "VERDICT", "RSS", "GROWTH"]
        assert [line.split()[0] for line in lines[1:3]] == ["demo:0", "rkvisord"]
        assert max(map(len, lines)) <= 80
        found = json.loads(ctl(server, "leaks", "demo:0", "--json").stdout)
        assert [one["name"] for one in found["workers"]] == ["demo:0"]
        assert len(found["workers"][0]["lives"][0]["points"]) > 10
        page = tmp_path / "leaks.html"
        assert ctl(server, "leaks", "--html", str(page)).stdout == f"{page}: written\n"
        assert page.read_text().count("<svg") >= 4
        assert "http" not in page.read_text()
        assert ctl(server, "leaks", "demo:7").returncode == 1
        poor = ctl(server, "leaks", encoding="ascii")
        assert (poor.returncode, poor.stderr) == (0, "")
        assert [line.split()[0] for line in poor.stdout.splitlines()[1:3]] == ["demo:0", "rkvisord"]
        assert poor.stdout.isascii()
        assert ctl(server, "leaks", "--xml").returncode == 2


def test_a_report_that_cannot_be_made_is_an_error_and_not_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = "def report(*_, **__):\n    raise RuntimeError('the seed is bad')\n"
    code = f"import rkvisor.supervisor.memory.reporting as reporting\n{broken}reporting.report = report\n"
    (tmp_path / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Rkvisord(MODEL) as server:
        asked = ctl(server, "leaks")
        assert asked.returncode == 1
        assert "cannot report on the memory: RuntimeError: the seed is bad" in asked.stdout
        assert server.call("rkllm.run", {"model": "demo", "prompt": "x", "max_new_tokens": 1})["text"]
