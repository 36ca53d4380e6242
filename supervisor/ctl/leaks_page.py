"""The page that ``leaks --html`` writes: one file, plots as inline SVG, nothing from the network.

The plots stretch with the window and their words do not: the curves are SVG, the words around them are HTML.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from html import escape
from typing import Any

from rkvisor.supervisor.ctl.amounts import amount, duration, growth
from rkvisor.supervisor.ctl.leaks import LIMITS, SERIES, Worker, worst
from rkvisor.supervisor.ctl.leaks_plot import Curve, Plot, plot
from rkvisor.supervisor.ctl.leaks_style import STYLE

#: Plots show at least the last so many seconds, and so many times the life of the process that lives.
LEAST_S, MOST_LIVES = 3600.0, 8.0
#: The member of a point that a series is plotted from.
_COLUMN = {"anon": 3, "file": 4, "dmabuf": 5, "descriptors": 6}
_TITLES = {
    "anon": "Anonymous memory and swap",
    "file": "Mapped files and shared memory",
    "dmabuf": "dma-buf",
    "descriptors": "Descriptors",
}
_VERDICTS = {"clean": "clean", "warming_up": "warming up", "suspect": "suspect", "leaking": "leaking"}


def render(report: dict[str, Any], now: float | None = None) -> str:
    """The page of a ``memory.report`` with points.  now: wall clock."""
    when = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(time.time() if now is None else now))
    workers: Sequence[Worker] = report["workers"]
    counts = {verdict: sum(one["verdict"] == verdict for one in workers) for verdict in reversed(_VERDICTS)}
    summary = ", ".join(f"{count} {_VERDICTS[verdict]}" for verdict, count in counts.items() if count)
    notes = dict.fromkeys(note for one in workers for note in one["notes"])
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Memory of rkvisor, {escape(when)}</title><style>{STYLE}</style></head><body><main>",
        f"<header><h1>Memory of rkvisor</h1><p>{escape(when)} · {escape(summary) or 'no worker runs'}</p></header>",
        *(f"<p class=note>{escape(note)}.</p>" for note in notes),
        *(_worker(one) for one in sorted(workers, key=_badness)),
        "<footer><p>Dots: samples. Thick line: the fit, with its interval. Plain RSS is what <code>ps</code> shows; "
        "a leak may be swapped out of it. Dashed upright line: a process ended, a grey one: it was recycled. "
        "Thin upright line: from here on it was called leaking. "
        "Dotted upright line: a step that something explains.</p></footer>",
        "</main></body></html>",
    ]
    return "\n".join(parts) + "\n"


def _badness(worker: Worker) -> int:
    return -list(_VERDICTS).index(worker["verdict"])


def _recent(lives: Sequence[dict[str, Any]], seconds: float) -> list[dict[str, Any]]:
    """*lives* over the last *seconds*: beside one of last month that of today would be a line's width."""
    begin = max((life["points"][-1][0] for life in lives if life["points"]), default=0.0) - seconds
    cut = [life | {"points": [point for point in life["points"] if point[0] >= begin]} for life in lives]
    return [life for life in cut if life["points"]]


def _worker(worker: Worker) -> str:
    verdict = worker["verdict"]
    everything = worker["lives"]
    worker = worker | {"lives": _recent(everything, max(LEAST_S, MOST_LIVES * worker["seconds"]))}
    head = (
        f"<h2>{escape(worker['name'])} "
        f'<span class="verdict {verdict}">{_VERDICTS[verdict]}</span></h2><dl>{_facts(worker)}</dl>'
    )
    reasons = "".join(f"<p class=why>{escape(reason)}.</p>" for reason in worker["reasons"])
    shown = [one for one in worker["series"] if _is_shown(worker, one)]
    plots = "".join(_series(worker, one) for one in shown) + _rss(worker)
    return f"<section>{head}{reasons}<div class=plots>{plots}</div>{_past(everything)}</section>"


def _facts(worker: Worker) -> str:
    series = worst(worker)
    facts = [
        ("RSS", amount(worker["rss_bytes"])),
        ("swapped out", amount(worker["swap_bytes"]) if worker["swap_bytes"] else ""),
        ("NPU", amount(worker["npu_bytes"]) if worker["npu_bytes"] else ""),
        ("private (USS)", amount(worker["uss_bytes"]) if worker["uss_bytes"] else ""),
        ("process", f"{worker['pid']}, {duration(worker['seconds'])}, {worker['requests']} requests"),
        ("growth", growth(series) if series is not None else ""),
        ("cause", worker["cause"] if worker["verdict"] in ("suspect", "leaking") else ""),
        ("limit", f"{amount(worker['limit_bytes'])} ({LIMITS[worker['limit']]})" if worker["limit_bytes"] else ""),
        ("limit in", duration(worker["limit_in_s"]) if worker["limit_in_s"] is not None else ""),
    ]
    return "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in facts if value)


def _is_shown(worker: Worker, series: dict[str, Any]) -> bool:
    """What was never there needs no plot."""
    if series["name"] in ("anon", "descriptors") or series["verdict"] in ("suspect", "leaking"):
        return bool(worker["lives"])
    column = _COLUMN[series["name"]]
    return any(point[column] for life in worker["lives"] for point in life["points"])


def _series(worker: Worker, series: dict[str, Any]) -> str:
    name = series["name"]
    column = _COLUMN[name]
    curves = [Curve([(point[0], point[column]) for point in life["points"]], "samples") for life in worker["lives"]]
    drawn = Plot(
        curves=tuple(curves),
        line=tuple((at, value, low, high) for at, value, low, high in series["line"]),
        uprights=_uprights(worker),
        steps=tuple(step["time"] for step in series["steps"]),
        is_count=name == "descriptors",
    )
    fit = ""
    if series["explained_by"] is not None and series["grown"] > 0:
        fit = f" · {escape(growth(series))}, {_interval(series)}"
    verdict = series["verdict"]
    return (
        f'<figure><figcaption><b title="{escape(SERIES[name])}">{_TITLES[name]}</b> '
        f'<span class="{verdict}">{_VERDICTS[verdict]}</span>{fit}</figcaption>{plot(drawn)}</figure>'
    )


def _rss(worker: Worker) -> str:
    curves = tuple(Curve([(point[0], point[2]) for point in life["points"]], "rss") for life in worker["lives"])
    if not curves:
        return ""
    drawn = plot(Plot(curves=curves, uprights=_uprights(worker)))
    return f"<figure><figcaption><b>Plain RSS</b>, model file included</figcaption>{drawn}</figure>"


def _interval(series: dict[str, Any]) -> str:
    low, high = {"tokens": ("token_low", "token_high"), "time": ("hour_low", "hour_high")}.get(
        series["explained_by"], ("low", "high")
    )
    show = (lambda value: f"{value:.3g}") if series["name"] == "descriptors" else amount
    return f"{escape(show(series[low]))} to {escape(show(series[high]))}"


def _uprights(worker: Worker) -> tuple[tuple[float, str], ...]:
    """When a process ended, was recycled, or was called leaking, as (time, CSS class)."""
    found = []
    for life in worker["lives"]:
        found += [(one["time"], "accused") for one in life["verdicts"] if one["verdict"] == "leaking"]
        if life["ended"] is not None:
            found.append((life["ended"], "recycled" if life["ending"].startswith("recycled") else "end"))
    return tuple(found)


def _past(lives: Sequence[dict[str, Any]]) -> str:
    """What happened, in order: verdicts and endings."""
    told = []
    for life in lives:
        who = f"process {life['pid'] or 'of an earlier start'}"
        told += [(one["time"], f"{who}: {_VERDICTS[one['verdict']]}") for one in life["verdicts"]]
        if life["ended"] is not None:
            told.append((life["ended"], f"{who} {life['ending'] or 'ended'}"))
    rows = [
        f"<li><time>{time.strftime('%m-%d %H:%M:%S', time.localtime(at))}</time> {escape(text)}</li>"
        for at, text in sorted(told)
    ]
    return f"<ul>{''.join(rows)}</ul>" if rows else ""
