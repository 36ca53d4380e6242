"""The nearest known name to a misspelt one, for error messages."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like *name*, or None where none comes close."""
    matches = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def no_such(kind: str, name: str, known: Iterable[str]) -> str:
    """``no such KIND``, and the known name that was probably meant."""
    near = nearest(name, known)
    return f"no such {kind}" + (f"; did you mean {near}?" if near else "")
