"""The CPU runtime and its model, found as a bare machine has them: by metadata, without importing anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.rkllm_f5 import Runtime, load
from rkvisor.cython_ext import __file__ as package
from rkvisor.cython_ext.engine_steps import EngineError
from rkvisor.cython_ext.llama_engine import find_model

LIBRARY = Path(package or "").parent / "librkllmrt_llama.so"


def runtime_or_skip() -> tuple[Path, Path]:
    """Paths of runtime and GGUF file; skips the test, saying why, when one is missing."""
    if not LIBRARY.is_file():
        pytest.skip("the CPU runtime is not built: python -m rkvisor.cython_ext.build_llama")
    try:
        return LIBRARY, find_model()
    except EngineError as missing:
        pytest.skip(str(missing))


QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."


def start(**settings: object) -> Runtime:
    """A handle on a small context.  One thread: tests share their cores, and threads would only wait for each other."""
    library, model = runtime_or_skip()
    return Runtime(
        load(library), model, **{"max_context_len": 1024, "max_new_tokens": 24, "enabled_cpus_num": 1, **settings}
    )
