"""The table at the end of a run.  Pure: measurements to text."""

from __future__ import annotations

from collections.abc import Sequence

from measure.record import Measurement

_WIDTHS = (50, 8, 12, 12)


def number(value: float) -> str:
    """Three digits that matter, without an exponent."""
    if value == 0:
        return "0"
    magnitude = abs(value)
    digits = 0 if magnitude >= 100 else 1 if magnitude >= 10 else 2 if magnitude >= 1 else 3
    return f"{value:.{digits}f}"


def render(measurements: Sequence[Measurement]) -> str:
    """Every measurement: its goals, then each series with n, p50 and p99."""
    lines: list[str] = []
    for one in measurements:
        lines += ["", one.title]
        for goal in one.goals:
            verdict = "met   " if goal.is_met else "MISSED"
            lines.append(f"  {verdict} {goal.what}: {number(goal.value)} {goal.unit} (goal {goal.limit_text})")
        lines.append(
            "    " + "".join(text.ljust(width) for text, width in zip(("", "n", "p50", "p99"), _WIDTHS, strict=True))
        )
        for series in one.series:
            cells = (series.label, str(len(series.values)), number(series.p50), number(series.p99))
            row = "".join(text.ljust(width) for text, width in zip(cells, _WIDTHS, strict=True))
            lines.append(f"    {row}{series.unit}")
        lines += [f"    {name}: {number(value)}" for name, value in one.ratios.items()]
        lines += [f"    note: {remark}" for remark in one.remarks]
    met = [goal.is_met for one in measurements for goal in one.goals]
    lines += ["", f"{sum(met)} of {len(met)} goals of design.md section 10 met in this run"]
    return "\n".join(lines)
