"""A model's tokenizer: from a ``tokenizer.json``, or from the vocabulary that a GGUF file carries.

The library ``tokenizers`` is an optional part of the installation and is imported only where a tokenizer is needed.
No token is added at the ends of a text: a template writes the ones that its model wants.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkvisor.worker import gguf

if TYPE_CHECKING:
    import tokenizers

EXTRA = "pip install 'rkvisor[tokenizer]'"
#: The libraries of that extra.
LIBRARIES = ("tokenizers", "jinja2")

_GPT2 = "gpt-2"
_DIGITS = "digits"
#: How the text is cut before pairs are merged, by the names that GGUF files have for it (tokenizer.ggml.pre): GPT-2's
#: rule, the same with every digit by itself, or a rule of one's own.  Each was compared with libllama.
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3 = _QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
CUTS = {
    "gpt-2": _GPT2,
    "smollm": _DIGITS,
    "starcoder": _DIGITS,
    "refact": _DIGITS,
    "command-r": _DIGITS,
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
    "llama-bpe": _LLAMA3,
}
#: Those whose vocabulary is looked up for a whole piece before any pair is merged.
_WHOLE_FIRST = ("llama-bpe",)
#: tokenizer.ggml.token_type: these are found in a text before it is cut.
_CONTROL, _USER_DEFINED = 3, 4
_MODEL, _PRE = "tokenizer.ggml.model", "tokenizer.ggml.pre"


class CannotTokenize(Exception):
    """There is no tokenizer to be had; the message says why, and the way out."""


def require_libraries() -> None:
    """Raise CannotTokenize unless the optional libraries are installed.  Imports nothing."""
    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if missing:
        raise CannotTokenize(f"the Python library {missing[0]!r} is not installed: {EXTRA}")


class Tokenizer:
    """source: the file that it was read from.  bos, eos: texts of the tokens that begin and end, "" where unknown."""

    def __init__(
        self, native: tokenizers.Tokenizer, source: str, *, bos: str = "", eos: str = "", adds_bos: bool = False
    ):
        self._native = native
        self._adds_bos = adds_bos
        self.source = source
        self.bos = bos
        self.eos = eos

    def encode(self, text: str) -> list[int]:
        """The ids of *text*; names of special tokens within it become those tokens."""
        ids: list[int] = self._native.encode(text, add_special_tokens=False).ids
        return ids

    def encode_bytes(self, text: bytes) -> list[int]:
        """As ``encode``; what is no UTF-8 counts as U+FFFD (RKLLM's tokenizer callback, F5)."""
        return self.encode(text.decode(errors="replace"))

    def encode_conversation(self, text: str) -> list[int]:
        """The ids of a rendered conversation, behind the token that begins it where the model's file asks for one."""
        ids = self.encode(text)
        if self._adds_bos and self.bos:
            first = self._native.token_to_id(self.bos)
            if first is not None and ids[:1] != [first]:
                ids.insert(0, first)
        return ids


def load(path: str) -> Tokenizer:
    """The tokenizer of the file at *path*, a GGUF or a ``tokenizer.json``.  Raises CannotTokenize, OSError."""
    require_libraries()
    with Path(path).open("rb") as file:
        is_gguf = file.read(4) == b"GGUF"
    return _from_gguf(path) if is_gguf else _from_json(path)


def _from_json(path: str) -> Tokenizer:
    import tokenizers

    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CannotTokenize(f"{path} is no tokenizer.json: {error}") from error
    try:
        native = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises Exception itself
        raise CannotTokenize(f"{path} is no tokenizer.json: {error}") from error
    native.no_truncation()
    native.no_padding()
    return Tokenizer(native, path)


def gguf_problem(path: str) -> str:
    """Why the vocabulary of the GGUF file at *path* cannot be used, "" where it can.  Raises OSError, ValueError."""
    kind = gguf.metadata(path, (_MODEL, _PRE))
    model, pre = kind.get(_MODEL), kind.get(_PRE)
    if model != "gpt2":
        return f"its vocabulary is of the type {model!r}; rkvisor reads 'gpt2'"
    if pre not in CUTS:
        return f"its vocabulary cuts words as {pre!r}; rkvisor knows {', '.join(sorted(CUTS))}"
    return ""


def _from_gguf(path: str) -> Tokenizer:
    try:
        problem = gguf_problem(path)
        if problem:
            raise CannotTokenize(f"{path} cannot serve as a tokenizer: {problem}; name a tokenizer.json")
        names = ("tokens", "merges", "token_type", "bos_token_id", "eos_token_id", "add_bos_token", "pre")
        found = gguf.metadata(path, tuple(f"tokenizer.ggml.{name}" for name in names))
    except ValueError as error:
        raise CannotTokenize(f"{path} cannot serve as a tokenizer: {error}") from error
    known = {name: found.get(f"tokenizer.ggml.{name}") for name in names}
    tokens = known["tokens"] or []

    def text_of(name: str) -> str:
        number = known[name]
        return tokens[number] if isinstance(number, int) and number < len(tokens) else ""

    return Tokenizer(
        _build(known),
        path,
        bos=text_of("bos_token_id"),
        eos=text_of("eos_token_id"),
        adds_bos=bool(known["add_bos_token"]),
    )


def _build(known: dict[str, Any]) -> tokenizers.Tokenizer:
    """A byte-level BPE from what a GGUF file says of it."""
    from tokenizers import AddedToken, Tokenizer, decoders, models

    tokens: list[str] = known["tokens"] or []
    merges = [tuple(pair.split(" ", 1)) for pair in known["merges"] or []]
    pre = known["pre"]
    try:
        model = models.BPE(
            vocab={token: number for number, token in enumerate(tokens)},
            merges=merges,
            ignore_merges=pre in _WHOLE_FIRST,
        )
    except Exception as error:  # the library raises Exception itself
        raise CannotTokenize(f"the merges of the GGUF file's vocabulary make no sense: {error}") from error
    native = Tokenizer(model)
    native.pre_tokenizer = _cutter(CUTS[pre])
    native.decoder = decoders.ByteLevel()
    kinds = known["token_type"] or []
    native.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token, kind in zip(tokens, kinds, strict=False)
            if kind in (_CONTROL, _USER_DEFINED)
        ]
    )
    return native


def _cutter(rule: str) -> Any:
    from tokenizers import Regex
    from tokenizers import pre_tokenizers as cutters

    if rule == _GPT2:
        return cutters.ByteLevel(add_prefix_space=False)
    if rule == _DIGITS:
        return cutters.Sequence([cutters.Digits(individual_digits=True), cutters.ByteLevel(add_prefix_space=False)])
    split = cutters.Split(Regex(rule), "isolated")
    return cutters.Sequence([split, cutters.ByteLevel(add_prefix_space=False, use_regex=False)])
