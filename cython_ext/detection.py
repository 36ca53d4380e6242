"""Which ABI family a runtime library speaks.

``judge`` decides, purely, from the version string and from what ``probe`` saw in a child process; ``detect`` gathers
both and remembers them.  The version names a family, and exported functions and the size of RKLLMParam must agree with
it.  Calling a library by the wrong family crashes or corrupts, so doubt is an error.  An operator may force a family:
then nothing of the library is run before it is used.

The cache holds what was seen, keyed by the file's device, inode, size and mtime; a hit costs one stat and one small
read, and starts no process.
"""

import contextlib
import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FAMILIES = ("F1", "F2", "F3", "F4", "F5")
# Releases of each family; see cython_ext/abi/layouts.json (a test compares).
VERSIONS: dict[str, str] = {
    "1.0.1": "F0",
    **dict.fromkeys(("1.1.0", "1.1.1", "1.1.2", "1.1.3", "1.1.4"), "F1"),
    "1.2.0": "F2",
    "1.2.1b1": "F3",
    **dict.fromkeys(("1.2.1", "1.2.2", "1.2.3"), "F4"),
    "1.3.0": "F5",
}
PARAM_BYTES = {"F0": 72, "F1": 200, "F2": 208, "F3": 208, "F4": 208, "F5": 184}
CPUS_AT = {"F2": "93", "F3": "93", "F4": "93", "F5": "65"}  # offset of enabled_cpus_num, never 0 by default
CORE = ("rkllm_createDefaultParam", "rkllm_init", "rkllm_run", "rkllm_abort", "rkllm_destroy")
MACHINES = {"x86_64": 62, "aarch64": 183}  # e_machine of the ELF header
PROBE_TIMEOUT_S = 30.0
CACHE_FORMAT = 1
_VERSION = re.compile(rb"RKLLM SDK \(version: ([0-9A-Za-z][0-9A-Za-z.+_-]{0,31})")


class UnknownRuntime(Exception):
    """The family of a library cannot be told, or is one that rkvisor does not speak."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"cannot tell the RKLLM ABI family of {path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.path, self.reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Detected:
    """A verdict.  version: what the library says of itself, None if nothing.  forced: the operator chose the family."""

    family: str
    version: str | None
    forced: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a look into a library gave.

    functions: exported rkllm_* names.  written: bytes of RKLLMParam that rkllm_createDefaultParam wrote.  cpus_at: what
    it wrote at offset "65" and at "93".
    """

    functions: frozenset[str]
    written: int
    cpus_at: Mapping[str, int]


def judge(version: str | None, evidence: Evidence) -> Detected | str:
    """The verdict, or why there is none.  version: what the library says of itself, None if nothing."""
    missing = [name for name in CORE if name not in evidence.functions]
    if missing:
        return f"it does not export {', '.join(missing)}, so it is no RKLLM runtime"
    if version is None:
        return f"it does not say its version; {_HOW_TO_FORCE}"
    family = VERSIONS.get(version)
    if family is None:
        return f"its version {version} is not known; {_HOW_TO_FORCE}"
    if family == "F0":
        return f"its version {version} (F0) is too old to be supported, by force or otherwise"
    contradiction = _contradiction(evidence, family)
    if contradiction:
        return f"its version {version} means {family}, but {contradiction}; {_HOW_TO_FORCE}"
    return Detected(family=family, version=version, forced=False)


_HOW_TO_FORCE = """force a family with abi = "F4" (one of F1 to F5) in the model's section"""


def _contradiction(evidence: Evidence, family: str) -> str | None:
    exported = families_by_functions(evidence.functions)
    if family not in exported:
        return f"its functions mean {' or '.join(exported)}"
    # The struct's last bytes may be padding, which nobody has to write.
    size = -(-evidence.written // 8) * 8
    if size != PARAM_BYTES[family]:
        return f"rkllm_createDefaultParam wrote {size} bytes, not {PARAM_BYTES[family]}"
    if family in CPUS_AT and not 1 <= evidence.cpus_at[CPUS_AT[family]] <= 64:
        return f"there is no enabled_cpus_num at offset {CPUS_AT[family]} of RKLLMParam"
    return None


def families_by_functions(functions: frozenset[str]) -> tuple[str, ...]:
    """The families that export such functions."""
    if "rkllm_load_lora" not in functions:
        return ("F0",)
    if "rkllm_clear_kv_cache" not in functions:
        return ("F1",)
    if "rkllm_get_kv_cache_size" not in functions:
        return ("F2", "F3")
    return ("F4", "F5")


def detect(path: str, *, forced: str | None = None, cache_dir: str | None = None) -> Detected:
    """The family of a library.  Nothing of the library runs in this process.

    forced: a family that overrides version and evidence.  cache_dir: where what was seen is remembered; None: not.
    Raises UnknownRuntime; ValueError when `forced` is no family.
    """
    if forced is not None and forced not in FAMILIES:
        raise ValueError(f"cannot force ABI family {forced!r}: need one of {', '.join(FAMILIES)}")
    cache = _Cache(path, cache_dir)
    entry = cache.read()
    if entry is None:
        entry = {"version": read_version(path)}
        cache.write(entry)
    version = entry["version"]
    if forced is not None:
        return Detected(family=forced, version=version, forced=True)
    if "evidence" not in entry:
        entry["evidence"] = _probe(path, version)
        cache.write(entry)
    verdict = judge(version, _evidence(entry["evidence"]))
    if isinstance(verdict, str):
        raise UnknownRuntime(path, verdict)
    return verdict


class _Cache:
    """One JSON file per library: {"key": […], "version": …, "evidence": {…}}, the last only once it was probed."""

    def __init__(self, path: str, directory: str | None) -> None:
        try:
            status = Path(path).stat()
        except OSError as error:
            raise UnknownRuntime(path, error.strerror or str(error)) from error
        self._key = [CACHE_FORMAT, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns]
        self._file = Path(directory) / f"abi-{status.st_dev}-{status.st_ino}.json" if directory is not None else None

    def read(self) -> dict[str, Any] | None:
        """The entry of that very file; None without, for a damaged one only costs time."""
        if self._file is None:
            return None
        try:
            entry = json.loads(self._file.read_bytes())
            if entry["key"] != self._key or not isinstance(entry["version"], str | None):
                return None
            if "evidence" in entry:
                _evidence(entry["evidence"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return dict(entry)

    def write(self, entry: dict[str, Any]) -> None:
        """Replace the entry in one step.  A directory that cannot be written makes the next start slow, not wrong."""
        if self._file is None:
            return
        temporary = self._file.with_suffix(f".{os.getpid()}.tmp")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps({**entry, "key": self._key}))
            temporary.replace(self._file)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()


def _evidence(answer: dict[str, Any]) -> Evidence:
    return Evidence(
        functions=frozenset(answer["functions"]),
        written=int(answer["written"]),
        cpus_at={at: int(answer["cpus_at"][at]) for at in ("65", "93")},
    )


def read_version(path: str) -> str | None:
    """The version in the file's text, suffixes such as b1 kept.  UnknownRuntime for what this machine cannot load."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UnknownRuntime(path, error.strerror or str(error)) from error
    if content[:4] != b"\x7fELF":
        raise UnknownRuntime(path, "it is not an ELF file")
    machine = int.from_bytes(content[18:20], "little")
    here = os.uname().machine
    if content[4:6] != b"\x02\x01" or machine != MACHINES.get(here, machine):
        names = {number: name for name, number in MACHINES.items()}
        raise UnknownRuntime(path, f"it is built for {names.get(machine, f'ELF machine {machine}')}, not for {here}")
    match = _VERSION.search(content)
    return match[1].decode() if match else None


def _probe(path: str, version: str | None) -> dict[str, Any]:
    """What probe.py prints about the library.  Raises UnknownRuntime when it dies, hangs or cannot load it."""
    import subprocess  # not on the path of a cache hit

    command = [sys.executable, "-P", "-m", "rkvisor.cython_ext.probe", str(Path(path).absolute())]
    label = f"a look into it ({f'version {version}' if version else 'it does not say its version'})"
    try:
        child = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PROBE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise UnknownRuntime(path, f"{label} hung for {PROBE_TIMEOUT_S:g} s; {_HOW_TO_FORCE}") from None
    if child.returncode < 0:
        raise UnknownRuntime(path, f"{label} died of signal {-child.returncode}; {_HOW_TO_FORCE}")
    try:
        answer = json.loads(child.stdout)
        if "error" not in answer:
            _evidence(answer)
    except (ValueError, KeyError, TypeError):
        words = child.stderr.decode(errors="replace").strip().splitlines()
        last = words[-1] if words else "no words"
        raise UnknownRuntime(path, f"{label} ended with status {child.returncode}: {last}; {_HOW_TO_FORCE}") from None
    if "error" in answer:
        raise UnknownRuntime(path, f"it cannot be loaded: {answer['error']}")
    return dict(answer)
