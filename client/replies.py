"""What comes from the server, decoded: a total function from bytes to a reply, a token, a progress note or nothing.

It refuses to know which request a message belongs to; ``dialogue.py`` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from rkvisor.client.errors import UnreadableReply

T = TypeVar("T")


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a stream.  text: never cut inside a character.  seq: 0, 1, 2 … within the stream.

    token_ids: all ids that became text together; token_id is the last of them.
    """

    seq: int
    text: str
    token_id: int
    token_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.token_ids:
            msgspec.structs.force_setattr(self, "token_ids", (self.token_id,))


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Why nothing comes of a request.

    phase: "queued" or "prefill"; "paused", then "resumed" or "pause_timeout".  queue_position: requests before it,
    where it waits.  timeout_in_s: seconds until the server ends a pause.
    """

    phase: str
    queue_position: int | None = None
    timeout_in_s: float | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """A response.  id: its JSON text.  Exactly one of result (its JSON text) and error (the error object) is set."""

    id: bytes
    result: bytes | None = None
    error: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Note:
    """A notification about the request whose id has this JSON text."""

    request: bytes
    news: Token | Progress


class _Envelope(msgspec.Struct):
    id: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    method: str | msgspec.UnsetType = msgspec.UNSET
    params: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: dict[str, Any] | msgspec.UnsetType | None = msgspec.UNSET


class _TokenParams(Token, frozen=True, kw_only=True):
    request: msgspec.Raw


class _ProgressParams(Progress, frozen=True, kw_only=True):
    request: msgspec.Raw


_envelope = msgspec.json.Decoder(_Envelope)
_token = msgspec.json.Decoder(_TokenParams)
_progress = msgspec.json.Decoder(_ProgressParams)
_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def parse(frame: bytes) -> Reply | Note | None:
    """Read one message from the server; None for what is no reply and no known notification.  Never raises."""
    try:
        envelope = _envelope.decode(frame)
        if isinstance(envelope.method, str):
            return _note(envelope.method, envelope.params)
    except _BROKEN:
        return None
    if envelope.id is msgspec.UNSET:
        return None
    identifier = bytes(envelope.id).strip()
    if isinstance(envelope.error, dict):
        return Reply(identifier, error=envelope.error)
    if envelope.result is msgspec.UNSET:
        return None
    return Reply(identifier, result=bytes(envelope.result))


def _note(method: str, params: msgspec.Raw | msgspec.UnsetType) -> Note | None:
    if params is msgspec.UNSET:
        return None
    if method == "rkllm.token":
        token = _token.decode(params)
        plain = Token(seq=token.seq, text=token.text, token_id=token.token_id, token_ids=token.token_ids)
        return Note(bytes(token.request).strip(), plain)
    if method == "rkvisor.progress":
        progress = _progress.decode(params)
        news = Progress(
            phase=progress.phase, queue_position=progress.queue_position, timeout_in_s=progress.timeout_in_s
        )
        return Note(bytes(progress.request).strip(), news)
    return None


def decode_result(kind: type[T], method: str, result: bytes) -> T:
    """The result as *kind*.  Raises UnreadableReply when the server sent something else."""
    try:
        return msgspec.json.decode(result, type=kind)
    except _BROKEN as error:
        raise UnreadableReply(f"cannot read the result of {method}: {error}", component="client") from error
