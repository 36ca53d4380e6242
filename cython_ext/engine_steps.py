"""The slow steps of getting an engine: pip under watch, and the proof that what it built can decode.

Knows nothing of versions, caches or environments.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

PARTS = ("include/", "llama_cpp/lib/")  # what of the package is used
PROOF_SOURCE = Path(__file__).parent / "llama" / "engine_proof.cpp"
PROOF_ANSWER = " Paris"
HEARTBEAT_S = 15.0
PROOF_TIMEOUT_S = 120.0


class EngineError(Exception):
    """The engine or model cannot be had; the text starts "cannot …" and says what to do."""


class ProofError(EngineError):
    """The engine was run and is broken."""


def say(text: str) -> None:
    print(f"engine: {text}", flush=True)


def run_pip(arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
    """Run pip with its output in ``log``, telling every ``HEARTBEAT_S`` seconds that it still works."""
    started = time.monotonic()
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
        )
        try:
            while True:
                try:
                    status = process.wait(HEARTBEAT_S)
                    break
                except subprocess.TimeoutExpired:
                    minutes, seconds = divmod(round(time.monotonic() - started), 60)
                    say(f"still working, {minutes} min {seconds:02} s so far")
        except BaseException:
            # pip's compilers are in its session: an interrupted build must not go on behind the user's back.
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            raise
    if status != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
        raise EngineError(f"cannot run pip {arguments[0]} (exit {status}), see {log}; its last lines were:\n{tail}")


def decode_once(root: Path, model: Path) -> None:
    """Compile the proof against the engine unpacked at ``root`` and let it decode.  Raises EngineError."""
    libraries = root / PARTS[1]
    with tempfile.TemporaryDirectory(prefix="rkvisor-proof-") as folder:
        program = Path(folder) / "engine_proof"
        compiler = os.environ.get("CXX", "g++")
        command = [
            compiler, "-std=c++17", "-O1", str(PROOF_SOURCE), f"-I{root / PARTS[0]}", f"-L{libraries}",
            "-lllama", "-lggml", "-lggml-base", f"-Wl,-rpath,{libraries}", "-o", str(program),
        ]  # fmt: skip
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError as missing:
            raise EngineError(f"cannot find the C++ compiler {compiler}: install g++ or set CXX") from missing
        except subprocess.CalledProcessError as failed:
            raise EngineError(f"cannot compile the proof of the engine:\n{failed.stderr}") from failed
        _run_proof([str(program), str(model)])


def _run_proof(command: Sequence[str]) -> None:
    try:
        proof = subprocess.run(command, capture_output=True, text=True, timeout=PROOF_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as hung:
        raise ProofError(f"cannot decode with the engine: no answer in {PROOF_TIMEOUT_S:.0f} s") from hung
    if proof.returncode < 0:
        raise ProofError(f"cannot decode with the engine: it died with {signal.Signals(-proof.returncode).name}")
    answer = proof.stdout.rstrip("\n")
    if proof.returncode != 0 or answer != PROOF_ANSWER:
        said = f"it said {answer!r} {proof.stderr.strip()!r} (exit {proof.returncode})"
        raise ProofError(f"cannot decode with the engine: {said}, not {PROOF_ANSWER!r}")
