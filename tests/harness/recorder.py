"""recorder.c, a runtime that writes down what it is handed: built as a library of any ABI family, loaded, and read.

The fixtures are in ``harness.recorded``.
"""

import subprocess
from pathlib import Path
from typing import Any

from rkvisor.cython_ext._rkllm import Runtime

FAMILIES = ("F1", "F2", "F3", "F4", "F5")
HERE = Path(__file__).parent
INCLUDE = HERE.parents[1] / "cython_ext/include"


def build_library(target: Path, source: Path, *flags: str) -> Path:
    """A shared library from one C file.  flags: more arguments for gcc."""
    command = ["gcc", "-std=c11", "-D_GNU_SOURCE", "-shared", "-fPIC", "-pthread", f"-I{INCLUDE}", "-Wall", "-Wextra"]
    subprocess.run([*command, *flags, str(source), "-o", str(target)], check=True)
    return target


def build_recorder(directory: Path, family: str, *flags: str) -> Path:
    """The recorder of a family, "F1" … "F5"."""
    target = directory / f"librecorder_{family}.so"
    return build_library(target, HERE / "recorder.c", f"-DRKLLM_FAMILY={family[1]}", *flags)


Event = tuple[int, int, int, bytes | None, dict[str, Any] | None]


class Recorded:
    """A loaded recorder: its Runtime, what it wrote down and what it called back."""

    def __init__(self, path: Path, family: str, log: Path) -> None:
        self.runtime = Runtime(str(path), family)
        self.family = family
        self.log = log
        self.events: list[Event] = []

    def on_result(self, *event: Any) -> None:
        self.events.append(event)

    def init(self, path: str = "/model", **param: Any) -> None:
        self.runtime.init({"model_path": path, **param}, self.on_result)

    def lines(self) -> list[str]:
        """What was written down since the last look."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.write_text("")
        return lines
