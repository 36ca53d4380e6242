"""Fixtures that load recorders and simulators: ``pytest_plugins = ("harness.recorded",)`` in a test module."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.recorder import FAMILIES, Recorded, build_recorder
from harness.story import Story
from rkvisor.cython_ext.libraries import find_library

SIMULATED = ("F1", "F3", "F4", "F5")  # F3 serves F2 too


@pytest.fixture(scope="session")
def recorders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("recorder")
    return {family: build_recorder(directory, family) for family in FAMILIES}


@pytest.fixture
def load_recorder(
    recorders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Recorded]]:
    loaded: list[Recorded] = []
    monkeypatch.setenv("RECORDER", str(tmp_path / "log"))

    def load(family: str) -> Recorded:
        loaded.append(Recorded(recorders[family], family, tmp_path / "log"))
        return loaded[-1]

    yield load
    for one in loaded:
        one.runtime.destroy()


@pytest.fixture(params=FAMILIES)
def recorded(request: pytest.FixtureRequest, load_recorder: Callable[[str], Recorded]) -> Recorded:
    return load_recorder(request.param)


@pytest.fixture
def recorded_f4(load_recorder: Callable[[str], Recorded]) -> Recorded:
    return load_recorder("F4")


@pytest.fixture
def recorded_f5(load_recorder: Callable[[str], Recorded]) -> Recorded:
    return load_recorder("F5")


@pytest.fixture
def stories() -> Iterator[Callable[..., Story]]:
    made: list[Story] = []

    def make(family: str, path: str | None = None, **options: Any) -> Story:
        made.append(Story(path or find_library("sim", family.lower()), family, **options))
        return made[-1]

    yield make
    for story in made:
        story.runtime.destroy()


@pytest.fixture(params=SIMULATED)
def story(request: pytest.FixtureRequest, stories: Callable[..., Story]) -> Story:
    return stories(request.param).init()


@pytest.fixture
def recorder(recorders: dict[str, Path]) -> Path:
    return recorders["F5"]
