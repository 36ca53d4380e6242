"""JSON-RPC 2.0 envelopes: a total function from bytes to requests or catalogue errors, and the encoders.

The members ``id`` and ``params`` stay raw bytes: an id is echoed as it was written (``1.0``, 2^70), and params are
decoded once, by the method's own type (``methods.py``).  This module does not know any method.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import msgspec

from rkvisor.protocol.errors import InvalidRequest, ParseError, RkvisorError, TooLarge
from rkvisor.protocol.limits import MAX_BATCH, MAX_DEPTH, MAX_ID_BYTES, MAX_JSON_BYTES

NULL = b"null"
_NUMBER_STARTS = [b"%c" % byte for byte in b"-0123456789"]
#: Bytes that are neither brackets nor quotes, and where each bracket leads.
_NEITHER = bytes(set(range(256)) - set(b'[]{}"'))
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A well-formed request.  id: its JSON text, None for a notification.  params: JSON text, array or object."""

    method: str
    id: bytes | None
    params: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Invalid:
    """What could not be read as a request.  id: the JSON text to answer under (``null`` where none was found)."""

    id: bytes
    error: RkvisorError


class _Envelope(msgspec.Struct):
    jsonrpc: Any = msgspec.UNSET
    method: Any = msgspec.UNSET
    id: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    params: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_one = msgspec.json.Decoder(_Envelope)
_many = msgspec.json.Decoder(list[msgspec.Raw])
#: Accepts any JSON; a number too great for a float is JSON too.
_any = msgspec.json.Decoder(msgspec.Raw)
encode = msgspec.json.Encoder().encode


def depth(message: bytes) -> int:
    """How deeply arrays and objects nest in *message*, which need not be valid JSON.

    Takes time in proportion to the length, whatever a client sends: escapes and strings go before brackets are counted.
    """
    plain = message.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _NEITHER)
    outside = b"".join(plain.split(b'"')[::2])
    return max(accumulate(map(_STEPS.__getitem__, outside)), default=0)


def parse(message: bytes) -> Request | Invalid | list[Request | Invalid]:
    """Read one message: a request, or the elements of a batch array.  Never raises.

    A message that is no JSON, is empty, nests deeper than ``MAX_DEPTH``, is longer than ``MAX_JSON_BYTES`` or whose
    batch is empty or longer than ``MAX_BATCH`` gives one ``Invalid``.
    """
    try:
        _check_text(message)
    except RkvisorError as error:
        return Invalid(id=NULL, error=error)
    if message.lstrip()[:1] != b"[":
        return _parse_one(message)
    try:
        items = _many.decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Invalid(id=NULL, error=ParseError(f"cannot parse the message as JSON: {error}"))
    if not 0 < len(items) <= MAX_BATCH:
        text = f"cannot take a batch of {len(items)} requests: it must hold 1 to {MAX_BATCH}"
        return Invalid(id=NULL, error=InvalidRequest(text))
    return [_parse_one(bytes(item)) for item in items]


def _check_text(message: bytes) -> None:
    """Raise unless *message* is UTF-8 text within the limits (a Raw member is never checked by the decoder)."""
    if not message:
        raise ParseError("cannot parse an empty message: one JSON-RPC 2.0 object or batch array is expected")
    if len(message) > MAX_JSON_BYTES:
        text = f"cannot take {len(message)} bytes of JSON: the limit is {MAX_JSON_BYTES}; send tensors as attachments"
        raise TooLarge(text)
    try:
        message.decode()
    except UnicodeDecodeError as error:
        raise ParseError(f"cannot parse the message: byte {error.start} is not valid UTF-8") from error
    if message.count(b"[") + message.count(b"{") > MAX_DEPTH and depth(message) > MAX_DEPTH:
        raise ParseError(f"cannot parse the message: it nests deeper than {MAX_DEPTH} levels")


def _parse_one(message: bytes) -> Request | Invalid:
    try:
        envelope = _one.decode(message)
    except (msgspec.ValidationError, UnicodeDecodeError, RecursionError, msgspec.DecodeError) as error:
        return Invalid(id=NULL, error=_not_an_envelope(message, error))
    try:
        identifier = None if envelope.id is msgspec.UNSET else _check_id(bytes(envelope.id))
    except RkvisorError as error:
        return Invalid(id=NULL, error=error)
    params = b"{}" if envelope.params is msgspec.UNSET else bytes(envelope.params).strip()
    problem = ""
    if envelope.jsonrpc != "2.0":
        problem = 'cannot take the request: the member "jsonrpc" must be "2.0"'
    elif not isinstance(envelope.method, str):
        problem = 'cannot take the request: the member "method" must be a string'
    elif params[:1] not in (b"{", b"["):
        problem = 'cannot take the request: the member "params" must be an object or an array'
    if problem:
        return Invalid(id=identifier or NULL, error=InvalidRequest(problem))
    return Request(method=envelope.method, id=identifier, params=params)


def _not_an_envelope(message: bytes, error: Exception) -> RkvisorError:
    """Tell broken JSON (Parse error) from valid JSON that is no request object (Invalid Request)."""
    try:
        _any.decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as broken:
        return ParseError(f"cannot parse the message as JSON: {broken}")
    return InvalidRequest(f"cannot take the request: it must be a JSON object ({error})")


def is_id(raw: bytes) -> bool:
    """Whether *raw*, JSON text without space around it, may be the id of a request: a string, a number or null."""
    return raw == NULL or raw[:1] == b'"' or raw[:1] in _NUMBER_STARTS


def _check_id(raw: bytes) -> bytes:
    raw = raw.strip()
    if len(raw) > MAX_ID_BYTES:
        raise InvalidRequest(f"cannot take an id of {len(raw)} bytes: the limit is {MAX_ID_BYTES}")
    if is_id(raw):
        return raw
    raise InvalidRequest('cannot take the member "id": it must be a string, a number or null')


def response(identifier: bytes, result: bytes) -> bytes:
    """A success response.  identifier, result: JSON texts."""
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (identifier, result)


def error_response(identifier: bytes, error: bytes) -> bytes:
    """An error response.  identifier: JSON text.  error: JSON text of the error object."""
    return b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (identifier, error)


def notification(method: str, params: bytes) -> bytes:
    """A notification from the server.  params: JSON text of an object."""
    return b'{"jsonrpc":"2.0","method":"%b","params":%b}' % (method.encode(), params)


def token_notification(identifier: bytes, fragment: bytes) -> bytes:
    """The ``rkllm.token`` notification of the request *identifier*.

    fragment: the rest of its params, ``"seq":…,"text":…,"token_id":…``, encoded by the worker (``link.py``), so that
    one worker message serves every connection that listens to the request, under the id that each knows it by.
    """
    return b'{"jsonrpc":"2.0","method":"rkllm.token","params":{"request":%b,%b}}' % (identifier, fragment)
