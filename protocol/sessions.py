"""``session.*``: a conversation whose history rkvisord holds; its params and results.

A session belongs to the principal that opened it and to one epoch of rkvisord; of every other one it is unknown.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from rkvisor.protocol.calls import ModelName, Text
from rkvisor.protocol.errors import InvalidParams
from rkvisor.protocol.params import Params
from rkvisor.protocol.run import RunParams

SessionId = Annotated[str, Meta(min_length=1, max_length=128, description="as session.open answered it")]

#: Inputs that a turn may have: the history is kept as texts, and given to the runtime's own template again.
TURN_INPUT = "prompt"


class Template(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``rkllm.set_chat_template``, for this session only.  It switches thinking off (RKLLM's rule)."""

    system_prompt: Text = ""
    prompt_prefix: Text = ""
    prompt_postfix: Text = ""


class Tools(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``rkllm.set_function_tools``, for this session only.  tools: JSON text."""

    system_prompt: Text = ""
    tools: Text = ""
    tool_response: Text = ""


class OpenParams(Params, frozen=True):
    """A new conversation.  chat_template, function_tools: as the methods of these names take them.

    lora: name of a loaded adapter.  idle_timeout_s: closed when unused for so long; at most the server's limit, which
    is also the default, as of max_turns.  on_lost: "lost" where a replay is not wanted.
    """

    model: ModelName
    chat_template: Template | None = None
    function_tools: Tools | None = None
    lora: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    idle_timeout_s: Annotated[float, Meta(ge=0.01, le=604_800)] | None = None
    on_lost: Literal["replay", "lost"] = "replay"
    max_turns: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None


class OpenResult(msgspec.Struct, kw_only=True):
    session: str
    model: str
    idle_timeout_s: float
    max_turns: int


class SessionParams(Params, frozen=True):
    """One session, by its id."""

    session: SessionId


class HistoryParams(Params, frozen=True):
    """token_ids: give those of every answer, too."""

    session: SessionId
    token_ids: bool = False


class ClosedResult(msgspec.Struct):
    """closed: false where there was none such."""

    closed: bool


SessionState = Literal["idle", "running", "lost"]


class SessionEntry(msgspec.Struct, kw_only=True):
    """worker: who has it in its KV cache, null: nobody; the next turn is then restored.  restored: how often it was."""

    session: str
    model: str
    state: SessionState
    turns: int
    tokens: int
    bytes: int
    waiting: int
    restored: int
    worker: str | None
    idle_s: float
    idle_timeout_s: float
    lost_because: str | None


class SessionList(msgspec.Struct, kw_only=True):
    sessions: list[SessionEntry]


class TurnEntry(msgspec.Struct, kw_only=True):
    """One question and its answer."""

    role: str
    prompt: str
    text: str
    finish_reason: str
    tokens: int
    token_ids: list[int] | msgspec.UnsetType = msgspec.UNSET


class SessionHistory(msgspec.Struct, kw_only=True):
    session: str
    model: str
    state: SessionState
    lost_because: str | None
    turns: list[TurnEntry]


def check_open(params: OpenParams) -> None:
    """What the types cannot say.  Raises InvalidParams."""
    texts = {"lora": params.lora or ""}
    for part in (params.chat_template, params.function_tools):
        if part is not None:
            texts |= {name: getattr(part, name) for name in part.__struct_fields__}
    for name, text in texts.items():
        if "\0" in text:
            raise InvalidParams(f"cannot pass a {name} with U+0000: the runtime reads it as the end of the text")


def check_turn(params: RunParams) -> None:
    """Raise InvalidParams for a run that cannot be a turn of a session."""
    if params.mode != "generate":
        text = f"mode {params.mode!r} leaves no answer in a history; run it without a session"
        raise InvalidParams(f"cannot run it in a session: {text}")
    if params.prompt is None:
        text = "a turn is a prompt; the session has the messages before it"
        raise InvalidParams(f"cannot run it in a session: {text}")
    if params.prompt_cache is not None:
        raise InvalidParams("cannot write a prompt_cache in a session: the cache holds the turns before it, too")
