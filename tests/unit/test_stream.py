"""From callbacks to groups: no half characters, no stop strings, and any group boundary is a place to resume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rkvisor.worker.stream import Diverged, Group, Stream

#: Few letters, so that stop strings occur; characters of one to four bytes.
LETTERS = "abé€😀"
texts = st.text(alphabet=LETTERS, max_size=24)
stops = st.lists(st.text(alphabet=LETTERS, min_size=1, max_size=4), max_size=3)


@st.composite
def splits(draw: st.DrawFn, source: st.SearchStrategy[bytes]) -> list[bytes]:
    """Bytes in pieces, cut anywhere, inside characters too; pieces may be empty."""
    data = draw(source)
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=len(data))))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


tokens = splits(texts.map(str.encode))
noise = splits(st.binary(max_size=24) | texts.map(str.encode))


@dataclass
class Said:
    """What a stream sent."""

    groups: list[Group]
    is_stopped: bool

    @property
    def text(self) -> str:
        return "".join(group.text for group in self.groups)

    @property
    def ids(self) -> list[int]:
        return [one for group in self.groups for one in group.ids]


def is_open(pieces: Sequence[bytes]) -> bool:
    """Whether the runtime would say WAITING: the bytes so far end inside a character."""
    try:
        b"".join(pieces).decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return False


def say(
    stream: Stream, pieces: Sequence[bytes], first: int = 0, *, marks: bool = False, is_finished: bool = True
) -> Said:
    """Feed *pieces* as the tokens *first*, …; ids are places, so that they can be checked."""
    groups = []
    for place, piece in enumerate(pieces):
        if place < first:
            continue
        group = stream.feed(place, piece, is_waiting=marks and is_open(pieces[: place + 1]))
        groups += [] if group is None else [group]
    if is_finished and (group := stream.finish()) is not None:
        groups.append(group)
    return Said(groups, stream.is_stopped)


@given(noise)
def test_any_split_into_tokens_gives_the_text_of_the_whole(pieces: list[bytes]) -> None:
    said = say(Stream(), pieces)
    assert said.text == b"".join(pieces).decode(errors="replace")
    assert said.ids == list(range(len(pieces)))
    assert not said.is_stopped


@given(tokens, st.booleans())
def test_no_group_holds_half_a_character(pieces: list[bytes], marks: bool) -> None:
    said = say(Stream(), pieces, marks=marks)
    assert "\ufffd" not in said.text
    sent = 0
    for group in said.groups[:-1]:
        sent += len(group.ids)
        assert not is_open(pieces[:sent])


@given(tokens)
def test_without_stop_strings_nothing_is_held_longer_than_its_character_takes(pieces: list[bytes]) -> None:
    stream = Stream()
    for place, piece in enumerate(pieces):
        group = stream.feed(place, piece)
        assert (group is None) == is_open(pieces[: place + 1])


@given(noise, stops, st.integers(1, 12))
def test_a_stop_string_never_leaks(pieces: list[bytes], stop: list[str], limit: int) -> None:
    for most in (limit, 2**31):
        said = say(Stream(stop, most), pieces)
        assert [one for one in stop if one in said.text] == []
        whole = b"".join(pieces[:most]).decode(errors="replace")
        assert whole.startswith(said.text) or not said.is_stopped
        assert said.is_stopped == any(one in whole for one in stop)
        if not said.is_stopped:
            assert said.text == whole


@given(st.text(alphabet=LETTERS, max_size=12), st.text(alphabet=LETTERS, min_size=1, max_size=4))
def test_text_ends_right_before_the_first_stop_string(text: str, stop: str) -> None:
    assume(stop in text)
    for pieces in ([text.encode()], [char.encode() for char in text], [bytes([byte]) for byte in text.encode()]):
        said = say(Stream([stop]), pieces)
        assert said.text == text[: text.index(stop)]
        assert said.is_stopped


def test_nothing_is_taken_after_a_stop() -> None:
    stream = Stream(["b"])
    said = say(stream, [b"a", b"xb", b"more", b"b"])
    assert (said.text, said.ids) == ("ax", [0, 1])
    assert stream.count == 2


def test_text_behind_a_stop_string_in_the_same_token_is_gone_even_half_a_character_of_it() -> None:
    said = say(Stream(["b"]), [b"ab\xe2\x82", b"\xac"])
    assert (said.text, said.ids, said.is_stopped) == ("a", [0], True)


def test_the_token_that_completes_a_stop_string_is_held_until_the_run_is_over() -> None:
    """A cut between the two would resume behind the stop string, where nothing tells that it is over."""
    stream = Stream(["bc"])
    assert stream.feed(0, b"a") == Group((0,), "a")
    assert stream.feed(1, b"b") is None
    assert stream.feed(2, b"c") is None
    assert stream.is_stopped
    assert stream.finish() == Group((1, 2), "")


def test_what_might_become_a_stop_string_waits_and_is_released_when_it_does_not() -> None:
    stream = Stream(["bcd"])
    assert stream.feed(0, b"ab") is None
    assert stream.feed(1, b"c") is None
    assert stream.feed(2, b"a") == Group((0, 1, 2), "abca")


def test_a_stop_string_may_be_completed_by_the_end_itself() -> None:
    """Half a character that stays half becomes U+FFFD, which a client may have named."""
    stream = Stream(["a\ufffd"])
    said = say(stream, [b"b", b"a\xe2"])
    assert (said.text, said.ids, said.is_stopped) == ("b", [0, 1], True)


def test_what_was_held_is_released_when_the_run_ends() -> None:
    assert say(Stream(["bcd"]), [b"ab", b"c"]).text == "abc"
    assert say(Stream(), [b"a", b"\xe2\x82"]).text == "a\ufffd"


@given(noise, st.integers(1, 30), stops)
def test_the_limit_counts_tokens_and_everything_up_to_it_is_sent(
    pieces: list[bytes], limit: int, stop: list[str]
) -> None:
    stream = Stream(stop, limit)
    said = say(stream, pieces, is_finished=len(pieces) < limit)
    if stream.is_stopped:
        return
    assert said.ids == list(range(min(limit, len(pieces))))
    assert stream.is_full == (len(pieces) >= limit)
    assert said.text == b"".join(pieces[:limit]).decode(errors="replace")


@pytest.mark.parametrize("is_waiting", [False, True])
def test_nothing_is_held_at_the_limit(is_waiting: bool) -> None:
    """A runtime that has generated the last token may take its time to return."""
    stream = Stream(["xyz"], limit=2)
    assert stream.feed(0, b"a") == Group((0,), "a")
    assert stream.feed(1, b"x", is_waiting=is_waiting) == Group((1,), "x")


@given(tokens, stops, st.booleans(), st.booleans(), st.data())
def test_a_stream_cut_at_any_group_and_resumed_is_the_undisturbed_one(
    pieces: list[bytes], stop: list[str], marks: bool, is_muted: bool, data: st.DataObject
) -> None:
    limit = data.draw(st.integers(1, len(pieces) + 1))
    calm = say(Stream(stop, limit), pieces, marks=marks)
    sent = say(Stream(stop, limit), pieces, marks=marks, is_finished=False).groups
    kept = sent[: data.draw(st.integers(0, len(sent)))]
    ids = [one for group in kept for one in group.ids]
    stream = Stream(stop, limit, ids, is_muted=is_muted)
    rest = say(stream, pieces, 0 if is_muted else len(ids), marks=marks)
    assert kept + rest.groups == calm.groups
    assert rest.is_stopped == calm.is_stopped


@given(tokens, st.data())
def test_a_muted_rerun_that_differs_is_noticed_at_the_very_token(pieces: list[bytes], data: st.DataObject) -> None:
    assume(pieces)
    ids = list(range(len(pieces)))
    place = data.draw(st.integers(0, len(ids) - 1))
    stream = Stream(ids=ids, is_muted=True)
    for one in range(place):
        assert stream.feed(one, pieces[one]) is None
    with pytest.raises(Diverged, match=f"token {place} is 77777"):
        stream.feed(77777, b"?")


def test_a_muted_rerun_counts_from_the_first_token_and_a_forced_one_from_the_cut() -> None:
    assert Stream(ids=[5, 6], is_muted=True).count == 0
    assert Stream(ids=[5, 6]).count == 2
    assert Stream(limit=2, ids=[5, 6]).is_over
    assert not Stream(limit=2, ids=[5, 6], is_muted=True).is_over
