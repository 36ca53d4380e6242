"""Detection against real libraries: the simulators, the recorder, and libraries that die when they are touched."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.recorder import build_library, build_recorder
from rkvisor.cython_ext import detection
from rkvisor.cython_ext._rkllm import Runtime
from rkvisor.cython_ext.detection import Detected, UnknownRuntime, detect
from rkvisor.cython_ext.libraries import find_library

pytestmark = pytest.mark.resilience

VERSION_OF = {"F1": "1.1.0", "F2": "1.2.0", "F3": "1.2.1b1", "F4": "1.2.1", "F5": "1.3.0"}
Build = Callable[[str], str]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """C text → path of a library that says version 1.3.0."""

    def build(text: str) -> str:
        source = tmp_path / "library.c"
        source.write_text('const char version[] = "RKLLM SDK (version: 1.3.0 | test)";\n' + text)
        return str(build_library(tmp_path / "library.so", source))

    return build


@pytest.mark.parametrize("family", sorted(VERSION_OF))
def test_a_library_of_each_family_is_recognised(tmp_path: Path, family: str) -> None:
    version = VERSION_OF[family]
    path = build_recorder(tmp_path, family, f'-DSAYS="RKLLM SDK (version: {version} | recorder)"')
    assert detect(str(path)) == Detected(family=family, version=version, forced=False)


@pytest.mark.parametrize(("claimed", "real"), [("F4", "F5"), ("F5", "F4"), ("F1", "F3"), ("F4", "F3")])
def test_a_library_that_lies_about_its_version_is_refused(tmp_path: Path, claimed: str, real: str) -> None:
    path = build_recorder(tmp_path, real, f'-DSAYS="RKLLM SDK (version: {VERSION_OF[claimed]} | recorder)"')
    with pytest.raises(UnknownRuntime, match=f"means {claimed}, but"):
        detect(str(path))


@pytest.mark.parametrize("name", [None, "f1", "f3", "f4", "f5"])
def test_the_simulators_are_recognised(name: str | None) -> None:
    assert detect(find_library("sim", name)).family == (name or "f5").upper()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("__attribute__((constructor)) void start(void) { __builtin_trap(); }", "died of signal"),
        ("void rkllm_createDefaultParam(void) { *(volatile int *)8 = 1; }", r"\(version 1\.3\.0\) died of signal \d+"),
        ("void _exit(int); __attribute__((constructor)) void start(void) { _exit(3); }", "ended with status 3"),
        ("int missing(void); int rkllm_init(void) { return missing(); }", "it cannot be loaded: .*missing"),
        ("int rkllm_init(void) { return 0; }", "it does not export rkllm_createDefaultParam, rkllm_run"),
    ],
)
def test_a_library_that_cannot_be_looked_into_is_an_error_and_nothing_worse(
    build: Build, text: str, words: str
) -> None:
    with pytest.raises(UnknownRuntime, match=r"^cannot tell the RKLLM ABI family of .*library\.so: .*" + words):
        detect(build(text))


def test_a_library_that_hangs_is_an_error(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "PROBE_TIMEOUT_S", 1.0)
    path = build("int pause(void); __attribute__((constructor)) void start(void) { for (;;) pause(); }")
    with pytest.raises(UnknownRuntime, match="hung for 1 s; force a family"):
        detect(path)
    assert detect(path, forced="F5") == Detected(family="F5", version="1.3.0", forced=True)


def test_what_a_library_prints_does_not_disturb_the_answer(tmp_path: Path) -> None:
    path = build_recorder(tmp_path, "F5", '-DSAYS="RKLLM SDK (version: 1.3.0 | recorder)"', "-DTALKS")
    assert detect(str(path)).family == "F5"


def test_a_forced_family_may_meet_longer_parameters(tmp_path: Path) -> None:
    """A release that appended fields to RKLLMParam: they come back in init as the library set them."""
    path = build_recorder(tmp_path, "F5", "-DLONGER")
    runtime = Runtime(str(path), detect(str(path), forced="F5").family)
    assert runtime.default_param()["max_context_len"] == 512
    runtime.init({"model_path": "/model"}, lambda *event: None)
    runtime.destroy()


def test_detection_is_imported_without_what_only_a_miss_needs() -> None:
    costly = "{'subprocess', 'ctypes', 'rkvisor.cython_ext._rkllm'}"
    code = f"import sys, rkvisor.cython_ext.detection; print(*{costly} & {{*sys.modules}})"
    said = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == ""
