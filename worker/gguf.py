"""The metadata of a GGUF file: what must be known of a model before, and beside, the engine that reads it.

Reads the metadata only, as far as needed, and believes no length that the file does not bear out.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Any

#: struct's codes of the values of fixed size, by their type's number; 8 is a string, 9 an array.
_CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_UINT32, _STRING, _ARRAY = 4, 8, 9
#: (numbers, bytes) of a block of each type of tensor, by the type's number; of others only the place is known.
_BLOCKS = {0: (1, 4), 1: (1, 2), 30: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34)}
_BLOCKS |= {10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210)}
#: Of the tensors' data, where the metadata does not say another (general.alignment).
_ALIGNMENT = 32
_WIDTH, _TOKENS = ".embedding_length", "tokenizer.ggml.tokens"
_LENGTH = struct.Struct("<Q")


class _Reader:
    def __init__(self, data: mmap.mmap):
        self._data = data
        self.at = 4  # behind the magic

    def unpack(self, code: str) -> Any:
        value = struct.unpack_from("<" + code, self._data, self.at)[0]
        self.at += struct.calcsize("<" + code)
        return value

    def skip(self, size: int) -> None:
        self.at += size
        if self.at > len(self._data):
            raise ValueError("it ends within its metadata")

    def text(self) -> str:
        size = self.unpack("Q")
        begin = self.at
        self.skip(size)
        return self._data[begin : begin + size].decode(errors="replace")

    def skip_value(self, kind: int, count: int) -> None:
        """Go past *count* values of the type *kind*, none of them an array."""
        if kind != _STRING:
            self.skip(struct.calcsize("<" + _CODES[kind]) * count)
            return
        data, at, end, length = self._data, self.at, len(self._data), _LENGTH.unpack_from
        for _ in range(count):  # hundreds of thousands of them in a vocabulary
            at += 8 + length(data, at)[0]
            if at > end:
                raise ValueError("it ends within its metadata")
        self.at = at

    def values(self, kind: int, count: int) -> list[Any]:
        """*count* values of the type *kind*, none of them an array."""
        if kind == _STRING:
            return [self.text() for _ in range(count)]
        begin = self.at
        self.skip(struct.calcsize("<" + _CODES[kind]) * count)
        return list(struct.unpack_from(f"<{count}{_CODES[kind]}", self._data, begin))


def _open(path: str, scan: Any) -> Any:
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:4] != b"GGUF":
            raise ValueError("it has not the magic of GGUF")
        try:
            return scan(_Reader(data))
        except (struct.error, KeyError) as error:
            raise ValueError(f"its metadata cannot be read: {error}") from error


def dimensions(path: str) -> tuple[int | None, int | None]:
    """(numbers of one embedding, tokens of the vocabulary) of the file; None for what it does not tell.

    Raises OSError, and ValueError for a file that is no GGUF.
    """
    found: tuple[int | None, int | None] = _open(path, _dimensions)
    return found


def _dimensions(reader: _Reader) -> tuple[int | None, int | None]:
    found: dict[str, int] = {}
    for _ in range(_entries(reader)):
        key, kind = reader.text(), reader.unpack("I")
        if kind == _ARRAY:
            inner, count = reader.unpack("I"), reader.unpack("Q")
            if key == _TOKENS:
                found["tokens"] = count
            if len(found) < 2:
                reader.skip_value(inner, count)
        elif kind == _UINT32 and key.endswith(_WIDTH):
            found["width"] = reader.unpack("I")
        else:
            reader.skip_value(kind, 1)
        if len(found) == 2:
            break
    return found.get("width"), found.get("tokens")


def _entries(reader: _Reader) -> int:
    reader.unpack("I")  # version
    reader.unpack("Q")  # tensors
    return int(reader.unpack("Q"))


def metadata(path: str, keys: Collection[str]) -> dict[str, Any]:
    """The values of those of *keys* that the file has; arrays as lists.  Reads as far as the last of them.

    Raises OSError, and ValueError for a file that is no GGUF.
    """

    def scan(reader: _Reader) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for _ in range(_entries(reader)):
            if len(found) == len(keys):
                break
            key, kind = reader.text(), reader.unpack("I")
            is_array, count = kind == _ARRAY, 1
            if is_array:
                kind, count = reader.unpack("I"), reader.unpack("Q")
            if key in keys:
                values = reader.values(kind, count)
                found[key] = values if is_array else values[0]
            else:
                reader.skip_value(kind, count)
        return found

    answer: dict[str, Any] = _open(path, scan)
    return answer


def end_of_tensors(path: str) -> int:
    """Where the file should end: behind its last tensor.  Less than that and it was cut off.

    Raises OSError, and ValueError for a file that is no GGUF or ends before its tensors begin.
    """
    end: int = _open(path, _end_of_tensors)
    return end


def _end_of_tensors(reader: _Reader) -> int:
    reader.unpack("I")  # version
    tensors, entries, alignment = reader.unpack("Q"), reader.unpack("Q"), _ALIGNMENT
    for _ in range(entries):
        key, kind = reader.text(), reader.unpack("I")
        if key == "general.alignment" and kind == _UINT32:
            alignment = reader.unpack("I") or _ALIGNMENT
        elif kind == _ARRAY:
            reader.skip_value(reader.unpack("I"), reader.unpack("Q"))
        else:
            reader.skip_value(kind, 1)
    last = 0
    for _ in range(tensors):
        reader.text()
        numbers = math.prod(reader.unpack("Q") for _ in range(reader.unpack("I")))
        kind, offset = reader.unpack("I"), reader.unpack("Q")
        block, size = _BLOCKS.get(kind, (1, 0))
        last = max(last, offset + numbers // block * size)
    return int(-(-reader.at // alignment) * alignment + last)
