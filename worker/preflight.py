"""What is looked at before the runtime sees a model: its file, this machine, the parameters.  Refuses with the way out.

RKLLM ends in a segfault or in exit() where a file, a driver or the memory is not what it needs (behaviour §3); the
rules are in ``checks``, which ``rkvisor doctor`` reads out as well.
"""

from __future__ import annotations

import contextlib
import functools
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rkvisor.protocol.errors import ModelUnavailable, RkllmFailure, RkvisorError
from rkvisor.worker import gguf
from rkvisor.worker.checks import machine as machines
from rkvisor.worker.checks import memory, npu, parameters
from rkvisor.worker.checks.finding import Finding, first_problem
from rkvisor.worker.checks.heads import HEAD_BYTES, stranger
from rkvisor.worker.checks.machine import Machine
from rkvisor.worker.inputs import Dimensions

#: What a simulated model has that does not say (cython_ext/sim/model.c).
SIMULATED = {"embedding_size": 64, "vocab_size": 1024}
#: Formats that a file announces itself, by its first bytes, and the runtime that reads them.
_MAGICS = {b"GGUF": "llama"}


class CannotLoad(Exception):
    """The model cannot be loaded.  is_permanent: another try would fail alike."""

    def __init__(self, error: RkvisorError, *, is_permanent: bool):
        super().__init__(str(error))
        self.error = error
        self.is_permanent = is_permanent


# The file.


def check_file(runtime: str, path: str) -> None:
    """Raise CannotLoad, for good, where *path* is no file that *runtime* could read."""
    try:
        found = file_problem(runtime, path)
    except OSError as error:
        failure = RkllmFailure("RKLLM_MODEL_NOT_FOUND", f"cannot read {path}: {error.strerror}", component="worker")
        raise CannotLoad(failure, is_permanent=True) from error
    if found:
        raise CannotLoad(ModelUnavailable(f"cannot load the model: {found}", component="worker"), is_permanent=True)


def file_problem(runtime: str, path: str) -> str:
    """Why *path* is no file that *runtime* could read, "" where it may be one.  Raises OSError."""
    with Path(path).open("rb") as file:
        head = file.read(HEAD_BYTES)
    announced = _MAGICS.get(head[:4])
    if announced is not None and announced != runtime:
        return f'{path} is a GGUF file; set runtime = "llama" for it, not {runtime!r}'
    strange = stranger(head) if runtime != "sim" else None
    if runtime == "llama" and announced != "llama":
        more = f"; it is {strange[0]}: {strange[1]}" if strange else ""
        return f'{path} is no GGUF file (it begins with {head[:4]!r}), which runtime "llama" needs{more}'
    if strange is not None:
        return f"{path} is no model: it is {strange[0]}; {strange[1]}"
    if runtime == "sim":
        try:
            simulated(path)
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            return f"{path} is no model of the simulator: {error}"
    return ""


@functools.cache  # a process loads one model
def simulated(path: str) -> dict[str, Any]:
    """A model of the simulator.  Raises OSError, UnicodeDecodeError, tomllib.TOMLDecodeError."""
    return tomllib.loads(Path(path).read_text(encoding="utf-8"))


# The machine and the parameters.


def check_machine(runtime: str, path: str, machine: Machine | None = None, kind: str = "") -> None:
    """Raise CannotLoad where this machine cannot run *path*: no memory, no driver, no right to its devices.

    Too little memory may pass; what the NPU lacks will not.  kind: ``uname -m``; a library that loads elsewhere than on
    aarch64 is not Rockchip's, and needs no NPU.
    """
    if runtime == "sim" and not simulated(path).get("resident_mb"):
        return  # nothing to ask for, and a simulated worker should be up at once
    machine = machine or machines.read()
    if runtime == "rknpu" and (kind or os.uname().machine) == "aarch64":
        _refuse(npu.check(machine.npu, "aarch64"), "", is_permanent=True)
    _refuse([memory_finding(runtime, path, machine)], path, is_permanent=False)


def memory_finding(runtime: str, path: str, machine: Machine) -> Finding:
    """Whether one process of the model finds memory.  Raises OSError."""
    return memory.check(
        runtime,
        needed_bytes=needed_bytes(runtime, path),
        available_bytes=machine.available_bytes,
        total_bytes=machine.total_bytes,
    )


def needed_bytes(runtime: str, path: str) -> int:
    """What one process of the model takes at the very least.  Raises OSError."""
    if runtime == "sim":
        return int(simulated(path).get("resident_mb", 0)) * memory.MIB
    return Path(path).stat().st_size


def missing_bytes(runtime: str, path: str) -> int:
    """How many bytes of a file's tensors are missing at its end, 0 where it is whole or does not tell."""
    if runtime != "llama":
        return 0
    try:
        return max(0, gguf.end_of_tensors(path) - Path(path).stat().st_size)
    except (OSError, ValueError):
        return 0


def check_parameters(runtime: str, path: str, param: Mapping[str, Any]) -> None:
    """Raise CannotLoad, for good, where *param*, the defaults filled in, would make init fail or the process end."""
    _refuse(parameters.check(param, runtime=runtime, context_limit=context_limit(runtime, path)), "", is_permanent=True)


def context_limit(runtime: str, path: str) -> int | None:
    """The longest context of the model, None where its file does not tell."""
    if runtime == "sim":
        told = simulated(path).get("context")
        return told if isinstance(told, int) else None
    if runtime == "llama":
        with contextlib.suppress(OSError, ValueError):
            architecture = gguf.metadata(path, {"general.architecture"}).get("general.architecture")
            key = f"{architecture}.context_length"
            told = gguf.metadata(path, {key}).get(key)
            return told if isinstance(told, int) else None
    return None


def _refuse(findings: Iterable[Finding], what: str, *, is_permanent: bool) -> None:
    found = first_problem(findings)
    if found is None:
        return
    text = f"cannot load {what or 'the model'}: {found.text}" + (f"; {found.remedy}" if found.remedy else "")
    raise CannotLoad(RkllmFailure(found.code, text, component="worker"), is_permanent=is_permanent)


# The dimensions.


def dimensions(runtime: str, path: str, param: dict[str, Any], embedding_size: int, vocab_size: int) -> Dimensions:
    """What is known of the model.  embedding_size, vocab_size: as configured, 0 where they are not."""
    known: dict[str, Any] = {}
    if runtime == "sim":
        known = SIMULATED | simulated(path)
    elif runtime == "llama":
        with contextlib.suppress(
            OSError, ValueError
        ):  # the engine has read it already: it is a file of some other form
            known["embedding_size"], known["vocab_size"] = gguf.dimensions(path)
    return Dimensions(
        embedding_size=embedding_size or known.get("embedding_size"),
        vocab_size=vocab_size or known.get("vocab_size"),
        n_batch=int(param.get("n_batch", 1)),
    )
