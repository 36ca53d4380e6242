"""The part of JSON Schema that rkvisor's OpenRPC document uses, in the plainest way; anything else is refused."""

from __future__ import annotations

import re
from typing import Any

ANNOTATIONS = {"title", "description", "default"}
KINDS: dict[str, Any] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}
#: keyword → (kind of value that it speaks of, check of value against the keyword's argument)
CHECKS: dict[str, tuple[str, Any]] = {
    "minimum": ("number", lambda value, least: value >= least),
    "maximum": ("number", lambda value, most: value <= most),
    "minLength": ("string", lambda value, least: len(value) >= least),
    "maxLength": ("string", lambda value, most: len(value) <= most),
    "pattern": ("string", lambda value, pattern: re.search(pattern, value) is not None),
    "minItems": ("array", lambda value, least: len(value) >= least),
    "maxItems": ("array", lambda value, most: len(value) <= most),
    "required": ("object", lambda value, names: set(names) <= set(value)),
}


def is_valid(value: Any, schema: Any, root: dict[str, Any]) -> bool:
    """Whether *value* agrees with *schema*.  root: the document that ``$ref`` points into."""
    if isinstance(schema, bool):
        return schema
    return all(_holds(keyword, argument, value, schema, root) for keyword, argument in schema.items())


def _holds(keyword: str, argument: Any, value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    if keyword in ANNOTATIONS:
        return True
    if keyword in CHECKS:
        kind, check = CHECKS[keyword]
        return not KINDS[kind](value) or bool(check(value, argument))
    match keyword:
        case "type":
            kinds = [argument] if isinstance(argument, str) else argument
            return any(KINDS[kind](value) for kind in kinds)
        case "enum":
            return any(value == one and type(value) is type(one) for one in argument)
        case "anyOf":
            return any(is_valid(value, one, root) for one in argument)
        case "$ref":
            return is_valid(value, resolve(argument, root), root)
        case "items":
            return not isinstance(value, list) or all(is_valid(one, argument, root) for one in value)
        case "properties":
            return not isinstance(value, dict) or all(
                is_valid(value[name], one, root) for name, one in argument.items() if name in value
            )
        case "additionalProperties":
            known = schema.get("properties", {})
            return not isinstance(value, dict) or all(
                is_valid(one, argument, root) for name, one in value.items() if name not in known
            )
    raise AssertionError(f"this checker does not know the keyword {keyword!r}")


def resolve(reference: str, root: dict[str, Any]) -> Any:
    """What ``#/a/b`` points to.  Raises KeyError where nothing is there."""
    assert reference.startswith("#/")
    place: Any = root
    for step in reference[2:].split("/"):
        place = place[step]
    return place
