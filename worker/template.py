"""A model's chat template: from the turns of a conversation to the text that the model reads.

Templates are Jinja as Hugging Face's models carry them.  They come from files of unknown origin, so they run in a
sandbox: no attribute that leads out, nothing that changes what they are given.  jinja2 is imported only here, late.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkvisor.protocol.errors import InvalidParams
from rkvisor.protocol.run import Message
from rkvisor.worker import gguf
from rkvisor.worker.tokenizer import CannotTokenize, require_libraries

if TYPE_CHECKING:
    import jinja2

_GGUF_TEMPLATE = "tokenizer.chat_template"
#: Members of a tokenizer_config.json that templates may name.
_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")


class Template:
    """source: the file it was read from.  tokens: texts of special tokens, by the names that templates have for them.

    Raises CannotTokenize for a template that cannot be parsed.
    """

    def __init__(self, text: str, source: str, tokens: Mapping[str, str]):
        import jinja2

        self.source = source
        self._tokens = dict(tokens)
        try:
            self._template = _environment().from_string(text)
        except jinja2.TemplateError as error:
            raise CannotTokenize(f"{source} has no chat template that can be read: {error}") from error

    def render(
        self, turns: Sequence[Mapping[str, Any]], *, enable_thinking: bool, tools: Sequence[Any] | None, time_s: float
    ) -> str:
        """The text up to where the answer begins.  time_s: wall clock, what ``strftime_now`` tells.

        Raises InvalidParams where the template refuses the turns or fails on them.
        """
        import jinja2

        try:
            return self._template.render(
                messages=turns,
                tools=tools,
                documents=None,
                add_generation_prompt=True,
                enable_thinking=enable_thinking,
                strftime_now=lambda form: time.strftime(form, time.localtime(time_s)),
                **self._tokens,
            )
        except jinja2.TemplateError as error:
            raise InvalidParams(f"cannot render the messages: the model's chat template says: {error}") from error
        except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
            why = f"{type(error).__name__}: {error}"
            raise InvalidParams(
                f"cannot render the messages: the model's chat template fails on them: {why}"
            ) from error


def _environment() -> jinja2.Environment:
    import jinja2
    from jinja2 import nodes
    from jinja2.ext import Extension
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> str:
        raise jinja2.TemplateError(message)

    def to_json(value: Any, indent: int | None = None, **options: Any) -> str:
        """Jinja's own would escape < and >, which models were not trained on."""
        return json.dumps(value, ensure_ascii=False, indent=indent, **options)

    class Generation(Extension):
        """``{% generation %} … {% endgeneration %}``: marks what a model is trained on; here only what is inside."""

        tags = {"generation"}  # noqa: RUF012  Extension's own form

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation]
    )
    environment.globals["raise_exception"] = refuse
    environment.filters["tojson"] = to_json
    return environment


def turns_of(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages as templates expect them: without members that are not there, arguments of calls as objects."""
    return [_turn(message) for message in messages]


def _turn(message: Message) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content or ""}
    for name in ("name", "tool_call_id", "reasoning_content"):
        if (value := getattr(message, name)) is not None:
            turn[name] = value
    if message.tool_calls:
        calls = []
        for call in message.tool_calls:
            function = {"name": call.function.name, "arguments": _arguments(call.function.arguments)}
            calls.append({"type": "function", "function": function} | ({"id": call.id} if call.id is not None else {}))
        turn["tool_calls"] = calls
    return turn


def _arguments(arguments: dict[str, Any] | str) -> Any:
    """As an object, where a text is one: programs send the text that a model wrote, templates write it themselves."""
    if isinstance(arguments, dict):
        return arguments
    try:
        parsed = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return parsed if isinstance(parsed, dict) else arguments


def find(template: str | None, tokenizer: str) -> tuple[str, str, dict[str, str]] | None:
    """(text, source, special tokens) of the template at *template*, or of the one that goes with *tokenizer*.

    template: a Jinja file, a ``tokenizer_config.json`` or a GGUF file.  tokenizer: file that the tokenizer is read
    from.  None where neither has one.  Raises CannotTokenize, OSError.
    """
    beside = Path(tokenizer).parent / "tokenizer_config.json"
    settings = _settings(beside) if not _is_gguf(tokenizer) and beside.is_file() else {}
    if template is not None and _is_gguf(template):
        text, source = _of_gguf(template), template
    elif template is not None and template.endswith(".json"):
        settings = _settings(Path(template))
        text, source = _named(settings.get("chat_template")), template
    elif template is not None:
        text, source = _read(Path(template)), template
    elif _is_gguf(tokenizer):
        text, source = _of_gguf(tokenizer), tokenizer
    else:
        text, source = _named(settings.get("chat_template")), str(beside)
    if text is None and template is not None:
        raise CannotTokenize(f"{template} has no chat template")
    return None if text is None else (text, source, _special(settings))


def load(template: str | None, tokenizer: str, tokens: Mapping[str, str]) -> Template | None:
    """The template that ``find`` finds.  tokens: special tokens that the tokenizer knows; a file's own win."""
    require_libraries()
    found = find(template, tokenizer)
    if found is None:
        return None
    text, source, special = found
    return Template(text, source, {**tokens, **special})


def _is_gguf(path: str) -> bool:
    with Path(path).open("rb") as file:
        return file.read(4) == b"GGUF"


def has_template(path: str) -> bool:
    """Whether the GGUF file at *path* carries a template.  Raises OSError, ValueError."""
    return _GGUF_TEMPLATE in gguf.metadata(path, (_GGUF_TEMPLATE,))


def _of_gguf(path: str) -> str | None:
    try:
        text = gguf.metadata(path, (_GGUF_TEMPLATE,)).get(_GGUF_TEMPLATE)
    except ValueError as error:
        raise CannotTokenize(f"{path} cannot be read: {error}") from error
    return text if isinstance(text, str) else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CannotTokenize(f"{path} is no text: {error}") from error


def _settings(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise CannotTokenize(f"{path} is no tokenizer_config.json: {error}") from error
    if not isinstance(found, dict):
        raise CannotTokenize(f"{path} is no tokenizer_config.json: it is no object")
    return found


def _named(value: Any) -> str | None:
    """A template, or the default one of several with names."""
    if isinstance(value, list):
        value = next(
            (one.get("template") for one in value if isinstance(one, dict) and one.get("name") == "default"), None
        )
    return value if isinstance(value, str) else None


def _special(settings: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for name in _SPECIAL:
        value = settings.get(name)
        if isinstance(value, dict):
            value = value.get("content")
        if isinstance(value, str):
            found[name] = value
    return found
