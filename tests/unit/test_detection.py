"""Which family detection chooses, what it refuses, and when it asks the probe."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from rkvisor.cython_ext import detection
from rkvisor.cython_ext.abi import render
from rkvisor.cython_ext.detection import Detected, Evidence, UnknownRuntime, detect, judge
from rkvisor.cython_ext.libraries import PACKAGE, LibraryMissing, find_library
from rkvisor.cython_ext.probe import written

FUNCTIONS = {
    family: frozenset(facts["functions"])
    for family, facts in json.loads(render.LAYOUTS.read_text())["families"].items()
}
F0_FUNCTIONS = frozenset(detection.CORE)
VERSION_OF = {"F1": "1.1.4", "F2": "1.2.0", "F3": "1.2.1b1", "F4": "1.2.3", "F5": "1.3.0"}


def evidence(family: str, **changed: Any) -> Evidence:
    cpus = {"65": 4 if family == "F5" else 0, "93": 4 if family in ("F2", "F3", "F4") else 0}
    facts = {"functions": FUNCTIONS[family], "written": detection.PARAM_BYTES[family], "cpus_at": cpus, **changed}
    return Evidence(**facts)


@pytest.mark.parametrize("family", sorted(VERSION_OF))
def test_a_known_version_that_fits_is_its_family(family: str) -> None:
    version = VERSION_OF[family]
    assert judge(version, evidence(family)) == Detected(family=family, version=version, forced=False)


@pytest.mark.parametrize("claimed", sorted(VERSION_OF))
@pytest.mark.parametrize("real", sorted(VERSION_OF))
def test_a_version_that_does_not_fit_is_refused(claimed: str, real: str) -> None:
    verdict = judge(VERSION_OF[claimed], evidence(real))
    if claimed == real or {claimed, real} == {"F2", "F3"}:  # those two differ by version only
        assert isinstance(verdict, Detected)
    else:
        assert isinstance(verdict, str)
        assert f"its version {VERSION_OF[claimed]} means {claimed}, but" in verdict
        assert 'abi = "F4"' in verdict


@pytest.mark.parametrize("version", ["1.3.1", "1.2.1b2", "2.0.0", "1.3", "1.3.0b1"])
def test_an_unknown_version_is_refused_by_name_and_with_the_way_out(version: str) -> None:
    verdict = judge(version, evidence("F5"))
    assert isinstance(verdict, str)
    assert f"its version {version} is not known" in verdict
    assert 'force a family with abi = "F4"' in verdict


def test_a_library_that_does_not_say_its_version_is_refused() -> None:
    verdict = judge(None, evidence("F4"))
    assert isinstance(verdict, str)
    assert "does not say its version; force a family" in verdict


def test_the_oldest_family_is_refused() -> None:
    verdict = judge("1.0.1", evidence("F1", functions=F0_FUNCTIONS, written=72))
    assert isinstance(verdict, str)
    assert "1.0.1 (F0) is too old" in verdict


def test_what_lacks_the_core_functions_is_no_runtime() -> None:
    verdict = judge("1.3.0", evidence("F5", functions=FUNCTIONS["F5"] - {"rkllm_run"}))
    assert isinstance(verdict, str)
    assert "does not export rkllm_run" in verdict


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"written": 208}, "wrote 208 bytes, not 184"),
        ({"written": 192}, "wrote 192 bytes, not 184"),
        ({"written": 0}, "wrote 0 bytes"),
        ({"cpus_at": {"65": 0, "93": 4}}, "no enabled_cpus_num at offset 65"),
        ({"cpus_at": {"65": 0xA5, "93": 4}}, "no enabled_cpus_num at offset 65"),
        ({"functions": FUNCTIONS["F3"]}, "its functions mean F2 or F3"),
    ],
)
def test_each_piece_of_evidence_can_contradict_the_version(changed: dict[str, Any], words: str) -> None:
    verdict = judge("1.3.0", evidence("F5", **changed))
    assert isinstance(verdict, str)
    assert words in verdict


def test_padding_at_the_end_of_the_parameters_need_not_be_written() -> None:
    assert isinstance(judge("1.3.0", evidence("F5", written=180)), Detected)


@pytest.mark.parametrize(
    ("first", "second", "length"), [(b"", b"", 0), (b"\1", b"\1", 1), (b"\1\xa5\2", b"\1\x5a\2", 3)]
)
def test_written_bytes_are_counted_to_the_last_even_if_one_equals_the_poison(
    first: bytes, second: bytes, length: int
) -> None:
    assert written([first + b"\xa5" * 9, second + b"\x5a" * 9]) == length
    assert written([first + b"\xa5" * 9, first + b"\xa5" + b"\x5a" * 8]) == len(first) + 1
    assert written([]) == 0


class Library:
    """An ELF header with a version in it, and a stand-in for the probe that counts how often it is asked."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.probed = 0
        self.answer = {
            "functions": sorted(FUNCTIONS["F4"]),
            "written": 208,
            "cpus_at": {"65": 0, "93": 4},
        }
        self.write(b"RKLLM SDK (version: 1.2.3 | target: Linux)")
        monkeypatch.setattr(detection, "_probe", self.probe)

    def write(self, text: bytes, machine: int | None = None) -> None:
        number = detection.MACHINES[os.uname().machine] if machine is None else machine
        self.path.write_bytes(b"\x7fELF\x02\x01" + bytes(12) + number.to_bytes(2, "little") + bytes(44) + text)

    def probe(self, path: str, version: str | None) -> dict[str, Any]:
        self.probed += 1
        return self.answer


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    return Library(tmp_path / "librkllmrt.so", monkeypatch)


F4 = Detected(family="F4", version="1.2.3", forced=False)


def test_a_verdict_is_remembered_until_the_file_changes(library: Library, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    assert detect(str(library.path), cache_dir=cache) == F4
    assert detect(str(library.path), cache_dir=cache) == F4
    assert library.probed == 1
    library.write(b"RKLLM SDK (version: 1.2.2 | target: Linux)  ")
    assert detect(str(library.path), cache_dir=cache).version == "1.2.2"
    assert library.probed == 2
    os.utime(library.path, ns=(1, 1))
    detect(str(library.path), cache_dir=cache)
    assert library.probed == 3


def test_nothing_is_remembered_without_a_directory(library: Library) -> None:
    for _ in range(2):
        assert detect(str(library.path)) == F4
    assert library.probed == 2


def test_a_hit_reads_the_library_not_at_all(library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = str(tmp_path / "cache")
    detect(str(library.path), cache_dir=cache)
    monkeypatch.setattr(detection, "read_version", lambda path: pytest.fail("the library was read"))
    assert detect(str(library.path), cache_dir=cache) == F4
    assert detect(str(library.path), forced="F5", cache_dir=cache).forced


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b"null", b'{"key": 1}', b"\xff", b'{"version": null}', "keep-key", "bad-version"],
)
def test_a_damaged_memory_is_made_again(library: Library, tmp_path: Path, damage: bytes | str) -> None:
    cache = tmp_path / "cache"
    detect(str(library.path), cache_dir=str(cache))
    (entry,) = cache.iterdir()
    if isinstance(damage, bytes):
        entry.write_bytes(damage)
    else:
        content = json.loads(entry.read_text())
        content |= {"evidence": {"functions": 3}} if damage == "keep-key" else {"version": 7}
        entry.write_text(json.dumps(content))
    assert detect(str(library.path), cache_dir=str(cache)) == F4
    assert library.probed == 2
    assert detect(str(library.path), cache_dir=str(cache)) == F4
    assert library.probed == 2
    assert list(cache.iterdir()) == [entry]


def test_a_directory_that_cannot_be_written_costs_only_time(library: Library, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for _ in range(2):
        assert detect(str(library.path), cache_dir=str(tmp_path / "file")) == F4
    assert library.probed == 2


def test_a_forced_family_overrides_everything_and_runs_nothing(library: Library, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    library.write(b"RKLLM SDK (version: 9.9 | target: Linux)")
    for cache_dir in (None, cache, cache):
        found = detect(str(library.path), forced="F5", cache_dir=cache_dir)
        assert found == Detected(family="F5", version="9.9", forced=True)
    assert library.probed == 0
    with pytest.raises(UnknownRuntime, match=r"its version 9\.9 is not known"):  # what was forced is not remembered
        detect(str(library.path), cache_dir=cache)
    for forced in ("F0", "F6", "f4"):
        with pytest.raises(ValueError, match=forced):
            detect(str(library.path), forced=forced)


@pytest.mark.parametrize("forced", [None, "F4"])
def test_what_this_machine_cannot_load_is_refused(library: Library, tmp_path: Path, forced: str | None) -> None:
    other = next(number for name, number in detection.MACHINES.items() if name != os.uname().machine)
    library.write(b"RKLLM SDK (version: 1.2.3 | target: Linux)", machine=other)
    with pytest.raises(UnknownRuntime, match=r"^cannot tell .*it is built for (aarch64|x86_64), not for"):
        detect(str(library.path), forced=forced)
    library.path.write_text("GROUP ( libc.so.6 )")
    with pytest.raises(UnknownRuntime, match="it is not an ELF file"):
        detect(str(library.path), forced=forced)
    library.path.write_bytes(b"\x7fELF")
    with pytest.raises(UnknownRuntime):
        detect(str(library.path), forced=forced)
    with pytest.raises(UnknownRuntime, match="No such file"):
        detect(str(tmp_path / "nothing"), forced=forced)
    assert library.probed == 0


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (b"\0RKLLM SDK (version: 1.2.1b1 | target: Linux)\0", "1.2.1b1"),
        (b"\0RKLLM SDK (version: 1.3.0)\0", "1.3.0"),
        (b"\0RKLLM SDK (version: %s | ...)", None),
        (b"rknn llm lib version: 1.0.1", None),
    ],
)
def test_the_version_is_read_with_its_suffix(library: Library, text: bytes, version: str | None) -> None:
    library.write(text)
    assert detection.read_version(str(library.path)) == version


def test_the_simulators_lie_beside_the_package() -> None:
    assert find_library("sim", None) == str(PACKAGE / "librkllmrt_sim.so")
    assert find_library("sim", "f4") == str(PACKAGE / "librkllmrt_sim_f4.so")


def test_a_path_is_taken_for_any_runtime_and_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.so").write_text("")
    monkeypatch.chdir(tmp_path)
    for runtime in ("sim", "llama", "rknpu"):
        assert find_library(runtime, "mine.so") == str(tmp_path / "mine.so")
        with pytest.raises(LibraryMissing, match=r"there is no file other\.so"):
            find_library(runtime, "other.so")
    with pytest.raises(ValueError, match="cuda"):
        find_library("cuda", None)


def test_the_cpu_runtime_names_the_command_that_builds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rkvisor.cython_ext.libraries.PACKAGE", tmp_path)
    with pytest.raises(LibraryMissing, match=r"python -m rkvisor\.cython_ext\.build_llama") as caught:
        find_library("llama", None)
    assert caught.value.runtime == "llama"
    (tmp_path / "librkllmrt_llama.so").write_text("")
    assert find_library("llama", None) == str(tmp_path / "librkllmrt_llama.so")


def test_the_vendors_library_is_searched_and_the_error_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rkvisor.cython_ext.libraries.VENDOR_DIRECTORIES", (str(tmp_path / "usr"),))
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{tmp_path / 'own'}:")
    with pytest.raises(LibraryMissing, match=f"{tmp_path / 'own'}, {tmp_path / 'usr'}"):
        find_library("rknpu", None)
    for directory in ("usr", "own"):  # the environment's goes first
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "librkllmrt.so").write_text("")
        assert find_library("rknpu", None) == str(tmp_path / directory / "librkllmrt.so")
