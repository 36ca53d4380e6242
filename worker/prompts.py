"""What a model makes of the inputs of its runs: conversations to tokens, their length, where a resumed run goes on.

Decides which tokenizer and which template a model has, and what is refused without them.  A conversation, and a prompt
that is continued, go to the runtime as token input, which it takes raw: no second template is applied.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from rkvisor.protocol.errors import InvalidParams, NotSupported, RkllmFailure
from rkvisor.protocol.link import Load, Run
from rkvisor.protocol.run import Multimodal, RunParams
from rkvisor.protocol.tensors import TensorRef
from rkvisor.worker import template as templates
from rkvisor.worker import tokenizer as tokenizers
from rkvisor.worker.template import Template, turns_of
from rkvisor.worker.tokenizer import CannotTokenize, Tokenizer

#: Bytes of text per token, where there is no tokenizer (design §2).
BYTES_PER_TOKEN = 3

#: Of a text that is longer than this, a part is read first: 4 MB at once take seconds and a gigabyte (seen).
CHARACTERS_PER_TOKEN = 16
#: Tokens by which the beginning of a text may differ from the same text within the whole.
SLACK_TOKENS = 256

_MARKER = re.compile(r"\[\[sim:.*?\]\]", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Length:
    """Tokens of an input, without what the runtime's own template adds to a prompt."""

    tokens: int
    is_estimate: bool = False


class Prompts:
    """Loads on construction what is configured; raises CannotTokenize, OSError.

    What a GGUF file carries is looked at now and loaded when a request needs it: many never do, and a vocabulary takes
    tens of megabytes.  has_tokenizer: whether inputs can be turned into tokens.  tokenizer_source, template_source: the
    files, None where there is none.  max_context: tokens that the model takes, to be set when it is known.
    """

    def __init__(self, load: Load):
        self._has_markers = load.faults
        self.max_context = 2**31
        self._configured: Tokenizer | None = None
        self._tokenizer: Tokenizer | None = None
        self._template: Template | None = None
        self._load_later: Callable[[], None] | None = None
        self._parts: tuple[str, str, str] | None = None
        self._system, self._tools = "", ""
        self.problem = 'the model has no tokenizer; configure tokenizer = "tokenizer.json" for it'
        self.template_problem = 'the model has no chat template; configure chat_template = "FILE" for it'
        self.tokenizer_source: str | None = None
        self.template_source: str | None = None
        if load.tokenizer is not None:
            self._load(load.tokenizer, load.chat_template)
            self._configured = self._tokenizer
        elif load.runtime == "llama":
            self._look_into(load.path, load.chat_template)

    def _load(self, tokenizer: str, template: str | None) -> None:
        self._tokenizer = tokenizers.load(tokenizer)
        self.tokenizer_source = tokenizer
        known = {"bos_token": self._tokenizer.bos, "eos_token": self._tokenizer.eos}
        self._template = templates.load(template, tokenizer, known)
        self.template_source = self._template.source if self._template is not None else None

    def _look_into(self, path: str, template: str | None) -> None:
        """Find out what the GGUF file at *path* carries, without loading it."""
        try:
            tokenizers.require_libraries()
            problem = tokenizers.gguf_problem(path)
            carries = template is None and templates.has_template(path)
        except (CannotTokenize, ValueError) as error:
            problem, carries = str(error), False
        if problem:
            self.problem = (
                f'the vocabulary of the GGUF file cannot be used: {problem}; configure tokenizer = "tokenizer.json"'
            )
            return
        self.tokenizer_source = path
        self.template_source = path if carries else template
        self._load_later = lambda: self._load(path, template)

    @property
    def has_tokenizer(self) -> bool:
        return self.tokenizer_source is not None

    @property
    def callback(self) -> Callable[[bytes], Sequence[int]] | None:
        """For RKLLM's tokenizer callback (F5): of a tokenizer that is configured, the runtime may have its own."""
        return self._configured.encode_bytes if self._configured is not None else None

    # What was configured on the model by calls.

    def set_parts(self, system: str, prefix: str, postfix: str) -> None:
        """``rkllm.set_chat_template`` was called: so the runtime dresses prompts from now on."""
        self._parts = (system, prefix, postfix)

    def set_tools(self, system: str, tools: str) -> None:
        """``rkllm.set_function_tools`` was called: conversations know these tools too."""
        self._system, self._tools = system, tools

    # Requests.

    def resolve(self, params: RunParams, run: Run) -> RunParams:
        """*params* as they are given to the runtime: messages as tokens, and a resumed run with all tokens so far.

        Raises NotSupported where a tokenizer or a template is needed and missing, InvalidParams.
        """
        replace = msgspec.structs.replace
        if params.messages is not None:
            params = replace(params, messages=None, tokens=self._conversation(params, run))
        if run.resume == "tokens":
            before = params.tokens if params.tokens is not None else self._prompt(params, run.time_s)
            params = replace(params, prompt=None, tokens=[*before, *run.ids], prompt_cache=None)
        return params

    def measure(self, params: RunParams, resolved: RunParams, run: Run) -> Length:
        """The length of the input of *params*, of the longest where it has several; the same in every attempt.

        resolved: what ``resolve`` made of *params* for *run*, and ``build`` has checked.
        """
        n_before = len(run.ids) if run.resume == "tokens" else 0
        if params.tokens is not None:
            return Length(len(params.tokens))
        if params.messages is not None:
            return Length(len(resolved.tokens or ()) - n_before)
        if params.embed is not None:
            rows = params.embed
            return Length(math.prod(rows.shape[:-1]) if isinstance(rows, TensorRef) else len(rows))
        if params.multimodal is not None:
            return self._measure_media(params.multimodal, run)
        texts = params.prompts if params.prompts is not None else [params.prompt or ""]
        return max((self._measure_text(text, run) for text in texts), key=lambda length: length.tokens)

    def _measure_text(self, text: str, run: Run) -> Length:
        if self._has_markers:
            text = _MARKER.sub("", text)
        if self._configured is not None:
            self._refuse_endless(self._configured, text, run)
            return Length(len(self._configured.encode(text)))
        return Length(-(-len(text.encode()) // BYTES_PER_TOKEN), is_estimate=True)

    def _measure_media(self, media: Multimodal, run: Run) -> Length:
        """Marks between text and media, which the runtime adds, are not in it, so it is an estimate."""
        tokens, image, video = self._measure_text(media.prompt, run).tokens, media.image, media.video
        tokens += image.n_image * image.n_image_tokens if image is not None else 0
        tokens += video.n_video * video.n_frame_per_video * video.n_frame_tokens if video is not None else 0
        return Length(tokens, is_estimate=True)

    def _refuse_endless(self, tokenizer: Tokenizer, text: str, run: Run) -> None:
        """Refuse a text whose beginning is too long already, without reading all of it."""
        size = CHARACTERS_PER_TOKEN * self.max_context
        while len(text) > size:
            tokens = len(tokenizer.encode(text[:size]))
            if tokens - SLACK_TOKENS > self.max_context:
                raise too_long(tokens - SLACK_TOKENS, self.max_context, run.worker, is_exact=False)
            size *= 4

    def _conversation(self, params: RunParams, run: Run) -> list[int]:
        tokenizer, template = self._both()
        if template is None:
            raise NotSupported(f"cannot take messages: {self.template_problem}, or send a prompt")
        turns = turns_of(params.messages or ())
        if self._system and turns[0]["role"] != "system":
            turns.insert(0, {"role": "system", "content": self._system})
        text = template.render(
            turns, enable_thinking=params.enable_thinking, tools=_tools(self._tools), time_s=run.time_s
        )
        self._refuse_endless(tokenizer, text, run)
        ids = tokenizer.encode_conversation(text)
        if not ids:
            raise InvalidParams("cannot run the messages: the model's chat template makes no text of them")
        return ids

    def _prompt(self, params: RunParams, time_s: float) -> list[int]:
        """The tokens of a prompt as the runtime reads it, as far as its template is known."""
        tokenizer, template = self._both()
        prompt = params.prompt or ""
        if self._parts is not None:
            system, prefix, postfix = self._parts
            return tokenizer.encode_conversation(f"{system}{prefix}{prompt}{postfix}")
        if template is None:
            return tokenizer.encode_conversation(prompt)
        turns = [{"role": "system", "content": self._system}] if self._system else []
        turns.append({"role": params.role, "content": prompt})
        text = template.render(turns, enable_thinking=params.enable_thinking, tools=_tools(self._tools), time_s=time_s)
        return tokenizer.encode_conversation(text)

    def _both(self) -> tuple[Tokenizer, Template | None]:
        if self._load_later is not None:
            try:
                self._load_later()
            except (CannotTokenize, OSError) as error:
                raise NotSupported(f"cannot turn the input into tokens: {error}") from error
            self._load_later = None
        if self._tokenizer is None:
            raise NotSupported(f"cannot take messages: {self.problem}, or send a prompt")
        return self._tokenizer, self._template


def check_context(length: Length, limit: int, component: str) -> None:
    """Raise RKLLM_CONTEXT_ERROR for an input longer than the context of *limit* tokens; an estimate refuses nothing."""
    if length.is_estimate or length.tokens <= limit:
        return
    raise too_long(length.tokens, limit, component, is_exact=True)


def too_long(tokens: int, limit: int, component: str, *, is_exact: bool) -> RkllmFailure:
    """RKLLM_CONTEXT_ERROR for an input of *tokens*, or of at least so many."""
    count = f"{tokens}" if is_exact else f"at least {tokens}"
    text = f"cannot run a prompt of {count} tokens: the model's max_context_len is {limit}"
    error = RkllmFailure("RKLLM_CONTEXT_ERROR", text, component=component)
    error.data |= {"prompt_tokens": tokens, "is_estimate": not is_exact, "limit": limit}
    return error


def _tools(text: str) -> list[Any] | None:
    """The tools of ``rkllm.set_function_tools`` as templates take them: a list.  None where there are none."""
    try:
        parsed = json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, list) or parsed is None else [parsed]
