"""Tensors on the wire: attachments described in the JSON, or JSON lists where they are small (design §4).  Pure.

An attachment is a frame behind the JSON frame, row-major and little-endian (as every machine that
rkvisor runs on); its index counts over the whole message.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from rkvisor.protocol.errors import InvalidParams
from rkvisor.protocol.limits import MAX_ATTACHMENTS, MAX_CONTEXT, MAX_LIST_NUMBERS

_TYPECODE = {"float32": "f", "int32": "i"}
_SIZE_BYTES = 4


class TensorRef(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An attachment.  attachment: its index.  shape: of 1 to 4 dimensions; its product times 4 is the frame's size."""

    attachment: Annotated[int, Meta(ge=0, lt=MAX_ATTACHMENTS)]
    dtype: Literal["float32", "int32"] = "float32"
    shape: Annotated[list[Annotated[int, Meta(ge=1, le=2**31 - 1)]], Meta(min_length=1, max_length=4)]


Rows = Annotated[list[Annotated[list[float], Meta(min_length=1)]], Meta(min_length=1, max_length=MAX_CONTEXT)]
Tensor = TensorRef | Rows


class Array(msgspec.Struct, frozen=True):
    """Numbers in native order.  data: a buffer of them.  shape: see TensorRef."""

    data: Any
    shape: tuple[int, ...]


def read(
    tensor: TensorRef | list[list[float]], attachments: Sequence[bytes], what: str, dtype: str = "float32"
) -> Array:
    """The numbers of *tensor*.  what: the name of the member, for messages.

    Raises:
        InvalidParams: no such attachment, another dtype or size than described, ragged rows, too many numbers in a
            JSON list, or a number that is not finite.
    """
    if isinstance(tensor, TensorRef):
        return _read_attachment(tensor, attachments, what, dtype)
    width = len(tensor[0])
    if any(len(row) != width for row in tensor):
        raise InvalidParams(f"cannot take {what}: its rows differ in length; the first has {width} numbers")
    if width * len(tensor) > MAX_LIST_NUMBERS:
        text = f"{width * len(tensor)} numbers as a JSON list; the limit is {MAX_LIST_NUMBERS}, send an attachment"
        raise InvalidParams(f"cannot take {what}: {text}")
    numbers: list[Any] = [number for row in tensor for number in row]
    if dtype == "int32":
        fraction = next((number for number in numbers if not number.is_integer()), None)
        if fraction is not None:
            raise InvalidParams(f"cannot take {what} as int32: {fraction} is no integer")
        numbers = [int(number) for number in numbers]
    try:
        data = array(_TYPECODE[dtype], numbers)
    except OverflowError as error:
        raise InvalidParams(f"cannot take {what} as {dtype}: {error}") from error
    _check_finite(data, what)
    return Array(data, (len(tensor), width))


def _read_attachment(tensor: TensorRef, attachments: Sequence[bytes], what: str, dtype: str) -> Array:
    if tensor.attachment >= len(attachments):
        text = f"it refers to attachment {tensor.attachment}, but the message has {len(attachments)}"
        raise InvalidParams(f"cannot take {what}: {text}")
    if tensor.dtype != dtype:
        raise InvalidParams(f"cannot take {what}: its dtype must be {dtype}, not {tensor.dtype}")
    frame = attachments[tensor.attachment]
    wanted = math.prod(tensor.shape) * _SIZE_BYTES
    if len(frame) != wanted:
        text = f"shape {tensor.shape} of {dtype} has {wanted} bytes, attachment {tensor.attachment} has {len(frame)}"
        raise InvalidParams(f"cannot take {what}: {text}")
    view: memoryview[Any] = memoryview(frame).cast(_TYPECODE[dtype])  # type: ignore[call-overload]
    _check_finite(view, what)
    return Array(view, tuple(tensor.shape))


def _check_finite(numbers: Any, what: str) -> None:
    if not math.isfinite(sum(numbers)):
        raise InvalidParams(f"cannot take {what}: it holds a number that is not finite (NaN or infinity)")


def indices(params: Any) -> set[int]:
    """The attachments that *params* (any structure of msgspec types, lists and dicts) refer to."""
    if isinstance(params, TensorRef):
        return {params.attachment}
    if isinstance(params, msgspec.Struct):
        found = (indices(getattr(params, name)) for name in params.__struct_fields__)
        return {index for part in found for index in part}
    return set()


def check_attachments(params: Any, attachments: Sequence[bytes], *, is_batch: bool = False) -> None:
    """Raise InvalidParams for attachments that nothing refers to, or references to none.

    is_batch: the attachments belong to all requests of a batch array, so others may refer to them.
    """
    wanted = indices(params)
    missing = sorted(index for index in wanted if index >= len(attachments))
    if missing:
        text = f"the params refer to attachment {missing[0]}, but the message has {len(attachments)}"
        raise InvalidParams(f"cannot find an attachment: {text}")
    spare = sorted(set(range(len(attachments))) - wanted)
    if spare and not is_batch:
        raise InvalidParams(f"cannot place attachment {spare[0]}: the params refer to none of that index")


def to_lists(data: bytes, rows: int, columns: int) -> list[list[float]]:
    """float32 *data* as a JSON list of *rows* lists.

    Raises InvalidParams where that is more than ``MAX_LIST_NUMBERS`` numbers.
    """
    if rows * columns > MAX_LIST_NUMBERS:
        text = f"{rows} × {columns} numbers are more than the {MAX_LIST_NUMBERS} of a JSON list"
        raise InvalidParams(f'cannot give the tensor as a list: {text}; ask for tensor_format "attachment"')
    numbers: memoryview[float] = memoryview(data).cast("f")
    return [list(numbers[row * columns : (row + 1) * columns]) for row in range(rows)]
