"""GGUF files without tensors, for what reads their metadata; and a real one's vocabulary under another rule."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rkvisor.worker.gguf import metadata

UINT32, INT32, BOOL, STRING, ARRAY = 4, 5, 7, 8, 9
_PREFIX = "tokenizer.ggml."


def text(value: str) -> bytes:
    """A string as GGUF has it."""
    return struct.pack("<Q", len(value.encode())) + value.encode()


def _value(value: Any) -> tuple[int, bytes]:
    if isinstance(value, bool):
        return BOOL, struct.pack("<?", value)
    if isinstance(value, int):
        return UINT32, struct.pack("<I", value)
    if isinstance(value, str):
        return STRING, text(value)
    is_text = bool(value) and isinstance(value[0], str)
    items = [text(one) if is_text else struct.pack("<i", one) for one in value]
    return ARRAY, struct.pack("<IQ", STRING if is_text else INT32, len(items)) + b"".join(items)


def write(path: Path, entries: Mapping[str, Any]) -> Path:
    """A GGUF file of these entries: bools, integers, texts, lists of texts or integers."""
    parts = [b"GGUF" + struct.pack("<IQQ", 3, 0, len(entries))]
    for key, value in entries.items():
        kind, data = _value(value)
        parts.append(text(key) + struct.pack("<I", kind) + data)
    path.write_bytes(b"".join(parts) + bytes(64))
    return path


def vocabulary(**changes: Any) -> dict[str, Any]:
    """Entries of a small vocabulary, byte-level BPE: four letters and what they merge to, two control tokens.

    changes: of what stands behind ``tokenizer.ggml.``; None leaves the entry out.
    """
    known = {
        "model": "gpt2",
        "pre": "smollm",
        "tokens": ["<s>", "</s>", "a", "b", "c", "Ġ", "1", "ab", "abc", "Ġa"],
        "token_type": [3, 3, 1, 1, 1, 1, 1, 1, 1, 1],
        "merges": ["a b", "ab c", "Ġ a"],
        "bos_token_id": 0,
        "eos_token_id": 1,
        "add_bos_token": False,
    }
    kept = {name: value for name, value in (known | changes).items() if value is not None}
    return {_PREFIX + name: value for name, value in kept.items()}


def under_another_rule(model: Path, pre: str, path: Path) -> Path:
    """The vocabulary of the GGUF file *model*, with another rule by which words are cut; for libllama to load."""
    names = ("model", "tokens", "token_type", "merges", "bos_token_id", "eos_token_id", "unknown_token_id")
    found = metadata(str(model), {"general.architecture", *(_PREFIX + name for name in names)})
    shape = {
        f"llama.{name}": 8 for name in ("block_count", "context_length", "embedding_length", "feed_forward_length")
    }
    heads = {"llama.attention.head_count": 1}
    return write(path, {**found, **shape, **heads, f"{_PREFIX}pre": pre})
