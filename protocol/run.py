"""``rkllm.run``: its params, its result, and what the types cannot say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from rkvisor.protocol.errors import InvalidParams
from rkvisor.protocol.limits import MAX_CONTEXT, MAX_KEY_BYTES
from rkvisor.protocol.params import Params
from rkvisor.protocol.tensors import Tensor

TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class FunctionCall(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the model called.  arguments: an object, or its JSON text."""

    name: Annotated[str, Meta(min_length=1, max_length=256)]
    arguments: dict[str, Any] | str = ""


class ToolCall(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One call of a tool, as the model asked for it."""

    function: FunctionCall
    id: Annotated[str, Meta(max_length=256)] | None = None
    type: Literal["function"] = "function"


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One turn of a conversation.  What its members mean is up to the model's chat template."""

    role: Annotated[str, Meta(min_length=1, max_length=64)]
    content: str | None = None
    name: Annotated[str, Meta(max_length=256)] | None = None
    reasoning_content: str | None = None
    tool_calls: Annotated[list[ToolCall], Meta(max_length=128)] = []
    tool_call_id: Annotated[str, Meta(max_length=256)] | None = None


class ImageInput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Embeddings of images: n_image × n_image_tokens rows.  start, end, content: marks in the prompt (F5)."""

    embed: Tensor
    n_image_tokens: Annotated[int, Meta(ge=1, le=MAX_CONTEXT)]
    n_image: Annotated[int, Meta(ge=1, le=MAX_CONTEXT)] = 1
    width: Annotated[int, Meta(ge=0, le=65_536)] = 0
    height: Annotated[int, Meta(ge=0, le=65_536)] = 0
    start: str | None = None
    end: str | None = None
    content: str | None = None


class VideoInput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Embeddings of videos: n_video × n_frame_per_video × n_frame_tokens rows (F5)."""

    embed: Tensor
    n_frame_tokens: Annotated[int, Meta(ge=1, le=MAX_CONTEXT)]
    n_frame_per_video: Annotated[int, Meta(ge=1, le=MAX_CONTEXT)]
    n_video: Annotated[int, Meta(ge=1, le=MAX_CONTEXT)] = 1
    width: Annotated[int, Meta(ge=0, le=65_536)] = 0
    height: Annotated[int, Meta(ge=0, le=65_536)] = 0
    start: str | None = None
    end: str | None = None
    content: str | None = None


class Multimodal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A prompt with images, videos or both."""

    prompt: str
    image: ImageInput | None = None
    video: VideoInput | None = None


INPUTS = ("prompt", "prompts", "messages", "tokens", "embed", "multimodal")


class RunParams(Params, frozen=True):
    """One inference.  Exactly one input of ``INPUTS``.  Sampling parameters have the vendor's names."""

    model: Annotated[str, Meta(description="name of a configured model", min_length=1)]
    prompt: Annotated[str | None, Meta(description="text; the model's chat template is applied")] = None
    tokens: Annotated[
        Annotated[list[TokenId], Meta(min_length=1, max_length=MAX_CONTEXT)] | None,
        Meta(description="raw token ids: no template, no BOS"),
    ] = None
    role: Annotated[str, Meta(description="role of the prompt in the chat template")] = "user"
    enable_thinking: bool = False
    mode: Literal["generate", "hidden", "logits"] = "generate"
    max_new_tokens: Annotated[int, Meta(ge=1, le=MAX_CONTEXT)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=100)] | None = None
    repeat_penalty: Annotated[float, Meta(ge=0, le=100)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-100, le=100)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-100, le=100)] | None = None
    mirostat: Annotated[int, Meta(ge=0, le=2)] | None = None
    mirostat_tau: Annotated[float, Meta(ge=0, le=100)] | None = None
    mirostat_eta: Annotated[float, Meta(ge=0, le=100)] | None = None
    stop: Annotated[list[Annotated[str, Meta(min_length=1, max_length=1024)]], Meta(max_length=16)] = []  # noqa: RUF012  msgspec copies it
    stream: bool = False
    deadline_ms: Annotated[int, Meta(ge=1, le=86_400_000)] | None = None
    retry: Literal["auto", "never"] = "auto"
    request_key: Annotated[str, Meta(min_length=1, max_length=MAX_KEY_BYTES)] | None = None
    priority: Annotated[int, Meta(ge=0, le=9)] = 5
    prompts: Annotated[
        Annotated[list[str], Meta(min_length=1, max_length=100)] | None,
        Meta(description="one text for each of the model's n_batch items"),
    ] = None
    messages: Annotated[
        Annotated[list[Message], Meta(min_length=1, max_length=1000)] | None,
        Meta(description="a conversation; the model's chat template is applied by rkvisor, which needs its tokenizer"),
    ] = None
    embed: Annotated[Tensor | None, Meta(description="input embeddings, float32, one row a token")] = None
    multimodal: Multimodal | None = None
    lora: Annotated[str | None, Meta(description="name of a loaded LoRA adapter")] = None
    prompt_cache: Annotated[str | None, Meta(description="file to write the prompt's cache to")] = None
    tensor_format: Literal["attachment", "list"] = "attachment"
    session: Annotated[str | None, Meta(description="id of a session; the prompt is its next turn")] = None


SAMPLING = (
    "top_k",
    "top_p",
    "temperature",
    "repeat_penalty",
    "frequency_penalty",
    "presence_penalty",
    "mirostat",
    "mirostat_tau",
    "mirostat_eta",
)

#: Members of params that do not change what is computed: left out of a payload's digest (design §6).
NOT_IN_DIGEST = ("stream", "deadline_ms", "priority", "request_key")


class Perf(msgspec.Struct, kw_only=True):
    """RKLLMPerfStat, the vendor's five fields."""

    prefill_time_ms: float
    prefill_tokens: int
    generate_time_ms: float
    generate_tokens: int
    memory_usage_mb: float


class TensorResult(msgspec.Struct, kw_only=True):
    """A tensor of a result: an attachment of the message, or rows of numbers.  float32."""

    shape: list[int]
    dtype: Literal["float32"] = "float32"
    attachment: int | msgspec.UnsetType = msgspec.UNSET
    rows: list[list[float]] | msgspec.UnsetType = msgspec.UNSET


class ItemResult(msgspec.Struct, kw_only=True):
    """The answer to one of several prompts."""

    item: int
    text: str
    token_ids: list[int]
    finish_reason: Literal["stop", "length", "abort", "context"]


class RunResult(msgspec.Struct, kw_only=True):
    """resumed: how often the request went on in another process.  resume: "exact" or "continued" where it did.

    prompt_tokens: of the input, without what the runtime's own template adds to a prompt.
    """

    text: str
    token_ids: list[int]
    finish_reason: Literal["stop", "length", "abort", "context"]
    perf: Perf | None
    worker: str | None
    resumed: int = 0
    resume: Literal["exact", "continued"] | None = None
    degraded: bool = False
    prompt_tokens: int | None = None
    prompt_tokens_estimated: bool = False
    hidden_states: TensorResult | msgspec.UnsetType = msgspec.UNSET
    logits: TensorResult | msgspec.UnsetType = msgspec.UNSET
    items: list[ItemResult] | msgspec.UnsetType = msgspec.UNSET
    session: str | msgspec.UnsetType = msgspec.UNSET
    session_restored: bool | msgspec.UnsetType = msgspec.UNSET


def check_run(params: RunParams) -> None:
    """What the type of RunParams cannot say.  Raises InvalidParams."""
    given = [name for name in INPUTS if getattr(params, name) is not None]
    if len(given) != 1:
        got = " and ".join(given) or "none"
        raise InvalidParams(f"cannot run without exactly one input of {', '.join(INPUTS)}: got {got}")
    if params.multimodal is not None and params.multimodal.image is None and params.multimodal.video is None:
        raise InvalidParams("cannot run a multimodal input without image or video: send it as a prompt")
    for message in params.messages or ():
        if message.content is None and not message.tool_calls:
            raise InvalidParams(f"cannot take a message of {message.role!r} with neither content nor tool_calls")
    for name, text in _texts(params):
        if "\0" in text:
            raise InvalidParams(f"cannot pass a {name} with U+0000: the runtime reads it as the end of the text")
    if params.mode != "generate":
        unfit = [name for name in ("stream", "stop", "prompts") if getattr(params, name)]
        if unfit:
            raise InvalidParams(f"cannot combine {unfit[0]} with mode {params.mode!r}, which generates no tokens")


def _texts(params: RunParams) -> list[tuple[str, str]]:
    """Everything that reaches the runtime as a C string, by name."""
    multimodal = params.multimodal
    marks = [part for part in (multimodal.image, multimodal.video) if part is not None] if multimodal else []
    found = [("prompt", params.prompt), ("role", params.role), ("lora", params.lora)]
    found += [("prompt", text) for text in params.prompts or ()]
    found += [("message", text) for message in params.messages or () for text in (message.role, message.content)]
    found += [("prompt", multimodal.prompt)] if multimodal else []
    found += [(name, getattr(part, name)) for part in marks for name in ("start", "end", "content")]
    return [(name, text) for name, text in found if text is not None]


def is_greedy(params: RunParams, defaults: Mapping[str, Any]) -> bool:
    """Whether the run has no chance in it: temperature 0 or top_k 1, from the request or else from the model."""
    temperature = params.temperature if params.temperature is not None else defaults.get("temperature", 0.8)
    top_k = params.top_k if params.top_k is not None else defaults.get("top_k", 40)
    return bool(temperature == 0 or top_k == 1)


def can_be_tokens(params: RunParams, *, has_tokenizer: bool) -> bool:
    """Whether the input of the run is token ids, or can be turned into them; a session's turn has others before it."""
    if params.session is not None:
        return False
    return params.tokens is not None or (has_tokenizer and (params.prompt is not None or params.messages is not None))
