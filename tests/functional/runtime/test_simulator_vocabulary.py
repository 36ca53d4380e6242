"""The simulator's tokeniser, against its second statement in Python and against the ``tokenizers`` library."""

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.sim_driver import NORMAL, WAITING, Simulator
from harness.sim_vocabulary import BYTE, HEAD, TEXTS, WIDE, detokenise, tokenise, tokenizer_json

pytestmark = pytest.mark.api
PROMPTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
WORDY = st.lists(st.sampled_from([" the", "the", " ", "\n", " café", "é", "東", " 日本", ".", "_", "7"])).map("".join)


def cached_ids(path: Path) -> list[int]:
    """The ids in a prompt cache file: a header of 32 bytes, then (int64 id, uint64 fold) each."""
    return [entry[0] for entry in struct.iter_unpack("<qQ", path.read_bytes()[32:])]


def test_words_are_one_token_and_all_else_is_spelt_in_bytes() -> None:
    assert tokenise(" story") == [TEXTS - 3]
    assert len(tokenise("story")) == 5
    assert tokenise("x.") == [BYTE + ord("x"), BYTE + ord(".")]


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator(max_new_tokens=1) as simulator:
        yield simulator


@settings(max_examples=150, deadline=None)
@example(prompt="a  b")
@example(prompt=" the the  the\tthe")
@given(prompt=PROMPTS | WORDY)
def test_the_library_cuts_prompts_as_its_second_statement_does(
    prompt: str, sim: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "vocabulary.cache"
    sim.clear()
    assert sim.run(prompt, save=path).status == 0
    assert cached_ids(path) == tokenise(prompt)
    assert detokenise(tokenise(prompt)) == prompt.encode()


@settings(max_examples=150, deadline=None)
@given(prompt=PROMPTS | WORDY)
def test_the_tokenizers_library_agrees(prompt: str) -> None:
    library = pytest.importorskip("tokenizers")
    tokenizer = library.Tokenizer.from_str(tokenizer_json())
    ids = tokenizer.encode(prompt, add_special_tokens=False).ids
    assert ids == tokenise(prompt)
    assert tokenizer.decode(ids) == prompt


@pytest.mark.parametrize("lead", [0xC3, 0xE0, 0xE6, 0xED, 0xF0, 0xF4])
def test_a_character_that_the_input_begins_is_completed_by_the_text(lead: int) -> None:
    with Simulator(max_new_tokens=4) as sim:
        outcome = sim.run([BYTE + lead])
    first = next(event for event in outcome.steps if event.state == NORMAL)
    whole = (first.texts[0] or b"").decode()
    assert len(whole) == 1
    assert whole.encode()[0] == lead
    waiting = outcome.states.index(NORMAL)
    assert outcome.states[:waiting] == [WAITING] * (len(whole.encode()) - 2)


def test_heads_of_split_characters_are_tokens_of_their_own() -> None:
    with Simulator(max_new_tokens=480) as sim:
        ids = sim.run("a").ids
    assert any(HEAD <= i < WIDE for i in ids)
