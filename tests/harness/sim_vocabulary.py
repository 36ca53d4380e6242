"""The simulator's vocabulary and tokeniser in Python, read from ``cython_ext/sim/words.h``.

An independent second statement of ``cython_ext/sim/vocab.c``: tests use it to build token inputs, and compare the two.
"""

import json
import re

from harness.places import ROOT

WORDS = ROOT / "cython_ext" / "sim" / "words.h"
BYTE, HEAD, WIDE, PLAIN, TEXTS = 3, 259, 263, 311, 512
HEADS = (b"\xe4\xbd", b"\xe6\x97", b"\xe8\xaa", b"\xf0\x9f\x98")

_PIECE = re.compile(rb" ?[0-9A-Za-z\x80-\xff]+|[\x00-\xff]", re.DOTALL)


def _words(which: str) -> list[bytes]:
    match = re.search(rf"sim_{which}_words\[\w+\] = \{{(.*?)\}};", WORDS.read_text(), re.DOTALL)
    assert match, which
    return [word.encode() for word in re.findall(r'"([^"]*)"', match[1])]


TEXT_OF: list[bytes] = [
    b"",
    b"",
    b"",
    *(bytes([value]) for value in range(256)),
    *HEADS,
    *_words("wide"),
    *_words("plain"),
]
ID_OF = {text: WIDE + i for i, text in enumerate(TEXT_OF[WIDE:])}


def tokenise(text: str) -> list[int]:
    """The ids of a prompt without template: words of the vocabulary, single bytes for the rest."""
    ids: list[int] = []
    for piece in _PIECE.findall(text.encode()):
        word = ID_OF.get(piece) if len(piece) > 1 else None
        ids += [BYTE + value for value in piece] if word is None else [word]
    return ids


def detokenise(ids: list[int]) -> bytes:
    """The bytes that a list of ids stands for."""
    return b"".join(TEXT_OF[i] for i in ids)


def _printable_bytes() -> dict[int, str]:
    """Byte-level BPE writes each byte as one printable character: itself, or the next free one from U+0100 on."""
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (value for value in range(256) if value not in own)
    return {value: chr(value) for value in own} | {value: chr(256 + i) for i, value in enumerate(others)}


def tokenizer_json() -> str:
    """A ``tokenizer.json`` that gives the simulator's ids, for models that name a tokenizer.

    The vocabulary of ids 0 … 511; byte-level BPE without merges, in which a whole word wins over its bytes.
    """
    printable = _printable_bytes()
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    vocab |= {"".join(printable[value] for value in text): i for i, text in enumerate(TEXT_OF) if i >= BYTE}
    pieces = {"Regex": r" ?[0-9A-Za-z\x{80}-\x{10FFFF}]+|[\s\S]"}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": pieces, "behavior": "Isolated", "invert": False}
    model = {"type": "BPE", "vocab": vocab, "merges": [], "ignore_merges": True, "byte_fallback": False}
    return json.dumps(
        {
            "version": "1.0",
            "added_tokens": [],
            "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
            "post_processor": None,
            "decoder": level,
            "model": model,
        }
    )
