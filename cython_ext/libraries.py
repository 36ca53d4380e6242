"""Where a model's runtime library lies.

Decides by names and looks whether the file exists; it neither opens nor judges the library (``detection`` does).
"""

import os
from pathlib import Path

PACKAGE = Path(__file__).parent
SIMULATORS = ("f1", "f3", "f4", "f5")
VENDOR_LIBRARY = "librkllmrt.so"
VENDOR_DIRECTORIES = ("/usr/lib", "/usr/lib64", "/usr/lib/aarch64-linux-gnu", "/usr/local/lib", "/oem/usr/lib")


class LibraryMissing(Exception):
    """A runtime's library is not where it should be.  The message says how to get it."""

    def __init__(self, runtime: str, reason: str) -> None:
        super().__init__(f"cannot find the library of runtime {runtime!r}: {reason}")
        self.runtime = runtime
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.runtime, self.reason)


def find_library(runtime: str, library: str | None) -> str:
    """Path of the library of a model.

    runtime: "rknpu", "llama" or "sim".  library: a path; for "sim" also a family, "f1", "f3", "f4" or "f5"; None for
    the default.  Raises LibraryMissing; ValueError for another runtime.
    """
    if runtime not in ("rknpu", "llama", "sim"):
        raise ValueError(f"cannot find a library for runtime {runtime!r}: need rknpu, llama or sim")
    if runtime == "sim" and (library is None or library in SIMULATORS):
        name = f"librkllmrt_sim_{library}.so" if library else "librkllmrt_sim.so"
        return _existing(runtime, PACKAGE / name, "reinstall rkvisor, which builds the simulators")
    if library is not None:
        return _existing(runtime, Path(library), "look at 'library' in the model's section")
    if runtime == "llama":
        return _existing(
            runtime, PACKAGE / "librkllmrt_llama.so", "build it with: python -m rkvisor.cython_ext.build_llama"
        )
    return _vendor_library()


def _existing(runtime: str, path: Path, advice: str) -> str:
    if not path.is_file():
        raise LibraryMissing(runtime, f"there is no file {path}; {advice}")
    return str(path.absolute())


def _vendor_library() -> str:
    directories = [*filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":")), *VENDOR_DIRECTORIES]
    for directory in directories:
        path = Path(directory) / VENDOR_LIBRARY
        if path.is_file():
            return str(path.absolute())
    looked = ", ".join(dict.fromkeys(directories))
    raise LibraryMissing(
        "rknpu", f"there is no {VENDOR_LIBRARY} in {looked}; install the vendor's runtime or set 'library' to its path"
    )
