"""Params of methods as types: by name or by position, decoded and validated in one step."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from rkvisor.protocol.errors import InvalidParams
from rkvisor.protocol.nearest import nearest

#: The id of a request as it was written, for byte-exact comparison; the schema says what may stand there.
RawId = Annotated[
    msgspec.Raw,
    Meta(
        extra_json_schema={"type": ["string", "number", "null"], "description": "the id of a request, as it was sent"}
    ),
]


class Params(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all params: by name, or by position in the order of the fields."""


class NoParams(Params, frozen=True):
    """A method without params."""


_decoders: dict[type[Params], msgspec.json.Decoder[Any]] = {}


def decode_params(kind: type[Params], raw: bytes) -> Any:
    """Params of type *kind* from their JSON text, an object or an array.

    Raises:
        InvalidParams: naming the member and what was expected of it; an unknown one with its nearest neighbour.
    """
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    try:
        if raw[:1] == b"[":
            return _by_position(kind, raw)
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise InvalidParams(f"cannot take the params: {_explain(kind, str(error))}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidParams(f"cannot read the params: {error}") from error


def _by_position(kind: type[Params], raw: bytes) -> Any:
    values = msgspec.json.decode(raw, type=list[msgspec.Raw])
    names = kind.__struct_fields__
    if len(values) > len(names):
        takes = f"takes {len(names)}: {', '.join(names)}" if names else "takes none"
        raise InvalidParams(f"cannot take {len(values)} params by position: the method {takes}")
    members = b",".join(b'"%b":%b' % (name.encode(), bytes(value)) for name, value in zip(names, values, strict=False))
    return _decoders[kind].decode(b"{%b}" % members)


def _explain(kind: type[Params], text: str) -> str:
    """msgspec's message, with a hint where a member is unknown."""
    marker = "Object contains unknown field `"
    if not text.startswith(marker):
        return text[:1].lower() + text[1:]
    unknown = text[len(marker) :].split("`")[0]
    near = nearest(unknown, kind.__struct_fields__)
    hint = f"did you mean {near!r}?" if near else f"known: {', '.join(kind.__struct_fields__) or 'none'}"
    return f"unknown member {unknown!r}; {hint}"
