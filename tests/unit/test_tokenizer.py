"""Text to token ids, from a tokenizer.json or a GGUF file's vocabulary (design §2)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.gguf_vocabulary import vocabulary, write
from harness.sim_vocabulary import tokenise, tokenizer_json
from rkvisor.worker import tokenizer
from rkvisor.worker.tokenizer import CannotTokenize, Tokenizer, gguf_problem, load

pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(tokenizer_json())
    return load(str(path))


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_a_text_has_the_ids_of_the_model_and_so_have_its_bytes(text: str, simulated: Tokenizer) -> None:
    assert simulated.encode(text) == simulated.encode_bytes(text.encode()) == tokenise(text)


def test_bytes_that_are_no_text_do_no_harm(simulated: Tokenizer) -> None:
    assert simulated.encode_bytes(b"a\xffb") == tokenise("a\ufffdb")


def test_truncation_and_padding_of_the_file_are_not_obeyed(tmp_path: Path) -> None:
    """Files carry what training wanted; a prompt must not be cut silently."""
    described = json.loads(tokenizer_json())
    described["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    described["padding"] = {
        "strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "<unk>",
    }  # fmt: skip
    (tmp_path / "t.json").write_text(json.dumps(described))
    assert load(str(tmp_path / "t.json")).encode("abc") == tokenise("abc")


@pytest.mark.parametrize("content", [b"", b"{}", b'{"model": 1}', b"\xff\xfe", b"GGU"])
def test_a_file_that_is_no_tokenizer_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(CannotTokenize, match=r"broken\.json is no tokenizer\.json"):
        load(str(path))


def test_without_the_libraries_the_message_says_how_to_install_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t.json").write_text(tokenizer_json())
    monkeypatch.setattr(tokenizer, "find_spec", lambda name: None if name == "jinja2" else name)
    with pytest.raises(CannotTokenize, match=r"'jinja2' is not installed: pip install 'rkvisor\[tokenizer\]'"):
        load(str(tmp_path / "t.json"))


# GGUF.


def of(tmp_path: Path, **changes: Any) -> str:
    return str(write(tmp_path / "model.gguf", vocabulary(**changes)))


def test_the_vocabulary_of_a_gguf_file_merges_and_knows_its_control_tokens(tmp_path: Path) -> None:
    found = load(of(tmp_path))
    assert found.encode("<s>abc a ab11</s>") == [0, 8, 9, 5, 7, 6, 6, 1]
    assert (found.bos, found.eos) == ("<s>", "</s>")


@pytest.mark.parametrize(("adds", "ids"), [(True, [0, 2]), (False, [2])])
def test_a_conversation_begins_as_the_file_asks(adds: bool, ids: list[int], tmp_path: Path) -> None:
    found = load(of(tmp_path, add_bos_token=adds))
    assert found.encode_conversation("a") == ids
    assert found.encode_conversation("<s>a") == [0, 2], "a template that writes the token itself is not doubled"
    assert found.encode("a") == [2], "only conversations have a beginning"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"model": "llama"}, "of the type 'llama'"),
        ({"model": None}, "of the type None"),
        ({"pre": "made-up"}, "cuts words as 'made-up'"),
        ({"pre": None}, "cuts words as None"),
        ({"merges": ["a zzz"]}, "make no sense"),
        ({"merges": ["ab"]}, "make no sense"),
    ],
)
def test_a_vocabulary_of_an_unknown_kind_is_refused_not_guessed(
    changes: dict[str, Any], why: str, tmp_path: Path
) -> None:
    with pytest.raises(CannotTokenize, match=why):
        load(of(tmp_path, **changes))


def test_whether_a_file_serves_is_seen_without_reading_its_vocabulary(tmp_path: Path) -> None:
    assert gguf_problem(of(tmp_path)) == ""
    assert gguf_problem(of(tmp_path, tokens=None, merges=None)) == ""
    assert "gpt2" in gguf_problem(of(tmp_path, model="bert"))


def test_a_damaged_gguf_file_is_refused(tmp_path: Path) -> None:
    path = Path(of(tmp_path))
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(CannotTokenize, match="cannot serve as a tokenizer"):
        load(str(path))


def test_ids_of_special_tokens_that_lie_outside_the_vocabulary_are_passed_over(tmp_path: Path) -> None:
    found = load(of(tmp_path, bos_token_id=4_000_000, add_bos_token=True))
    assert found.bos == ""
    assert found.encode_conversation("a") == [2]
