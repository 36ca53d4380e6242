"""The metadata of GGUF files: found where it is, and no file, however damaged, does harm."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkvisor.worker.gguf import dimensions, metadata


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def tokens(count: int) -> bytes:
    return text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, count) + b"".join(map(text, ["a"] * count))


NOISE = [
    text("general.architecture") + struct.pack("<I", 8) + text("llama"),
    text("llama.rope.freq_base") + struct.pack("<If", 6, 1.0),
    text("general.flag") + struct.pack("<I?", 7, True),
    text("general.wide") + struct.pack("<IQ", 10, 2**40),
    text("some.scores") + struct.pack("<IIQ", 9, 6, 3) + struct.pack("<3f", 1, 2, 3),
]
WIDTH = text("llama.embedding_length") + struct.pack("<II", 4, 576)


def whole(*entries: bytes) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(entries)) + b"".join(entries)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gguf") / "model.gguf"


@given(entries=st.permutations([*NOISE, WIDTH, tokens(7)]))
def test_width_and_vocabulary_are_found_in_any_order(entries: list[bytes], path: Path) -> None:
    path.write_bytes(whole(*entries) + b"tensors")
    assert dimensions(str(path)) == (576, 7)


@given(entries=st.permutations(NOISE))
def test_what_is_not_told_is_none(entries: list[bytes], path: Path) -> None:
    path.write_bytes(whole(*entries))
    assert dimensions(str(path)) == (None, None)


SAMPLE = whole(*NOISE, WIDTH, tokens(3))


@given(cut=st.integers(1, len(SAMPLE)), at=st.integers(0, len(SAMPLE) - 1), value=st.integers(0, 255))
def test_a_damaged_file_is_a_value_error_or_another_answer(cut: int, at: int, value: int, path: Path) -> None:
    damaged = bytearray(SAMPLE)
    damaged[at] = value
    path.write_bytes(bytes(damaged[:cut]))
    try:
        found = dimensions(str(path))
    except ValueError:
        return
    assert len(found) == 2


@given(entries=st.permutations([*NOISE, WIDTH, tokens(7)]))
def test_the_entries_that_are_asked_for_are_read_in_any_order(entries: list[bytes], path: Path) -> None:
    path.write_bytes(whole(*entries) + b"tensors")
    wanted = {"tokenizer.ggml.tokens", "some.scores", "general.flag", "general.wide", "not.there"}
    assert metadata(str(path), wanted) == {
        "tokenizer.ggml.tokens": ["a"] * 7,
        "some.scores": [1, 2, 3],
        "general.flag": True,
        "general.wide": 2**40,
    }


@given(cut=st.integers(1, len(SAMPLE)), at=st.integers(0, len(SAMPLE) - 1), value=st.integers(0, 255))
def test_damaged_entries_are_a_value_error_or_other_entries(cut: int, at: int, value: int, path: Path) -> None:
    damaged = bytearray(SAMPLE)
    damaged[at] = value
    path.write_bytes(bytes(damaged[:cut]))
    with contextlib.suppress(ValueError):
        assert len(metadata(str(path), {"tokenizer.ggml.tokens", "some.scores"})) <= 2
