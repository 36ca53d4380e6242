"""The tables that say how well the estimator does.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from leaks.corpus import CLEAN, WITHIN
from leaks.judging import Outcome

KB = 1024
VERDICTS = ("clean", "warming_up", "suspect", "leaking")


def table(rows: Iterable[Sequence[str]]) -> list[str]:
    """Markdown, its columns as wide as they need to be."""
    first, *rest = [list(row) for row in rows]
    widths = [max(len(row[n]) for row in (first, *rest)) for n in range(len(first))]
    lines = [first, ["-" * width for width in widths], *rest]
    return ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in lines]


def percentile(values: Sequence[float], share: float) -> float:
    """Of *values*, the one that *share* of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _within(one: Outcome) -> bool:
    return one.found is not None and one.found <= WITHIN


def _leak_row(name: str, group: Sequence[Outcome]) -> list[str]:
    found = [one for one in group if _within(one)]
    errors = [abs(one.error) for one in found if one.error is not None]
    return [
        name,
        str(len(group)),
        f"{len(found)} ({100 * len(found) / len(group):.1f} %)",
        f"{percentile([one.found or 0 for one in found], 0.5):.0f}" if found else "–",
        f"{100 * percentile(errors, 0.5):.1f} %" if errors else "–",
        f"{100 * percentile(errors, 0.95):.1f} %" if errors else "–",
        f"{100 * sum(error <= 0.1 for error in errors) / len(errors):.1f} %" if errors else "–",
        f"{100 * sum(one.is_covered for one in found) / len(found):.0f} %" if found else "–",
    ]


def render(part: str, outcomes: Sequence[Outcome]) -> str:
    """All tables of *part*."""
    clean = [one for one in outcomes if one.kind in CLEAN]
    leaking = [one for one in outcomes if one.kind not in CLEAN]
    large = [one for one in leaking if one.kind == "descriptors" or one.rate >= 4 * KB * 0.99]
    rows = [("", 'said "leaking"', "did not")]
    for name, group in (("leaks, 4 KB a request or more", large), ("clean", clean)):
        said = sum(map(_within, group)) if group is large else sum(one.found is not None for one in group)
        rows.append((name, str(said), str(len(group) - said)))
    lines = [f"The {part} part, {len(outcomes)} traces.", "", *table(rows), ""]
    if clean:
        head = (
            "clean",
            "traces",
            *(f"{verdict} in the end" for verdict in VERDICTS[:3]),
            "ever suspect",
            "ever leaking",
        )
        kinds = dict.fromkeys(one.kind for one in clean)
        groups = [(kind, [one for one in clean if one.kind == kind]) for kind in kinds]
        counted = [
            (
                name,
                str(len(group)),
                *(str(sum(one.last == verdict for one in group)) for verdict in VERDICTS[:3]),
                *(str(sum(one.worst == verdict for one in group)) for verdict in VERDICTS[2:]),
            )
            for name, group in groups
        ]
        lines += [*table([head, *counted]), ""]
    if leaking:
        head = (
            "leaking",
            "traces",
            f"found within {WITHIN}",
            "at, median",
            "slope off, median",
            "95 %",
            "within 10 %",
            "in its interval",
        )
        kinds = dict.fromkeys(one.kind for one in leaking)
        groups = [(kind, [one for one in leaking if one.kind == kind]) for kind in kinds]
        rows_of = [_leak_row(name, group) for name, group in [*groups, ("all of 4 KB or more", large)] if group]
        lines += [*table([head, *rows_of]), ""]
    return "\n".join(lines)
