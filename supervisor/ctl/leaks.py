"""rkvisorctl's verb ``leaks``: what the memory of each worker does, as a table, as JSON, as a page.

Loaded only for this verb: a status command must be cheap.
"""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rkvisor.supervisor.ctl.amounts import amount, duration, growth
from rkvisor.supervisor.ctl.link import AdminLink
from rkvisor.supervisor.ctl.verbs import Exit

Worker = dict[str, Any]
#: Points asked for: a sparkline needs few, a plot more.
FEW, MANY = 96, 400
_BARS = "▁▂▃▄▅▆▇█"
_NOTHING = "–"
#: A sparkline's width: what is left of the terminal's, within these.
_NARROW, _WIDE = 8, 48
_HEAD = ("WORKER", "VERDICT", "RSS", "GROWTH", "CAUSE", "LIMIT IN", "MEMORY")
#: What the series are, in words.
SERIES = {
    "anon": "anonymous memory, swapped out or not",
    "file": "mapped files and shared memory, less the model file",
    "dmabuf": "dma-buf buffers",
    "descriptors": "descriptors",
}
#: What the limits are, in words.
LIMITS = {
    "max_rss": "max_rss",
    "memory_limit": "memory_limit, which mapped files do not count to",
    "machine": "all that it holds and that is free now",
}


def leaks(link: AdminLink, words: list[str]) -> int:
    """``leaks [WORKER] [--json] [--html FILE]``."""
    try:
        worker, is_json, page = _arguments(words)
    except ValueError as error:
        print(f"Error: {error}")
        return Exit.INVALID_ARGS
    params: dict[str, Any] = {"points": MANY if page or is_json else FEW}
    if worker is not None:
        params["worker"] = worker
    found = link.call("memory.report", params)
    if page is not None:
        return _write(page, found)
    if is_json:
        print(json.dumps(found, indent=1))
        return Exit.OK
    if not found["workers"]:
        print("no worker runs" if worker is None else f"{worker} does not run")
        return Exit.OK
    _print(found["workers"], is_alone=worker is not None)
    return Exit.OK


def _arguments(words: Sequence[str]) -> tuple[str | None, bool, Path | None]:
    """The worker, whether JSON is wanted, the page's file.  Raises ValueError, saying what is wrong."""
    worker, is_json, page = None, False, None
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--json":
            is_json = True
        elif word == "--html" or word.startswith("--html="):
            value = word[7:] if "=" in word else rest.pop(0) if rest else ""
            if not value or value.startswith("-"):
                raise ValueError("--html takes the name of the file to write")
            page = Path(value)
        elif word.startswith("-"):
            raise ValueError(f"leaks does not know {word}")
        elif worker is not None:
            raise ValueError("leaks takes one worker at most")
        else:
            worker = word
    if is_json and page is not None:
        raise ValueError("leaks takes either --json or --html")
    return worker, is_json, page


def _write(page: Path, found: dict[str, Any]) -> int:
    from rkvisor.supervisor.ctl.leaks_page import render

    try:
        page.write_text(render(found), encoding="utf-8")
    except OSError as error:
        print(f"ERROR: cannot write {page}: {error.strerror}")
        return Exit.GENERIC
    print(f"{page}: written")
    return Exit.OK


def _print(workers: Sequence[Worker], *, is_alone: bool) -> None:
    rows = [_HEAD, *(_row(one) for one in workers)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD) - 1)]
    room = shutil.get_terminal_size().columns - sum(widths) - 2 * len(widths)
    room = max(_NARROW, min(_WIDE, room))
    has_bars = _can_print(_BARS)
    if not _can_print(_NOTHING):
        rows = [tuple("-" if cell == _NOTHING else cell for cell in row) for row in rows]
    for number, row in enumerate(rows):
        last = row[-1] if number == 0 else sparkline(held(workers[number - 1]), room) if has_bars else ""
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        print("  ".join([*cells, last]).rstrip())
    for one in workers:
        for line in details(one, is_alone=is_alone):
            print(_wrapped(line))
    for note in dict.fromkeys(note for one in workers for note in one["notes"]):
        print(f"\n{_wrapped(f'Note: {note}.', 0)}")


def _wrapped(line: str, indent: int = 14) -> str:
    width = min(100, shutil.get_terminal_size().columns)
    return textwrap.fill(line, max(40, width), subsequent_indent=" " * indent, drop_whitespace=True)


def _can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def worst(worker: Worker) -> dict[str, Any] | None:
    """The series that grows: of those as bad as any, bytes before descriptors, then the faster one."""
    order = ("suspect", "leaking")
    grown = [one for one in worker["series"] if one["verdict"] in order and one["grown"] > 0]
    key = lambda one: (order.index(one["verdict"]), one["name"] != "descriptors", one["grown"])  # noqa: E731
    return max(grown, key=key, default=None)


def _row(worker: Worker) -> tuple[str, ...]:
    series = worst(worker)
    is_accused = worker["verdict"] in ("suspect", "leaking")
    return (
        worker["name"],
        worker["verdict"].replace("_", " "),
        amount(worker["rss_bytes"]),
        growth(series) if series is not None else _NOTHING,
        worker["cause"] if is_accused else _NOTHING,
        duration(worker["limit_in_s"]) if worker["limit_in_s"] is not None else _NOTHING,
        "",
    )


def held(worker: Worker) -> list[float]:
    """What a worker's process held over its life, swapped out or not, without the model file."""
    lives = worker["lives"]
    return [point[3] + point[4] for point in lives[-1]["points"]] if lives else []


def sparkline(values: Sequence[float], width: int) -> str:
    """At most *width* bars from the least of *values* to the largest; what hardly moves is flat."""
    if not values:
        return ""
    count = min(width, len(values))
    picked = [values[index * (len(values) - 1) // max(1, count - 1)] for index in range(count)]
    low, high = min(picked), max(picked)
    span = max(high - low, 0.02 * high, 1.0)
    return "".join(_BARS[min(7, int((value - low) / span * 7.999))] for value in picked)


def details(worker: Worker, *, is_alone: bool) -> list[str]:
    """The lines below the table: of a worker that was asked for all series, of others those that grow."""
    shown = [one for one in worker["series"] if is_alone or one["verdict"] in ("suspect", "leaking")]
    if not shown and not worker["reasons"]:
        return []
    lines = ["", f"{worker['name']}, pid {worker['pid']}, {worker['requests']} request(s):"]
    for one in shown:
        lines.append(f"  {one['name']:<12}{_held_text(one)}")
        if one["explained_by"] is not None:
            lines.append(f"  {'':<12}{_interval(one)}")
        lines += [f"  {'':<12}a step of {amount(step['bytes'])}: {_why(step)}" for step in one["steps"] if is_alone]
    if worker["npu_bytes"] is not None and is_alone:
        lines.append(f"  {'NPU':<12}{amount(worker['npu_bytes'])}, as the driver tells")
    if worker["limit_in_s"] is not None:
        kind, in_time = LIMITS[worker["limit"]], duration(worker["limit_in_s"])
        lines.append(f"  {'limit':<12}{amount(worker['limit_bytes'])} ({kind}), reached in {in_time}")
    if worker["verdict"] in ("suspect", "leaking"):
        lines.append(f"  {'cause':<12}{'; '.join([worker['cause'], *worker['reasons']])}")
    return lines


def _held_text(one: dict[str, Any]) -> str:
    if not one["visible"]:
        return "cannot be read"
    value = f"{one['value']:.0f}" if one["name"] == "descriptors" else amount(one["value"])
    return f"{one['verdict'].replace('_', ' ')}, {value} ({SERIES[one['name']]})"


def _interval(one: dict[str, Any]) -> str:
    low, high = {
        "requests": ("low", "high"),
        "tokens": ("token_low", "token_high"),
        "time": ("hour_low", "hour_high"),
    }[one["explained_by"]]
    show = (lambda value: f"{value:.3g}") if one["name"] == "descriptors" else amount
    return f"{growth(one)} ({show(one[low])} to {show(one[high])}), {show(one['bytes_per_hour'])} an hour"


def _why(step: dict[str, Any]) -> str:
    words = {"kv": "a longer context", "lora": "a LoRA", "prompt_cache": "a prompt cache", "loaded": "the load"}
    return " ".join(filter(None, (words.get(step["kind"], step["kind"]), step["text"])))
