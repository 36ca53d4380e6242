"""What a check found.  Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

#: From good to bad.  note: good to know.  warning: may work, but not as well as it could.  problem: will fail.
Level = Literal["ok", "note", "warning", "problem"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """about: the thing, in a word or two.  text: what is so.  remedy: what to do about it, "" where nothing must be.

    code: of RKLLM's errors (``protocol/errors.py``), the one that this problem would end in.
    """

    about: str
    level: Level
    text: str
    remedy: str = ""
    code: str = ""


def problem(about: str, text: str, remedy: str = "", code: str = "RKLLM_INVALID_PARAM") -> Finding:
    """A finding that keeps the model from being loaded."""
    return Finding(about=about, level="problem", text=text, remedy=remedy, code=code)


def first_problem(findings: Iterable[Finding]) -> Finding | None:
    """The first finding that is a problem."""
    return next((finding for finding in findings if finding.level == "problem"), None)
