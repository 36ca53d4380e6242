"""Tensors in params and results: whatever has the buffer protocol goes out as an attachment, and comes in as a view.

NumPy is not needed: its arrays have the buffer protocol, and ``Tensor.numpy`` makes one where NumPy can be imported.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from typing import Any

import msgspec

from rkvisor.client.errors import UnreadableReply
from rkvisor.protocol.errors import InvalidParams
from rkvisor.protocol.run import RunResult, TensorResult

#: Formats of buffers → the wire's dtype, and the typecode of what travels.  Wider ones are narrowed.
_FORMATS = {"f": ("float32", "f"), "d": ("float32", "f"), **dict.fromkeys("ilq", ("int32", "i"))}
_PLAIN = (str, int, float, type(None))


def pack(value: Any, attachments: list[bytes]) -> Any:
    """*value* as it stands in the JSON; each buffer in it becomes a reference to what is added to *attachments*.

    Raises InvalidParams for a buffer of other numbers than floats or integers, or of integers beyond 32 bits.
    """
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, dict):
        return {key: pack(one, attachments) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [pack(one, attachments) for one in value]
    try:
        view = memoryview(value)
    except TypeError:
        return value
    dtype, frame = _frame(view)
    attachments.append(frame)
    return {"attachment": len(attachments) - 1, "dtype": dtype, "shape": list(view.shape or ())}


def _frame(view: memoryview[Any]) -> tuple[str, bytes]:
    """dtype and little-endian bytes, row by row."""
    code = view.format.lstrip("<=@" if sys.byteorder == "little" else ">=@")
    if code not in _FORMATS or not view.shape:
        what = f"a buffer of format {view.format!r} and {view.ndim} dimensions"
        text = f"cannot send {what} as a tensor: it takes float32 or int32 (float64 and int64 are narrowed)"
        raise InvalidParams(text, component="client")
    dtype, typecode = _FORMATS[code]
    data = view.tobytes()
    if code != typecode and (typecode, array(code).itemsize) != ("i", 4):
        try:
            data = array(typecode, memoryview(data).cast(code)).tobytes()  # type: ignore[call-overload]
        except OverflowError as error:
            raise InvalidParams(f"cannot send integers as int32: {error}", component="client") from error
    if sys.byteorder == "big":
        swapped = array(typecode, data)
        swapped.byteswap()
        data = swapped.tobytes()
    return dtype, data


class Tensor(TensorResult, kw_only=True, dict=True):
    """Numbers of a result: ``shape`` and ``dtype`` beside them."""

    @property
    def view(self) -> memoryview[Any]:
        """The numbers, float32, in ``shape``; ``view[i, j]`` is one of them, ``view.tolist()`` all."""
        return memoryview(self.__dict__["data"]).cast("B").cast("f", self.shape)

    def numpy(self) -> Any:
        """The numbers as a NumPy array, which shares their memory.  Raises ImportError without NumPy."""
        import numpy

        return numpy.asarray(self.view)


class Result(RunResult, kw_only=True):
    """As ``RunResult``, with the numbers of its tensors."""

    hidden_states: Tensor | msgspec.UnsetType = msgspec.UNSET
    logits: Tensor | msgspec.UnsetType = msgspec.UNSET


def unpack(result: Result, attachments: Sequence[bytes]) -> Result:
    """Give the tensors of *result* their numbers.  Raises UnreadableReply where they are not there."""
    for tensor in (result.hidden_states, result.logits):
        if isinstance(tensor, Tensor):
            tensor.__dict__["data"] = _numbers(tensor, attachments)
    return result


def _numbers(tensor: Tensor, attachments: Sequence[bytes]) -> Any:
    if isinstance(tensor.rows, list):
        data: Any = array("f", [number for row in tensor.rows for number in row])
    elif isinstance(tensor.attachment, int) and tensor.attachment < len(attachments):
        data = attachments[tensor.attachment]
        if sys.byteorder == "big":
            data = array("f", data)
            data.byteswap()
    else:
        raise UnreadableReply("cannot read a tensor: the message lacks its attachment", component="client")
    wanted = 4
    for size in tensor.shape:
        wanted *= size
    if memoryview(data).nbytes != wanted:
        text = f"shape {tensor.shape} makes {wanted} bytes, it has {memoryview(data).nbytes}"
        raise UnreadableReply(f"cannot read a tensor: {text}", component="client")
    return data
