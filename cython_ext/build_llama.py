"""Builds the CPU runtime, ``librkllmrt_llama.so``, against the installed engine and puts it beside this package.

``llama.h`` passes structs by value, so the runtime fits only the libllama it was compiled against: the engine's version
is pinned, its build goes into the stamp, and the library refuses to work with another.  The stamp is a hash over
sources, engine and options; it is written into the library itself, so library and stamp cannot part.

    python -m rkvisor.cython_ext.build_llama              build, unless it is current
    python -m rkvisor.cython_ext.build_llama --sanitize   with AddressSanitizer and UndefinedBehaviorSanitizer
    python -m rkvisor.cython_ext.build_llama --check      exit 0 when it is current, else 1 and say why
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rkvisor.cython_ext.engine_steps import PROOF_SOURCE, EngineError
from rkvisor.cython_ext.llama_engine import COMMAND, PACKAGE, VERSION, Engine, find_engine

HERE = Path(__file__).parent
TARGET = HERE / "librkllmrt_llama.so"
EXPORTS = "{ global: rkllm_*; rkvisor_force_tokens; local: *; };\n"
COMPILE = ["-std=c++17", "-Wall", "-Wextra", "-g", "-fPIC", "-pthread", "-fvisibility=hidden"]
# -z initfirst (see _link): the runtime's constructor sets the environment that libgomp and ggml read in theirs.
LINK = ["-shared", "-pthread", "-Wl,-soname,librkllmrt_llama.so", "-Wl,-z,defs"]
SANITIZE = ["-fsanitize=address,undefined", "-fno-omit-frame-pointer", "-O1"]
# What a program does first: load it, and ask for the default parameters.
PROBE = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
param = library.rkllm_createDefaultParam
param.restype = type("Param", (ctypes.Structure,), {"_fields_": [("bytes", ctypes.c_byte * 184)]})
param()
assert library.rkllm_init(None, None, None) == -1
"""
ASK_VERSION = """
import ctypes, sys
version = ctypes.CDLL(sys.argv[1]).llama_version
version.restype = ctypes.c_char_p
print(version().decode())
"""


def require_engine() -> Engine:
    """The installed engine of the pinned version.  Raises EngineError that names the command which mends it."""
    engine = find_engine()
    if engine is None:
        raise EngineError(f"cannot build the CPU runtime: {PACKAGE} {VERSION} is not installed; run {COMMAND}")
    if engine.version != VERSION:
        found = f"{PACKAGE} {engine.version} is installed, {VERSION} is needed"
        raise EngineError(f"cannot build the CPU runtime: {found}; run {COMMAND}")
    for part in (engine.include / "llama.h", engine.libraries / "libllama.so"):
        if not part.is_file():
            raise EngineError(f"cannot build the CPU runtime: {part} is missing from {PACKAGE}; run {COMMAND}")
    return engine


def sources() -> list[Path]:
    return sorted(path for path in (HERE / "llama").glob("*.cpp") if path != PROOF_SOURCE)


def stamp(engine: Engine, is_sanitized: bool) -> str:
    """What a current library carries."""
    headers = [*(HERE / "llama").glob("*.hpp"), *(HERE / "include").glob("*.h"), Path(__file__)]
    digest = hashlib.sha256(f"{engine}{is_sanitized}{compiler()}".encode())
    for path in sorted([*sources(), *headers]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return f"rkvisor-stamp:{digest.hexdigest()}"


def compiler() -> str:
    return os.environ.get("CXX", "g++")


def is_current(engine: Engine, is_sanitized: bool = False) -> bool:
    return TARGET.is_file() and stamp(engine, is_sanitized).encode() in TARGET.read_bytes()


def _call(command: Sequence[object], what: str, environment: dict[str, str] | None = None) -> str:
    """Run a tool; its output.  Raises EngineError with everything it said."""
    try:
        done = subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, env=environment, check=False
        )
    except FileNotFoundError as missing:
        raise EngineError(f"cannot find {command[0]}: install g++ or set CXX to a C++17 compiler") from missing
    if done.returncode != 0:
        raise EngineError(f"cannot {what} (exit {done.returncode}):\n{done.stdout}{done.stderr}")
    return done.stdout


def _engine_build(engine: Engine) -> str:
    """What the engine calls itself, asked of it in a child: loading it here would keep it."""
    library = engine.libraries / "libllama.so"
    return _call([sys.executable, "-P", "-c", ASK_VERSION, library], f"load {library}").strip()


def build(engine: Engine, is_sanitized: bool = False) -> None:
    """Compile, link, prove that it loads, and only then replace what is there.  Raises EngineError."""
    extra = SANITIZE if is_sanitized else ["-O2"]
    defines = [
        f'-DRKVISOR_ENGINE_VERSION="{VERSION}"',
        f'-DRKVISOR_ENGINE_BUILD="{_engine_build(engine)}"',
        f'-DRKVISOR_STAMP="{stamp(engine, is_sanitized)}"',
    ]
    includes = [f"-isystem{engine.include}", f"-I{HERE / 'include'}"]
    with tempfile.TemporaryDirectory(prefix="rkvisor-llama-") as folder:
        objects = [Path(folder) / f"{source.stem}.o" for source in sources()]

        def translate(source: Path, target: Path) -> None:
            command = [compiler(), *COMPILE, *extra, *defines, *includes, "-c", source, "-o", target]
            _call(command, f"compile {source.name}")

        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
            list(pool.map(translate, sources(), objects))
        _link(engine, objects, Path(folder), is_sanitized)


def _link(engine: Engine, objects: list[Path], folder: Path, is_sanitized: bool) -> None:
    exports = folder / "exports.map"
    exports.write_text(EXPORTS)
    draft = TARGET.with_name(f"{TARGET.name}.{os.getpid()}.tmp")
    # A sanitizer has to come up before anything else, our constructor too.
    first = ["-fsanitize=address,undefined"] if is_sanitized else ["-Wl,-z,initfirst"]
    libraries = [f"-L{engine.libraries}", "-lllama", "-lggml", "-lggml-base", f"-Wl,-rpath,{engine.libraries}"]
    link = [item for item in LINK if not (is_sanitized and item == "-Wl,-z,defs")]
    try:
        options = [*link, *first, f"-Wl,--version-script={exports}"]
        _call([compiler(), *options, *objects, *libraries, "-o", draft], "link the CPU runtime")
        probe = [sys.executable, "-P", "-c", PROBE, draft]
        _call(probe, "load the CPU runtime just built", _probe_environment(is_sanitized))
        draft.replace(TARGET)
    finally:
        draft.unlink(missing_ok=True)


def _probe_environment(is_sanitized: bool) -> dict[str, str] | None:
    if not is_sanitized:
        return None
    # libstdc++ as well: ASan looks up its __cxa_throw when it comes up, and Python has not loaded it then.
    names = ("libasan.so", "libstdc++.so")
    paths = [_call([compiler(), f"-print-file-name={name}"], f"find {name}").strip() for name in names]
    return os.environ | {"LD_PRELOAD": " ".join(paths), "ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc"}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="build_llama", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--sanitize", action="store_true", help="build with ASan and UBSan")
    parser.add_argument("--check", action="store_true", help="only say whether the library is current")
    options = parser.parse_args(arguments)
    try:
        engine = require_engine()
        if is_current(engine, options.sanitize):
            print(f"build_llama: {TARGET} is current")
            return 0
        if options.check:
            why = "was built from other sources, options or another engine" if TARGET.is_file() else "is not built"
            print(f"build_llama: {TARGET} {why}; run python -m rkvisor.cython_ext.build_llama", file=sys.stderr)
            return 1
        print(f"build_llama: compiling the CPU runtime against {PACKAGE} {VERSION} in {engine.libraries}", flush=True)
        build(engine, options.sanitize)
    except EngineError as failure:
        print(f"build_llama: {failure}", file=sys.stderr)
        return 1
    except OSError as failure:
        print(f"build_llama: cannot use {failure.filename or TARGET}: {failure.strerror}", file=sys.stderr)
        return 1
    print(f"build_llama: {TARGET}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
