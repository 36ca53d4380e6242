"""Do the unit tests notice?  Runs them against hand-made mutants of the pure modules: ``tests/mutants.py [WORD…]``.

The mutants are data, in ``mutants.toml``: a file, a piece of it that stands there once, and what stands there instead.
Each is put into a copy of the tree, never into the tree itself, and the suites of its file are run there.  A mutant
that its suites let pass has *survived*: they need another assertion.  WORDs choose mutants whose file or text holds
one.

Exit status: 0 when all are killed, 1 when one survived or no longer fits, 2 when the tests fail without any mutant.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("protocol", "supervisor", "worker", "client", "batch", "docs", "etc", "tests")
#: A mutant may make a test run for ever; that counts as noticed.
PATIENCE_S = 120


@dataclass(frozen=True)
class Mutant:
    """old: stands once in file, a path from the root.  new: stands there in the mutant."""

    file: str
    old: str
    new: str

    @property
    def title(self) -> str:
        """One line for the report."""
        old, new = (" ".join(text.split()) for text in (self.old, self.new))
        return f"{self.file}: {old[:60]} → {new[:60] or '(nothing)'}"


class Copy:
    """Context manager: a copy of what the unit tests need.  It comes before the installed package on the path."""

    def __enter__(self) -> Copy:
        self._made = tempfile.TemporaryDirectory(prefix="mutants")
        self.root = Path(self._made.name)
        namespace = self.root / "build" / "ns" / "rkvisor"
        namespace.mkdir(parents=True)
        for folder in FOLDERS:
            shutil.copytree(ROOT / folder, self.root / folder, ignore=shutil.ignore_patterns("__pycache__"))
            (namespace / folder).symlink_to(self.root / folder)
        (self.root / "cython_ext").symlink_to(ROOT / "cython_ext")
        shutil.copy(ROOT / "pyproject.toml", self.root)
        self.environment = os.environ | {"PYTHONPATH": str(namespace.parent), "RKVISOR_SEARCH": "hasty"}
        return self

    def __exit__(self, *_: object) -> None:
        self._made.cleanup()

    def passes(self, suites: list[str]) -> bool:
        """Whether *suites* pass here."""
        words = [sys.executable, "-P", "-B", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *suites]
        try:
            ended = subprocess.run(words, cwd=self.root, env=self.environment, capture_output=True, timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            return False
        if ended.returncode not in (0, 1, 2):  # 2: a test module that cannot even be imported
            raise SystemExit(f"pytest ended with {ended.returncode}:\n{ended.stdout.decode()}{ended.stderr.decode()}")
        return ended.returncode == 0

    def uses_itself(self) -> bool:
        """Whether the tests here import the modules here, not those that are installed."""
        code = "import rkvisor.protocol.errors as module; print(module.__file__)"
        words = [sys.executable, "-P", "-c", code]
        said = subprocess.run(words, env=self.environment, capture_output=True, text=True)
        return said.stdout.startswith(str(self.root))


def outcome(copy: Copy, mutant: Mutant, suites: list[str]) -> str:
    """ "killed", "survived" or "stale"."""
    path = copy.root / mutant.file
    source = path.read_text()
    if source.count(mutant.old) != 1:
        return "stale"
    path.write_text(source.replace(mutant.old, mutant.new))
    try:
        return "survived" if copy.passes(suites) else "killed"
    finally:
        path.write_text(source)


def main(words: list[str]) -> int:
    """Run the mutants that *words* choose; print a line each, and the sum."""
    data = tomllib.loads((ROOT / "tests" / "mutants.toml").read_text())
    suites: dict[str, list[str]] = data["suites"]
    mutants = [Mutant(file, **one) for file in suites for one in data["mutants"].get(file, [])]
    chosen = [one for one in mutants if not words or any(word in one.title for word in words)]
    counts = {"killed": 0, "survived": 0, "stale": 0}
    with Copy() as copy:
        if not copy.uses_itself():
            raise SystemExit("the copy is not what its tests would import")
        for file in dict.fromkeys(one.file for one in chosen):
            if not copy.passes(suites[file]):
                print(f"the tests of {file} fail without any mutant: {' '.join(suites[file])}")
                return 2
        for mutant in chosen:
            started = time.monotonic()
            result = outcome(copy, mutant, suites[mutant.file])
            counts[result] += 1
            print(f"{result:8} {time.monotonic() - started:5.1f} s  {mutant.title}", flush=True)
    print(", ".join(f"{count} {result}" for result, count in counts.items()))
    return 0 if counts["killed"] == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
