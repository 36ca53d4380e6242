"""Paths that requests name stay below the directory that is configured for them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkvisor.protocol.errors import InvalidParams
from rkvisor.supervisor.confined import confine

pytestmark = pytest.mark.security

parts = st.sampled_from(
    [
        "..",
        ".",
        "",
        "in",
        "sub",
        "file",
        "out",
        "up",
        "loop",
        "dangling",
        "no",
        "~",
        "a\0b",
        "x" * 300,
        "/etc/passwd",
        "/",
    ]
)
paths = st.lists(parts, min_size=1, max_size=5).map("/".join) | st.text(max_size=12)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("top")
    (top / "secret").write_text("s")
    found = top / "allowed"
    (found / "sub").mkdir(parents=True)
    for name in ("file", "sub/file"):
        (found / name).write_text("f")
    for name, target in (
        ("in", "sub/file"),
        ("out", "../secret"),
        ("up", ".."),
        ("loop", "loop"),
        ("dangling", "../new"),
        ("sub/up", "../.."),
    ):
        (found / name).symlink_to(target)
    os.mkfifo(found / "pipe")
    return found


def outcome(path: str, root: Path | None, *, must_exist: bool = True) -> str:
    """The confined path, or the refusal, which begins with "cannot "."""
    try:
        return confine(path, str(root) if root is not None else None, "lora_dir", must_exist=must_exist)
    except InvalidParams as error:
        return str(error)


@given(path=paths, must_exist=st.booleans())
def test_no_path_leads_out_of_the_directory(path: str, must_exist: bool, root: Path) -> None:
    found = outcome(path, root, must_exist=must_exist)
    if found.startswith("cannot "):
        return
    assert Path(os.path.realpath(found)) == Path(found), "symbolic links are resolved"
    assert os.path.commonpath([found, root.resolve()]) == str(root.resolve())
    assert found != str(root.resolve())
    assert Path(found).is_file() or (not must_exist and not Path(found).exists() and Path(found).parent.is_dir())


@pytest.mark.parametrize("path", ["file", "sub/file", "in", "sub/../file", "./file"])
def test_files_below_it_are_found(path: str, root: Path) -> None:
    assert Path(outcome(path, root)).read_text() == "f"


OUTSIDE = ["../secret", "/etc/passwd", "out", "up/secret", "sub/up/secret", "..", "/", "sub/../../secret", "dangling"]


@pytest.mark.parametrize("path", OUTSIDE)
@pytest.mark.parametrize("must_exist", [True, False])
def test_ways_out_are_refused(path: str, must_exist: bool, root: Path) -> None:
    assert "leads out of lora_dir" in outcome(path, root, must_exist=must_exist)


@pytest.mark.parametrize(
    "path", ["sub", ".", "", "loop", "pipe", "a\0b", "x" * 300, "file/x", "no/x", "x" * 300 + "/x"]
)
@pytest.mark.parametrize("must_exist", [True, False])
def test_what_is_no_file_and_can_be_none_is_refused(path: str, must_exist: bool, root: Path) -> None:
    assert outcome(path, root, must_exist=must_exist).startswith("cannot use the path ")


def test_a_file_that_will_be_written_need_not_be_there(root: Path) -> None:
    assert outcome("new", root).endswith("no such file below lora_dir")
    assert outcome("new", root, must_exist=False) == str(root.resolve() / "new")
    assert outcome("file", root, must_exist=False) == str(root.resolve() / "file")


def test_without_a_directory_there_is_no_path(root: Path) -> None:
    assert "sets no lora_dir" in outcome("file", None)
