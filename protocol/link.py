"""Messages between rkvisord and its processes: multipart, first a fixed binary header, then what the kind needs.

The header is 24 bytes, little-endian: version u8, kind u8, count u16, incarnation u32, job u64, seq u32, token_id i32.
A TOKEN's header is followed, in the same frame, by ``count`` more i32: the ids that travel with ``token_id`` because
they became text only together with it.  The frames of every kind are listed in ``README.md`` beside this module.

Bodies of control messages are msgpack maps; what a client will read is JSON already when it leaves the worker.
"""

from __future__ import annotations

import struct
from enum import IntEnum, unique
from typing import Any, NamedTuple

import msgspec

from rkvisor.protocol.limits import LINK_VERSION

HEADER = struct.Struct("<BBHIQIi")


@unique
class Kind(IntEnum):
    """What a message is.  Even numbers go to the process, odd ones come from it."""

    HELLO = 1
    LOAD = 2
    READY = 3
    RUN = 4
    LOAD_FAILED = 5
    ABORT = 6
    TOKEN = 7
    CONTROL = 8
    RESULT = 9
    PING = 10
    ERROR = 11
    STOP = 12
    PONG = 13
    PAUSE = 14
    CONTROL_RESULT = 15
    RESUME = 16
    PREPARE = 18
    TURN = 17
    PROMPT = 19
    ASK = 20
    ANSWER = 23
    PAUSED = 21


class Header(NamedTuple):
    """The fixed part.  incarnation: of the process, [1, 2³²).  job: 0 where none.  ids: of a TOKEN, in order."""

    kind: int
    incarnation: int
    job: int = 0
    seq: int = 0
    ids: tuple[int, ...] = ()


class MalformedLink(Exception):
    """A frame between rkvisord and a process that is none of this version."""


def pack(kind: Kind, incarnation: int, job: int = 0, seq: int = 0, ids: tuple[int, ...] = ()) -> bytes:
    """The header frame.  ids: at most 65536 token ids, the last of which is the header's own token_id."""
    if not ids:
        return HEADER.pack(LINK_VERSION, kind, 0, incarnation, job, seq, -1)
    head = HEADER.pack(LINK_VERSION, kind, len(ids) - 1, incarnation, job, seq, ids[-1])
    return head if len(ids) == 1 else head + struct.pack(f"<{len(ids) - 1}i", *ids[:-1])


def unpack(frame: bytes) -> Header:
    """The header of *frame*.

    Raises:
        MalformedLink: too short, of another version, or a count that the length does not bear out.
    """
    try:
        version, kind, count, incarnation, job, seq, token_id = HEADER.unpack_from(frame)
    except struct.error as error:
        raise MalformedLink(f"cannot read a header of {len(frame)} bytes: it has {HEADER.size}") from error
    if version != LINK_VERSION:
        raise MalformedLink(f"cannot speak link version {version}: this side speaks {LINK_VERSION}")
    if len(frame) != HEADER.size + 4 * count:
        raise MalformedLink(f"cannot read a header of {len(frame)} bytes with {count} more token ids")
    if kind != Kind.TOKEN:
        return Header(kind, incarnation, job, seq)
    more = struct.unpack_from(f"<{count}i", frame, HEADER.size) if count else ()
    return Header(kind, incarnation, job, seq, (*more, token_id))


encode_body = msgspec.msgpack.Encoder().encode


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """HELLO: a process is up, without a model.  start_time: clock ticks since boot, field 22 of /proc/PID/stat."""

    pid: int
    start_time: int
    incarnation: int
    epoch: str


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """LOAD: become this worker.  PREPARE: get ready for such a LOAD.  All paths are absolute."""

    worker: str
    runtime: str
    path: str
    library: str | None = None
    abi: str | None = None
    state_dir: str = ""
    force_tokens: bool = True
    faults: bool = False
    embedding_size: int = 0
    vocab_size: int = 0
    preflight: bool = True
    tracker: bool = False
    memory_limit: int = 0
    tokenizer: str | None = None
    chat_template: str | None = None
    param: dict[str, Any] = {}


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """READY: the model is loaded.  ``param``: what the runtime was initialised with, its defaults filled in.

    has_tokenizer: whether prompts and messages can be given to the runtime as tokens.  tokenizer, chat_template: files
    that they are read from.
    """

    family: str
    version: str | None = None
    functions: list[str]
    can_force_tokens: bool
    has_tokenizer: bool = False
    tokenizer: str | None = None
    chat_template: str | None = None
    default_param: dict[str, Any]
    param: dict[str, Any]
    load_s: float


class LoadFailed(msgspec.Struct, frozen=True, kw_only=True):
    """LOAD_FAILED: why there will be no READY; the process exits after it.  error: the JSON-RPC error object.

    is_permanent: another try would fail alike (no such file, a model of the wrong kind, an unknown runtime).
    """

    error: dict[str, Any]
    is_permanent: bool = False


class Turn(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A turn of a session that is over.  job: under which it ran, unique in the epoch.  params: of its run, JSON text.

    ids: all tokens that the runtime generated.  end_id: the token that ended the answer and is in the KV cache beside
    them, -1: none is.  is_natural: the runtime ended the answer by itself, before its limit.
    """

    job: int
    params: bytes
    ids: list[int]
    end_id: int = -1
    is_natural: bool = False


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """What a RUN in a session brings.  turns: encoded ``Turn`` s, in order.

    template, tools: the three texts of ``rkllm.set_chat_template`` and ``rkllm.set_function_tools``, empty: the
    model's.  may_restore: the turns may be replayed where the KV cache does not hold them; else that is SESSION_LOST.
    """

    id: str
    turns: list[msgspec.Raw] = []
    template: list[str] = []
    tools: list[str] = []
    lora: str | None = None
    may_restore: bool = True


class TurnEnd(msgspec.Struct, frozen=True, kw_only=True):
    """TURN: the KV cache holds this turn too, from now on.  It comes before the RESULT; see ``Turn``."""

    end_id: int = -1
    is_natural: bool = False
    is_restored: bool = False


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """First body of RUN; the client's params follow as raw JSON.

    ids, text, seq: what earlier attempts have streamed (token ids, their text, number of TOKEN messages).
    resume: how to go on behind it: "" (nothing was streamed), "forced", "muted" or "tokens" (they follow the prompt, as
    token input).  quality: what the result says of it.  worker: the slot's name, for the result (a standby does not
    know it when it loads).  prompt_cache: absolute path to write the prompt's cache to, "" for none; it was checked to
    lie in the configured directory.  time_s: wall clock when the request came, the same in every attempt.
    """

    worker: str
    ids: list[int] = []
    text: str = ""
    seq: int = 0
    resume: str = ""
    resumed: int = 0
    quality: str | None = None
    degraded: bool = False
    prompt_cache: str = ""
    time_s: float = 0.0
    session: Session | None = None


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """PROMPT: how many tokens the request's input has.  Sent before its run, where it is no estimate."""

    tokens: int


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """First body of CONTROL and ASK; the client's params follow as raw JSON, then the attachments.  name: of the
    method."""

    name: str


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """PAUSE: pause the request at its next token.  PAUSED: it is paused.  number: of the pause, unlike any before."""

    number: int


class Resume(msgspec.Struct, frozen=True, kw_only=True):
    """RESUME: the pause *number* is over.  text: the request goes on behind it; empty: behind its own last token."""

    number: int
    text: str = ""


decode_hello = msgspec.msgpack.Decoder(Hello).decode
decode_load = msgspec.msgpack.Decoder(Load).decode
decode_ready = msgspec.msgpack.Decoder(Ready).decode
decode_load_failed = msgspec.msgpack.Decoder(LoadFailed).decode
decode_run = msgspec.msgpack.Decoder(Run).decode
decode_prompt = msgspec.msgpack.Decoder(Prompt).decode
decode_call = msgspec.msgpack.Decoder(Call).decode
decode_pause = msgspec.msgpack.Decoder(Pause).decode
decode_resume = msgspec.msgpack.Decoder(Resume).decode
decode_turn = msgspec.msgpack.Decoder(Turn).decode
decode_turn_end = msgspec.msgpack.Decoder(TurnEnd).decode


class Fragment(msgspec.Struct, frozen=True):
    """What a TOKEN message says of itself in JSON: the params of ``rkllm.token`` but the request's id."""

    seq: int
    text: str
    token_id: int
    token_ids: list[int] | msgspec.UnsetType = msgspec.UNSET


_encode_fragment = msgspec.json.Encoder().encode
_decode_fragment = msgspec.json.Decoder(Fragment).decode


def encode_fragment(seq: int, text: str, ids: tuple[int, ...]) -> bytes:
    """Second frame of a TOKEN: the JSON object without its braces, ready to stand behind ``"request":…,``."""
    ids_too = list(ids) if len(ids) > 1 else msgspec.UNSET
    return _encode_fragment(Fragment(seq, text, ids[-1], ids_too))[1:-1]


def decode_fragment(fragment: bytes) -> Fragment:
    """The inverse of ``encode_fragment``; only needed when a stream must be resumed.  Raises msgspec's errors."""
    return _decode_fragment(b"{%b}" % fragment)
