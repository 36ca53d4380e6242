"""Tensors in the Python client: buffers become attachments, and attachments become views."""

from __future__ import annotations

import json
import math
import sys
from array import array
from typing import Any

import msgspec
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkvisor.client.dialogue import Dialogue
from rkvisor.client.errors import UnreadableReply
from rkvisor.client.tensors import Result, Tensor, pack, unpack
from rkvisor.protocol.errors import InvalidParams
from rkvisor.protocol.tensors import TensorRef, read

numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)
shapes = st.lists(st.integers(1, 3), min_size=1, max_size=4).map(tuple)


def shaped(data: Any, shape: tuple[int, ...]) -> memoryview[Any]:
    view = memoryview(data)
    return view.cast("B").cast(view.format, shape)  # type: ignore[call-overload,no-any-return]


@given(st.data(), shapes, st.sampled_from("fd"))
def test_a_buffer_is_read_by_the_server_as_it_was(data: st.DataObject, shape: tuple[int, ...], code: str) -> None:
    size = math.prod(shape)
    values = data.draw(st.lists(numbers, min_size=size, max_size=size))
    frames: list[bytes] = [b"before"]
    packed = pack({"deep": [{"embed": shaped(array(code, values), shape)}]}, frames)
    described = msgspec.convert(packed["deep"][0]["embed"], TensorRef)
    found = read(described, frames, "embed")
    assert (found.data.tolist(), found.shape) == (values, shape)


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1), st.sampled_from("ilq"))
def test_integers_go_as_int32(values: list[int], code: str) -> None:
    frames: list[bytes] = []
    packed = pack(array(code, values), frames)
    assert packed == {"attachment": 0, "dtype": "int32", "shape": [len(values)]}
    assert read(msgspec.convert(packed, TensorRef), frames, "pos", "int32").data.tolist() == values


def test_a_view_that_is_not_contiguous_goes_row_by_row() -> None:
    frames: list[bytes] = []
    pack(memoryview(array("f", [1, 2, 3, 4]))[::2], frames)
    assert frames == [array("f", [1, 3]).tobytes()]


@pytest.mark.parametrize("bad", [b"bytes", array("B", [1]), array("I", [1]), array("q", [2**31])], ids=repr)
def test_other_buffers_are_refused(bad: Any) -> None:
    with pytest.raises(InvalidParams, match="cannot send"):
        pack({"embed": bad}, [])


def test_params_without_buffers_stay_as_they_are() -> None:
    params = {"a": [1, 2.5, None, True, "x"], "b": {"c": [[1]]}}
    assert pack(params, frames := []) == params
    assert frames == []


def test_numpys_arrays_are_taken_and_given() -> None:
    given_array = numpy.arange(6, dtype="float64").reshape(2, 3)
    frames: list[bytes] = []
    assert pack(given_array, frames)["shape"] == [2, 3]
    tensor = unpack(result({"shape": [2, 3], "attachment": 0}), frames).hidden_states
    assert isinstance(tensor, Tensor)
    assert (tensor.numpy() == given_array).all()


def result(hidden: dict[str, Any]) -> Result:
    whole = {"text": "", "token_ids": [], "finish_reason": "stop", "perf": None, "worker": "w", "hidden_states": hidden}
    return msgspec.json.decode(json.dumps(whole), type=Result)


@pytest.mark.parametrize(
    ("hidden", "frames"),
    [
        ({"shape": [2, 2], "attachment": 1}, [b"", array("f", [1, 2, 3, 4]).tobytes()]),
        ({"shape": [2, 2], "rows": [[1, 2], [3, 4]]}, []),
    ],
)
def test_a_result_gives_its_numbers_in_their_shape(hidden: dict[str, Any], frames: list[bytes]) -> None:
    tensor = unpack(result(hidden), frames).hidden_states
    assert isinstance(tensor, Tensor)
    assert (tensor.shape, tensor.dtype, tensor.view[1, 0]) == ([2, 2], "float32", 3.0)
    assert tensor.view.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("frames", [[], [b""], [b"12345678"]])
def test_numbers_that_are_not_there_are_an_unreadable_reply(frames: list[bytes]) -> None:
    with pytest.raises(UnreadableReply, match="cannot read a tensor"):
        unpack(result({"shape": [2, 2], "attachment": 0}), frames)


def test_without_numpy_only_numpy_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    tensor = unpack(result({"shape": [1], "rows": [[1]]}), []).hidden_states
    assert isinstance(tensor, Tensor)
    assert tensor.view.tolist() == [1]
    with pytest.raises(ImportError):
        tensor.numpy()


def test_a_request_that_is_asked_again_takes_its_attachments_along() -> None:
    dialogue = Dialogue("ipc://x", connect_timeout_s=5.0, reconnect_timeout_s=5.0)
    frame = array("f", [1, 2])
    params = {"model": "m", "embed": frame, "request_key": "k"}
    exchange = dialogue.ask("rkllm.run", params, now=0.0)
    frame[0] = 5  # what the caller does with it later is not sent
    for _ in range(2):
        dialogue.connected(0.0)
        greeting = json.loads(dialogue.outgoing.popleft())  # type: ignore[arg-type]
        dialogue.received(json.dumps({"jsonrpc": "2.0", "id": greeting["id"], "result": {"epoch": "e"}}).encode())
        body, *frames = dialogue.outgoing.popleft()
        assert frames == [array("f", [1, 2]).tobytes()]
        identifier = json.loads(body)["id"]  # type: ignore[arg-type]
        if exchange.asks == 1:
            dialogue.disconnected(0.0)
    dialogue.received(json.dumps({"jsonrpc": "2.0", "id": identifier, "result": {}}).encode(), [b"answer"])
    assert exchange.replied == [b"answer"]
