"""A ctypes program of the vendor's kind, run as it is against both of our libraries (issue 4, item 9)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.abi_ctypes import LIBRARIES, ROOT
from harness.llama import runtime_or_skip

pytestmark = pytest.mark.api

PROGRAM = ROOT / "tests" / "foreign" / "ctypes_demo.py"
TINY = ROOT / "etc" / "models" / "tiny.toml"
#: What each scenario prints where everything is as the vendor's ABI has it; {init}: whose userdata the callback gets.
EXPECTED = {
    "userdata": ["own: True 2", "init: {init}"],
    "polling": ["idle: True", "polled: True refused True states 2 text True", "after: 2 True"],
    "stopping": ["stopped: True", "whole: True"],
    "verdicts": [
        *(f"verdict: {number} True" for number in (2, 3, -1, 100)),
        "paused: 1 False",
        "resumed: True",
    ],
    "handles": ["alike: 1 True", "again: True"],
    "mistakes": [
        *["null: -1"] * 10,
        "missing: True True",
        "input: -1",
        "infer: -1",
        "twice: -1",
        "late: -1 -1",
        "fresh: True",
    ],
    "leaving": ["left: now"],
}


def run(family: str, library: Path, model: Path, *words: str, stdin: str = "") -> list[str]:
    """The program's own lines.  It must end with status 0."""
    command = [sys.executable, "-P", str(PROGRAM), family, str(library), str(model), *words]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    return [line for line in done.stdout.splitlines() if re.match(r"[a-z]+: ", line)]


def check(scenario: str, family: str, lines: list[str]) -> None:
    init = "True False" if family == "f5" else "False True"
    assert lines == [line.format(init=init) for line in EXPECTED[scenario]]


@pytest.mark.parametrize("family", ["f4", "f5"])
@pytest.mark.parametrize("scenario", EXPECTED)
def test_it_runs_on_the_simulator(family: str, scenario: str) -> None:
    check(scenario, family, run(family, LIBRARIES / f"librkllmrt_sim_{family}.so", TINY, scenario))


@pytest.mark.llama
@pytest.mark.parametrize("scenario", EXPECTED)
def test_it_runs_on_the_cpu_runtime(scenario: str) -> None:
    library, model = runtime_or_skip()
    check(scenario, "f5", run("f5", library, model, scenario))


@pytest.mark.parametrize("family", ["f4", "f5"])
def test_it_may_leave_without_a_word_while_it_generates(family: str) -> None:
    library = LIBRARIES / f"librkllmrt_sim_{family}.so"
    assert run(family, library, TINY, "leaving", "at once") == ["left: now"]


def check_chat(lines: list[str]) -> tuple[list[str], list[list[int]]]:
    robots = [line.removeprefix("robot: ") for line in lines if line.startswith("robot: ")]
    counts = [[int(n) for n in re.findall(r"\d+", line)] for line in lines if line.startswith("count: ")]
    assert len(robots) == len(counts) == 3
    assert all(robots)
    assert counts[1][2] > counts[0][2], "the second turn stands behind the first"
    assert counts[2][2] < counts[1][2], "and the third is the first again"
    return robots, counts


@pytest.mark.parametrize("family", ["f4", "f5"])
def test_it_chats_on_stdin_with_a_history(family: str) -> None:
    questions = "Hello there\nAnd now?\nclear\nHello there\nexit\nnever asked\n"
    robots, counts = check_chat(run(family, LIBRARIES / f"librkllmrt_sim_{family}.so", TINY, "chat", stdin=questions))
    assert robots[2] == robots[0] != robots[1]
    assert counts[2] == counts[0]


@pytest.mark.llama
def test_it_chats_with_a_real_model() -> None:
    library, model = runtime_or_skip()
    question = "What is the capital of France?"
    robots, _ = check_chat(run("f5", library, model, "chat", stdin=f"{question}\nAnd of Italy?\nclear\n{question}\n"))
    assert "Paris" in robots[0]
    assert robots[2] == robots[0]
