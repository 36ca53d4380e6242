"""One plot as inline SVG with its words in HTML around it.  Pure but for the local time zone."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rkvisor.supervisor.ctl.amounts import amount

#: The drawing's own units; it is stretched to whatever the window has.
WIDTH, HEIGHT = 1000.0, 300.0
Point = tuple[float, float]
#: A curve that moves by less than this share of its height is drawn in the middle, nearly flat.
FLAT = 0.04


@dataclass(frozen=True, slots=True)
class Curve:
    """kind: the CSS class, "samples" or "rss"."""

    points: Sequence[Point]
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """Values over wall time.  line: (time, value, low, high) along the fit, or nothing.

    uprights: lines, each (time, CSS class).  steps: dotted ones.  is_count: the values are no bytes.
    """

    curves: tuple[Curve, ...]
    line: tuple[tuple[float, float, float, float], ...] = ()
    uprights: tuple[tuple[float, str], ...] = ()
    steps: tuple[float, ...] = ()
    is_count: bool = False


class _Frame:
    """From time and value to the drawing."""

    def __init__(self, drawn: Plot):
        times = [at for curve in drawn.curves for at, _ in curve.points] or [0.0]
        values = [value for curve in drawn.curves for _, value in curve.points] or [0.0]
        self.begin, self.end = min(times), max(max(times), min(times) + 1.0)
        least = max(FLAT * max(values), 4.0 if drawn.is_count else 64 * 1024.0)
        lack = max(0.0, least - (max(values) - min(values))) / 2
        low, high = max(0.0, min(values) - lack), max(values) + lack
        self.step = nice_step(high - low, is_count=drawn.is_count)
        self.low = math.floor(low / self.step) * self.step
        self.high = max(math.ceil(high / self.step) * self.step, self.low + self.step)

    @property
    def digits(self) -> int:
        """Digits behind the point that tell one grid line from the next."""
        unit = 1024.0 ** min(3, int(math.log(max(self.high, 1.0), 1024)))
        return max(0, min(3, math.ceil(-math.log10(self.step / unit) - 1e-9)))

    def x(self, at: float) -> float:
        return (at - self.begin) / (self.end - self.begin) * WIDTH

    def y(self, value: float) -> float:
        return HEIGHT - (value - self.low) / (self.high - self.low) * HEIGHT

    def path(self, points: Sequence[Point]) -> str:
        return " ".join(f"{self.x(at):.1f},{self.y(value):.1f}" for at, value in points)

    def levels(self) -> list[float]:
        count = round((self.high - self.low) / self.step)
        return [self.low + self.step * index for index in range(count + 1)]


def nice_step(span: float, *, is_count: bool) -> float:
    """Between two grid lines: about four of them, of 1, 2 or 5 times a power; for bytes in their binary unit."""
    rough = max(span, 1.0) / 4
    base = 1.0 if is_count else 1024.0 ** math.floor(math.log(max(2 * rough, 1.0), 1024))
    power = 10.0 ** math.floor(math.log10(rough / base))
    factor = next(one for one in (1, 2, 5, 10) if one * power * base >= rough)
    return max(1.0, factor * power * base)


def plot(drawn: Plot) -> str:
    """The figure's inside."""
    frame = _Frame(drawn)
    parts = [_line(0, frame.y(level), WIDTH, frame.y(level), "grid") for level in frame.levels()]
    parts += [_line(frame.x(at), 0, frame.x(at), HEIGHT, kind) for at, kind in drawn.uprights]
    parts += [_line(frame.x(at), 0, frame.x(at), HEIGHT, "step") for at in drawn.steps]
    band, fit = _fit(frame, drawn)
    parts.append(band)
    for curve in drawn.curves:
        if curve.points:
            parts.append(f'<polyline class="{curve.kind}" points="{frame.path(curve.points)}"/>')
        if curve.kind == "samples":
            parts.append(_dots(frame, curve.points))
    parts.append(fit)  # above the dots: of a leak without noise they cover it
    svg = (
        f'<svg viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" preserveAspectRatio="none" role="img" '
        f'aria-label="values over time">{"".join(parts)}</svg>'
    )
    values, times = _values(frame, drawn), _times(frame)
    return f"<div class=plot><div class=values>{values}</div>{svg}<div class=times>{times}</div></div>"


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _fit(frame: _Frame, drawn: Plot) -> tuple[str, str]:
    """The interval around the line, and the line; empty where there is none."""
    if len(drawn.line) < 2:
        return "", ""
    upper = [(at, high) for at, _, _, high in drawn.line]
    lower = [(at, low) for at, _, low, _ in reversed(drawn.line)]
    line = frame.path([(at, value) for at, value, _, _ in drawn.line])
    band = frame.path(upper + lower)
    return f'<polygon class="band" points="{band}"/>', f'<polyline class="fit" points="{line}"/>'


def _dots(frame: _Frame, points: Sequence[Point]) -> str:
    """Each a line of no length with round ends: they stay round however the drawing is stretched."""
    moves = "".join(f"M{frame.x(at):.1f} {frame.y(value):.1f}h0" for at, value in points)
    return f'<path class="dots" d="{moves}"/>'


def _values(frame: _Frame, drawn: Plot) -> str:
    words = []
    for level in frame.levels():
        text = f"{level:.0f}" if drawn.is_count else amount(level, frame.digits)
        words.append(f'<span style="top:{100 * frame.y(level) / HEIGHT:.2f}%">{text}</span>')
    return "".join(words)


def _times(frame: _Frame) -> str:
    span = frame.end - frame.begin
    form = "%H:%M:%S" if span < 3600 else "%H:%M" if span < 86400 else "%m-%d %H:%M"
    texts = [time.strftime(form, time.localtime(frame.begin + span * share)) for share in (0, 0.5, 1)]
    return "".join(f"<span>{text}</span>" for text in texts)
