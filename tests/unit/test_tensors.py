"""Tensors on the wire: whatever is described, decoding gives the very numbers or InvalidParams."""

from __future__ import annotations

import math
from array import array
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkvisor.protocol.errors import InvalidParams
from rkvisor.protocol.limits import MAX_LIST_NUMBERS
from rkvisor.protocol.run import ImageInput, Multimodal, RunParams
from rkvisor.protocol.tensors import Array, Tensor, TensorRef, check_attachments, indices, read, to_lists

numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)
shapes = st.lists(st.integers(1, 4), min_size=1, max_size=4)
decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Tensor)


def outcome(tensor: Any, attachments: list[bytes], dtype: str = "float32") -> Array | str:
    try:
        return read(tensor, attachments, "embed", dtype)
    except InvalidParams as error:
        return str(error)


@given(st.data(), shapes)
def test_an_attachment_is_read_as_it_was_written(data: st.DataObject, shape: list[int]) -> None:
    size = math.prod(shape)
    written = array("f", data.draw(st.lists(numbers, min_size=size, max_size=size)))
    found = outcome(TensorRef(attachment=1, shape=shape), [b"", written.tobytes()])
    assert isinstance(found, Array)
    assert (found.data.tolist(), found.shape) == (written.tolist(), tuple(shape))


@given(st.integers(0, 15), shapes, st.sampled_from(["float32", "int32"]), st.lists(st.binary(max_size=64), max_size=3))
def test_any_description_gives_the_numbers_it_says_or_is_refused(
    index: int, shape: list[int], dtype: Any, attachments: list[bytes]
) -> None:
    found = outcome(TensorRef(attachment=index, shape=shape, dtype=dtype), attachments)
    fits = index < len(attachments) and dtype == "float32" and len(attachments[index]) == 4 * math.prod(shape)
    if isinstance(found, str):
        assert found.startswith("cannot take embed: ")
        assert not fits or not all(map(math.isfinite, array("f", attachments[index])))
    else:
        assert fits
        assert found.data.nbytes == 4 * math.prod(shape)
        assert all(map(math.isfinite, found.data))


@given(st.lists(numbers, min_size=1, max_size=12), st.data(), st.sampled_from([math.nan, math.inf, -math.inf]))
def test_one_number_that_is_not_finite_is_enough(values: list[float], data: st.DataObject, bad: float) -> None:
    values[data.draw(st.integers(0, len(values) - 1))] = bad
    assert "not finite" in str(outcome(TensorRef(attachment=0, shape=[len(values)]), [array("f", values).tobytes()]))
    assert "not finite" in str(outcome([values], []))


def test_the_largest_numbers_do_not_add_up_to_infinity() -> None:
    largest = [3.4028234663852886e38] * 1000
    assert isinstance(outcome([largest], []), Array)


@given(st.lists(st.lists(numbers, min_size=1, max_size=4), min_size=1, max_size=4))
def test_a_list_is_an_array_where_its_rows_are_of_one_length(rows: list[list[float]]) -> None:
    found = outcome(rows, [])
    if len({len(row) for row in rows}) > 1:
        assert "differ in length" in str(found)
        return
    assert isinstance(found, Array)
    assert found.shape == (len(rows), len(rows[0]))
    assert found.data == array("f", [one for row in rows for one in row])
    assert to_lists(bytes(found.data), *found.shape) == [array("f", row).tolist() for row in rows]


@given(st.lists(st.integers(-(2**40), 2**40) | numbers, min_size=1, max_size=6))
def test_a_list_is_taken_as_int32_where_it_is_integers_that_fit(values: list[float]) -> None:
    rows = decoder.decode(msgspec.json.encode([values]))
    fits = all(float(one).is_integer() and -(2**31) <= one < 2**31 for one in values)
    found = outcome(rows, [], "int32")
    assert isinstance(found, Array) == fits, found
    if isinstance(found, Array):
        assert found.data.tolist() == [int(one) for one in values]


def test_int32_attachments_are_read_and_a_float_is_not() -> None:
    frame = array("i", [1, -1]).tobytes()
    found = outcome(TensorRef(attachment=0, shape=[2], dtype="int32"), [frame], "int32")
    assert isinstance(found, Array)
    assert found.data.tolist() == [1, -1]
    assert "must be int32" in str(outcome(TensorRef(attachment=0, shape=[2]), [frame], "int32"))


def test_lists_are_bounded_both_ways() -> None:
    width = 256
    assert isinstance(outcome([[0.0] * width] * (MAX_LIST_NUMBERS // width), []), Array)
    assert "send an attachment" in str(outcome([[0.0] * width] * (MAX_LIST_NUMBERS // width + 1), []))
    assert len(to_lists(bytes(4 * MAX_LIST_NUMBERS), MAX_LIST_NUMBERS // width, width)) == MAX_LIST_NUMBERS // width
    with pytest.raises(InvalidParams, match="tensor_format"):
        to_lists(b"", MAX_LIST_NUMBERS, 2)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["attachment", "shape", "dtype", "x"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(values, st.lists(st.binary(max_size=16), max_size=2))
def test_any_json_is_no_tensor_or_one_that_can_be_read_or_refused(value: Any, attachments: list[bytes]) -> None:
    try:
        tensor = decoder.decode(msgspec.json.encode(value))
    except msgspec.ValidationError:
        return
    found = outcome(tensor, attachments)
    assert isinstance(found, Array | str)


# Which attachments params refer to.


def params(*refs: int) -> RunParams:
    """A run that refers to the attachments *refs*, at most two of them."""
    tensors = [TensorRef(attachment=one, shape=[1]) for one in refs]
    media = Multimodal(prompt="a", image=ImageInput(embed=tensors[1], n_image_tokens=1)) if len(refs) > 1 else None
    return RunParams(model="m", embed=tensors[0] if tensors else None, multimodal=media)


@given(st.lists(st.integers(0, 4), max_size=2), st.integers(0, 4), st.booleans())
def test_every_attachment_is_referred_to_and_every_reference_leads_to_one(
    refs: list[int], count: int, is_batch: bool
) -> None:
    assert indices(params(*refs)) == set(refs)
    is_fine = set(refs) <= set(range(count)) if is_batch else set(refs) == set(range(count))
    try:
        check_attachments(params(*refs), [b""] * count, is_batch=is_batch)
    except InvalidParams:
        assert not is_fine
    else:
        assert is_fine
