"""Messages between rkvisord and its processes: packing and reading are inverse, and reading is total."""

from __future__ import annotations

import json
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkvisor.protocol import jsonrpc, link
from rkvisor.protocol.limits import LINK_VERSION
from rkvisor.protocol.link import HEADER, Header, Kind, MalformedLink, pack, unpack

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
i32 = st.integers(-(2**31), 2**31 - 1)
kinds = st.sampled_from(Kind)


@given(kinds.filter(lambda kind: kind != Kind.TOKEN), u32, u64, u32)
def test_a_header_is_read_as_it_was_packed(kind: Kind, incarnation: int, job: int, seq: int) -> None:
    frame = pack(kind, incarnation, job, seq)
    assert len(frame) == 24
    assert unpack(frame) == Header(kind, incarnation, job, seq)


@given(u32, u64, u32, st.lists(i32, min_size=1, max_size=20))
def test_all_ids_of_a_token_travel_in_order(incarnation: int, job: int, seq: int, ids: list[int]) -> None:
    frame = pack(Kind.TOKEN, incarnation, job, seq, tuple(ids))
    assert unpack(frame) == Header(Kind.TOKEN, incarnation, job, seq, tuple(ids))


def test_a_token_may_carry_as_many_ids_as_its_count_can_say() -> None:
    ids = tuple(range(65536))
    assert unpack(pack(Kind.TOKEN, 1, 2, 3, ids)).ids == ids


@given(st.binary(max_size=64))
def test_any_frame_is_read_or_refused(frame: bytes) -> None:
    try:
        header = unpack(frame)
    except MalformedLink:
        return
    assert frame[0] == LINK_VERSION
    assert len(frame) >= HEADER.size
    assert isinstance(header, Header)


@given(st.lists(i32, min_size=1, max_size=5), st.integers(1, 40), st.binary(min_size=1, max_size=8))
def test_a_frame_that_is_cut_or_lengthened_is_refused(ids: list[int], cut: int, more: bytes) -> None:
    frame = pack(Kind.TOKEN, 1, 2, 3, tuple(ids))
    for wrong in (frame[:-cut], frame + more):
        with pytest.raises(MalformedLink, match=f"{len(wrong)} bytes"):
            unpack(wrong)


@given(st.integers(0, 255).filter(lambda version: version != LINK_VERSION))
def test_another_version_is_refused_by_its_number(version: int) -> None:
    frame = bytes([version]) + pack(Kind.PING, 1)[1:]
    with pytest.raises(MalformedLink, match=f"version {version}"):
        unpack(frame)


def test_the_layout_of_the_header_is_fixed() -> None:
    """Changing it means a new LINK_VERSION: a process of an older installation may still connect."""
    frame = pack(Kind.TOKEN, 0x01020304, 0x1112131415161718, 0x21222324, (7, -2))
    assert LINK_VERSION == 1
    assert frame[:8] == bytes([1, 7]) + struct.pack("<H", 1) + bytes([4, 3, 2, 1])
    assert frame[8:] == struct.pack("<QIii", 0x1112131415161718, 0x21222324, -2, 7)


def test_kinds_tell_their_direction() -> None:
    to_process = {Kind.LOAD, Kind.RUN, Kind.ABORT, Kind.CONTROL, Kind.PING, Kind.STOP}
    to_process |= {Kind.PAUSE, Kind.RESUME, Kind.PREPARE, Kind.ASK}
    assert {kind for kind in Kind if kind % 2 == 0} == to_process
    assert len({int(kind) for kind in Kind}) == len(Kind)


texts = st.text(max_size=12)
numbers = st.integers(-(2**53), 2**53)
plain = st.dictionaries(texts, numbers | texts | st.booleans() | st.none(), max_size=3)

BODIES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (link.decode_hello, st.builds(link.Hello, pid=numbers, start_time=numbers, incarnation=numbers, epoch=texts)),
    (
        link.decode_load,
        st.builds(link.Load, worker=texts, runtime=texts, path=texts, library=st.none() | texts, param=plain),
    ),
    (link.decode_load_failed, st.builds(link.LoadFailed, error=plain, is_permanent=st.booleans())),
    (
        link.decode_run,
        st.builds(
            link.Run,
            worker=texts,
            ids=st.lists(i32),
            text=texts,
            seq=u32,
            resume=st.sampled_from(["", "forced", "muted"]),
            resumed=numbers,
            quality=st.none() | texts,
            degraded=st.booleans(),
        ),
    ),
]


@pytest.mark.parametrize(("decode", "bodies"), BODIES, ids=["hello", "load", "load_failed", "run"])
@given(data=st.data())
def test_a_body_is_read_as_it_was_encoded(decode: Any, bodies: st.SearchStrategy[Any], data: st.DataObject) -> None:
    body = data.draw(bodies)
    assert decode(link.encode_body(body)) == body


@given(u32, st.text(), st.lists(i32, min_size=1, max_size=4))
def test_a_fragment_stands_in_the_notification_and_can_be_read_back(seq: int, text: str, ids: list[int]) -> None:
    fragment = link.encode_fragment(seq, text, tuple(ids))
    read = link.decode_fragment(fragment)
    assert (read.seq, read.text, read.token_id) == (seq, text, ids[-1])
    message = json.loads(jsonrpc.token_notification(b'"an id"', fragment))
    assert (message["jsonrpc"], message["method"]) == ("2.0", "rkllm.token")
    expected = {"request": "an id", "seq": seq, "text": text, "token_id": ids[-1]}
    if len(ids) > 1:
        expected["token_ids"] = ids
    assert message["params"] == expected


@given(st.binary(max_size=40))
def test_a_fragment_that_is_none_raises_an_error_of_the_decoder(fragment: bytes) -> None:
    try:
        link.decode_fragment(fragment)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return
    json.loads(b"{%b}" % fragment)
