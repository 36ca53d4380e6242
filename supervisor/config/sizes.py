"""Amounts of memory as people write them: 536870912, "512M", "1.5 GiB".  Pure."""

from __future__ import annotations

import re

#: Units are powers of 1024, with or without the i of IEC, as in systemd's MemoryMax.
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,3})?) ?([KMGT]?)(?:i?B)?", re.ASCII)
_FACTORS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def size_bytes(value: int | str) -> int:
    """Bytes.  Raises ValueError, whose text says what can be written."""
    if isinstance(value, int):
        if value < 0:
            raise ValueError(f"{value} is below 0")
        return value
    found = _SIZE.fullmatch(value)
    if found is None:
        raise ValueError(f'{value!r} is no size; write bytes, or a unit, as in 536870912, "512M", "1.5G"')
    return int(float(found[1]) * _FACTORS[found[2]])
