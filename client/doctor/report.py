"""The doctor's report: findings in groups, as text for a terminal or as JSON, and what they mean to a shell.  Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from rkvisor.worker.checks.finding import Finding

#: As the levels are shown: what must be mended stands out.
_SHOWN = {"ok": "ok", "note": "note", "warning": "WARNING", "problem": "PROBLEM"}
_LEVEL_WIDTH, _ABOUT_WIDTH = 9, 14
_INDENT = " " * (2 + _LEVEL_WIDTH + _ABOUT_WIDTH)
_LEAST_WIDTH = 72


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """title: what the findings are about: the machine, the configuration, one model."""

    title: str
    findings: list[Finding]


def count(groups: Sequence[Group], level: str) -> int:
    """How many findings have *level*."""
    return sum(finding.level == level for group in groups for finding in group.findings)


def exit_status(groups: Sequence[Group]) -> int:
    """1 where something will fail, else 0."""
    return 1 if count(groups, "problem") else 0


def as_json(groups: Sequence[Group]) -> bytes:
    """One line of JSON: how many problems and warnings, and every finding by group."""
    whole: dict[str, Any] = {"problems": count(groups, "problem"), "warnings": count(groups, "warning")}
    return msgspec.json.encode({**whole, "groups": groups})


def as_text(groups: Sequence[Group], width: int) -> str:
    """The report for people.  width: of the terminal, in characters."""
    lines: list[str] = []
    for group in groups:
        lines += [group.title, *_lines(group.findings, max(width, _LEAST_WIDTH)), ""]
    problems, warnings = count(groups, "problem"), count(groups, "warning")
    found = [_plural(number, word) for number, word in ((problems, "problem"), (warnings, "warning")) if number]
    return "\n".join([*lines, " and ".join(found) if found else "nothing is missing"]) + "\n"


def _lines(findings: Sequence[Finding], width: int) -> Iterator[str]:
    for finding in findings:
        head = f"  {_SHOWN[finding.level]:<{_LEVEL_WIDTH}}{finding.about:<{_ABOUT_WIDTH - 1}} "
        first, *more = _wrapped(finding.text, width) or [""]
        yield from (head + first, *(_INDENT + line for line in more))
        if finding.remedy:
            first, *more = _wrapped(finding.remedy, width - 2)
            yield from (f"{_INDENT}→ {first}", *(f"{_INDENT}  {line}" for line in more))


def _wrapped(text: str, width: int) -> list[str]:
    """*text* in lines that fit beside the indent; a path or a command is never cut in two."""
    return textwrap.wrap(text, width - len(_INDENT), break_on_hyphens=False, break_long_words=False)


def _plural(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
