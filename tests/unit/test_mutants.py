"""The mutants still fit: a piece that no longer stands in its file is a test of the tests that was lost."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DATA = tomllib.loads((ROOT / "tests" / "mutants.toml").read_text())


@pytest.mark.parametrize("file", DATA["mutants"])
def test_each_piece_stands_in_its_file_once_and_the_file_has_a_suite(file: str) -> None:
    source = (ROOT / file).read_text()
    assert [one["old"] for one in DATA["mutants"][file] if source.count(one["old"]) != 1] == []
    assert all(one["old"] != one["new"] for one in DATA["mutants"][file])
    assert all((ROOT / suite).exists() for suite in DATA["suites"][file])
