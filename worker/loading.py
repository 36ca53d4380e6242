"""What comes before ``rkllm_init``: the file is looked at, the library loaded and recognised, the tokenizer read.

None of it takes the memory that a model takes, so a spare does it while the process that it replaces still dies.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rkvisor.cython_ext import _rkllm
from rkvisor.cython_ext.detection import UnknownRuntime, detect
from rkvisor.cython_ext.libraries import LibraryMissing, find_library
from rkvisor.protocol.errors import ModelUnavailable, RkllmFailure
from rkvisor.protocol.link import Load
from rkvisor.worker.preflight import CannotLoad, check_file, check_parameters
from rkvisor.worker.prompts import Prompts
from rkvisor.worker.tokenizer import CannotTokenize

#: What another try would meet again.
_PERMANENT = (
    LibraryMissing,
    UnknownRuntime,
    _rkllm.LibraryError,
    _rkllm.NotSupported,
    CannotTokenize,
    TypeError,
    ValueError,
)


@contextmanager
def refusals(load: Load) -> Iterator[None]:
    """Tell what goes wrong inside as CannotLoad."""
    try:
        yield
    except _PERMANENT as error:
        raise CannotLoad(_unavailable(load, error), is_permanent=True) from error
    except OSError as error:
        raise CannotLoad(_unavailable(load, error), is_permanent=False) from error
    except _rkllm.RkllmError as error:
        text = f"{error.function} of {load.path} returned {error.status}"
        raise CannotLoad(
            RkllmFailure("RKLLM_INFERENCE_ERROR", text, component=load.worker), is_permanent=False
        ) from error


def _unavailable(load: Load, error: Exception) -> ModelUnavailable:
    return ModelUnavailable(f"cannot load the model: {error}", component=load.worker)


class Prepared:
    """All but the init, done on construction (CannotLoad).  on_library is called when the library is loaded.

    defaults, param: of RKLLMParam, the latter with what is configured.  took_s: what it took.
    """

    def __init__(self, load: Load, on_library: Callable[[], None] = lambda: None):
        started = time.monotonic()
        self.load = load
        with refusals(load):
            check_file(load.runtime, load.path)
            path = find_library(load.runtime, load.library)
            if load.runtime == "sim":
                os.environ["RKVISOR_SIM_FAULTS"] = "1" if load.faults else "0"
                os.environ["RKVISOR_SIM_STATE"] = str(Path(load.state_dir) / "sim")
                Path(os.environ["RKVISOR_SIM_STATE"]).mkdir(mode=0o700, parents=True, exist_ok=True)
            detected = detect(path, forced=load.abi, cache_dir=str(Path(load.state_dir) / "abi"))
            self.version = detected.version
            self.runtime = _rkllm.Runtime(path, detected.family, hide_force_tokens=not load.force_tokens)
            on_library()
            self.defaults = self.runtime.default_param()
            self.param = {**self.defaults, **load.param, "model_path": load.path}
            self.defaults.pop("model_path", None)
            if load.preflight:
                check_parameters(load.runtime, load.path, self.param)
            self.prompts = Prompts(load)
        self.took_s = time.monotonic() - started
