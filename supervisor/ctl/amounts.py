"""Bytes and durations for people to read."""

from __future__ import annotations

from typing import Any


def amount(count: float, digits: int = 1) -> str:
    """Bytes in the unit that leaves one to four digits before the point, with *digits* behind it."""
    size = abs(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{'-' if count < 0 else ''}{size:.{0 if unit == 'B' else digits}f} {unit}"


def duration(seconds: float) -> str:
    """The two largest units."""
    for unit, length, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= length:
            rest = int(seconds % length // part)
            return f"{int(seconds // length)} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{seconds:.0f} s"


def growth(series: dict[str, Any]) -> str:
    """How fast one series grows, per what explains it best."""
    unit, key = {
        "tokens": ("token", "bytes_per_token"),
        "time": ("hour", "bytes_per_hour"),
    }.get(series["explained_by"], ("request", "bytes_per_request"))
    value = series[key]
    text = f"{value:.3g} fd" if series["name"] == "descriptors" else amount(value)
    return f"+{text}/{unit}"
