"""Words for the generated tables: types, bounds and defaults as a reader of TOML or JSON would say them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

TEXTS = Path(__file__).resolve().parent / "texts"


class CannotGenerate(Exception):
    """A name has no text, or a text no name."""


def texts(name: str, known: Mapping[str, str]) -> dict[str, str]:
    """The text of each of *known*: from the table *name*, else what the code says of it itself (its value).

    Raises CannotGenerate where there is neither, or a text of something that is not known.
    """
    file, _, table = name.partition(".")
    found: dict[str, str] = tomllib.loads((TEXTS / f"{file}.toml").read_text(encoding="utf-8"))[table]
    where = f"docs/texts/{file}.toml, table [{table}]"
    if missing := [one for one, own in known.items() if one not in found and not own]:
        raise CannotGenerate(f"cannot describe {', '.join(missing)}: add a text to {where}")
    if stale := [one for one in found if one not in known]:
        raise CannotGenerate(f"cannot describe what is not there: remove {', '.join(stale)} from {where}")
    return {**known, **found}


def own_text(kind: inspect.Type) -> str:
    """What a member's type says of it, as a sentence; "" if it says nothing."""
    described = (kind.extra_json_schema or {}).get("description", "") if isinstance(kind, inspect.Metadata) else ""
    return f"{described[0].upper()}{described[1:]}." if described else ""


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table; a bar inside a cell is escaped."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def type_text(kind: inspect.Type) -> str:
    """A type as a reader of JSON or TOML would say it."""
    match kind:
        case inspect.Metadata():
            return type_text(kind.type)
        case inspect.UnionType():
            return " or ".join(dict.fromkeys(type_text(one) for one in kind.types if not _is_nothing(one)))
        case inspect.LiteralType():
            return ", ".join(f"`{value}`" for value in kind.values)
        case inspect.ListType():
            return f"list of {type_text(kind.item_type)}{_range(kind.min_length, kind.max_length, 'items')}"
        case inspect.DictType():
            return "table" if isinstance(kind.value_type, inspect.UnionType) else "object"
        case inspect.StrType():
            return f"string{_range(kind.min_length, kind.max_length, 'characters') if kind.max_length else ''}"
        case inspect.IntType():
            return "integer" + _bounds(kind)
        case inspect.FloatType():
            return "number" + _bounds(kind)
        case inspect.StructType():
            return kind.cls.__name__
        case inspect.RawType():
            return "id"
    return {"BoolType": "true or false", "AnyType": "anything"}.get(type(kind).__name__, type(kind).__name__)


def _is_nothing(kind: inspect.Type) -> bool:
    name = type(kind).__name__
    return name in ("NoneType", "UnsetType") or "Unset" in repr(kind)


def _bounds(kind: Any) -> str:
    low = f" ≥ {kind.ge}" if kind.ge is not None else f" > {kind.gt}" if kind.gt is not None else ""
    high = f" ≤ {kind.le}" if kind.le is not None and kind.le < 2**31 - 1 else ""
    return f"{low}{',' if low and high else ''}{high}"


def _range(low: int | None, high: int | None, what: str) -> str:
    if low is None and high is None:
        return ""
    return f", {low or 0} to {high} {what}" if high is not None else f", at least {low} {what}"


def default_text(field: inspect.Field) -> str:
    """The default as TOML or JSON would write it."""
    if field.required:
        return "required"
    value = field.default
    if field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory()
    if value is None or value is msgspec.UNSET or value is msgspec.NODEFAULT:
        return "–"
    return f"`{msgspec.json.encode(value).decode()}`"


def fields(kind: type) -> tuple[inspect.Field, ...]:
    """The members of a struct."""
    described = inspect.type_info(kind)
    assert isinstance(described, inspect.StructType)
    return described.fields
