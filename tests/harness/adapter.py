"""A LoRA adapter for SmolLM2-135M, as a GGUF file of some kilobytes."""

from __future__ import annotations

import random
import struct
from pathlib import Path

#: Numbers of one embedding of SmolLM2-135M.
WIDTH = 576


def write_adapter(path: Path, rank: int = 4) -> None:
    """Write a LoRA for the first layer's query projection, with random weights, always the same."""
    draw = random.Random(1)

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    def entry(key: str, value: str | float) -> bytes:
        if isinstance(value, float):
            return text(key) + struct.pack("<If", 6, value)
        return text(key) + struct.pack("<I", 8) + text(value)

    entries = [
        entry("general.architecture", "llama"), entry("general.type", "adapter"),
        entry("adapter.type", "lora"), entry("adapter.lora.alpha", 8.0),
    ]  # fmt: skip
    tensors, data = b"", b""
    for name, columns, rows in (("lora_a", WIDTH, rank), ("lora_b", rank, WIDTH)):
        tensors += text(f"blk.0.attn_q.weight.{name}") + struct.pack("<IQQIQ", 2, columns, rows, 0, len(data))
        data += struct.pack(f"<{columns * rows}f", *(draw.gauss(0, 0.5) for _ in range(columns * rows)))
    head = b"GGUF" + struct.pack("<IQQ", 3, 2, len(entries)) + b"".join(entries) + tensors
    path.write_bytes(head + b"\0" * (-len(head) % 32) + data)
