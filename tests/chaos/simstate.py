"""The simulator's memory of faults, read from the state directory: how often a key has struck (sim/state.c)."""

from __future__ import annotations

from pathlib import Path

_MASK = 2**64 - 1


def _mix(a: int, b: int) -> int:
    x = (a + 0x9E3779B97F4A7C15 * (b + 1)) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def _hash(text: str) -> int:
    value = 0xCBF29CE484222325
    data = text.encode()
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & _MASK
    return _mix(value, len(data))


def times_fired(folder: Path, key: str) -> int:
    """How often faults with ``key=`` *key* have struck under the rkvisord of *folder*; only those with ``times=``."""
    file = folder / "state" / "sim" / f"times-{_hash(key):016x}"
    return int(file.read_text()) if file.exists() else 0
