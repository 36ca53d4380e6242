"""What of rkvisor is built and installed here: the binding, the simulators, the CPU runtime, the optional libraries."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rkvisor.cython_ext.detection import UnknownRuntime, detect
from rkvisor.cython_ext.libraries import SIMULATORS, LibraryMissing, find_library
from rkvisor.cython_ext.llama_engine import PACKAGE
from rkvisor.worker.checks.finding import Finding

#: Optional library → what it is for.
OPTIONAL = {
    "tokenizers": "exact prompt lengths and `messages` with a tokenizer.json",
    "jinja2": "chat templates for `messages`",
    "numpy": "arrays instead of lists in the Python client",
}
_REINSTALL = "reinstall rkvisor where gcc and g++ are: pip install --force-reinstall ."


def check() -> list[Finding]:
    """Findings about the installation, the good ones too."""
    return [rkvisor(), binding(), simulators(), cpu_runtime(), *optional()]


def installed(package: str) -> str | None:
    """Its version, None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def rkvisor() -> Finding:
    """The distribution itself."""
    found = installed("rkvisor")
    if found is None:
        text = "runs from a tree that was never installed"
        return Finding(about="rkvisor", level="warning", text=text, remedy="pip install .")
    return Finding(about="rkvisor", level="ok", text=found)


def binding() -> Finding:
    """The compiled binding, which every worker loads; it is not loaded here."""
    spec = importlib.util.find_spec("rkvisor.cython_ext._rkllm")
    if spec is None or spec.origin is None or spec.origin.endswith((".pyx", ".pyi")):
        return Finding(about="binding", level="problem", text="the RKLLM binding is not built", remedy=_REINSTALL)
    return Finding(about="binding", level="ok", text=Path(spec.origin).name)


def simulators() -> Finding:
    """The simulator, built as each family."""
    missing = []
    for family in (None, *SIMULATORS):
        try:
            find_library("sim", family)
        except LibraryMissing:
            missing.append(family or "default")
    if missing:
        text = f"not built: {', '.join(missing)}"
        return Finding(about="simulators", level="problem", text=text, remedy=_REINSTALL)
    return Finding(about="simulators", level="ok", text=", ".join(SIMULATORS))


def cpu_runtime(*, is_needed: bool = False) -> Finding:
    """The runtime for GGUF files.  is_needed: a model asks for it, so its absence is a problem."""
    from rkvisor.cython_ext import build_llama
    from rkvisor.cython_ext.engine_steps import EngineError

    about, build = "CPU runtime", "python -m rkvisor.cython_ext.build_llama"
    absent = "problem" if is_needed else "note"
    try:
        engine = build_llama.require_engine()
    except EngineError as error:
        text, _, remedy = str(error).removeprefix("cannot build the CPU runtime: ").partition("; run ")
        return Finding(about=about, level=absent, text=text, remedy=f"{remedy}, then {build}")  # type: ignore[arg-type]
    if not build_llama.TARGET.is_file():
        return Finding(about=about, level=absent, text="is not built", remedy=build)  # type: ignore[arg-type]
    if not build_llama.is_current(engine):
        text = "was built from other sources, or against another engine than the one installed"
        return Finding(about=about, level="warning", text=text, remedy=build)
    try:
        detected = detect(str(build_llama.TARGET))
    except UnknownRuntime as error:
        return Finding(about=about, level="problem", text=str(error), remedy=build)
    text = f"{detected.family}, against {PACKAGE} {engine.version}"
    return Finding(about=about, level="ok", text=text)


def optional() -> Iterator[Finding]:
    """Libraries that rkvisor works without."""
    for name, use in OPTIONAL.items():
        found = installed(name)
        if found is not None:
            yield Finding(about=name, level="ok", text=found)
        else:
            text = f"not installed: no {use}"
            yield Finding(about=name, level="note", text=text, remedy=f"pip install {name}")
