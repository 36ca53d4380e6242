"""Bad input, found by chance: whatever a client sends, the way from its bytes to what the binding takes ends in params
or in an error of the catalogue, and never in anything else."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from rkvisor.protocol.calls import CALLS, check_call
from rkvisor.protocol.diagnostics import DIAGNOSTICS
from rkvisor.protocol.errors import RkvisorError
from rkvisor.protocol.methods import METHODS, AbortParams, PauseParams, ResumeParams, check_abort
from rkvisor.protocol.params import Params, decode_params
from rkvisor.protocol.run import RunParams, check_run
from rkvisor.protocol.sessions import OpenParams, check_open, check_turn
from rkvisor.protocol.tensors import check_attachments, indices, read
from rkvisor.supervisor.requests.digest import digest_of
from rkvisor.worker.inputs import Dimensions, build

TABLE = {name: method.params for name, method in (METHODS | DIAGNOSTICS).items()}
methods = st.sampled_from(sorted(TABLE))
#: Values at the edges of types, and of what JSON can say.
HOSTILE: list[Any] = [
    None, True, 0, -1, 1, 2**31 - 1, 2**31, 2**53 + 1, 2**63, -(2**63) - 1, 2**64, 10**400,
    0.5, -0.0, 1e308, 5e-324, "", "\0", "\ud800", "\U0010ffff",
    "x" * 5000, [], {}, [[]], [None], [0, "a"], [[1.0], [1.0, 2.0]], [[1e300]], [-1], [2**31], {"": ""},
    {"attachment": 0, "shape": [1]}, {"attachment": -1, "shape": [1]}, {"attachment": 2**64, "shape": [1]},
    {"attachment": 0, "shape": []}, {"attachment": 0, "shape": [0]}, {"attachment": 0, "shape": [2**40, 2**40]},
    {"attachment": 0, "shape": [2], "dtype": "float16"}, {"attachment": 0, "shape": [1], "dtype": "int32"},
    {"prompt": "a"}, {"prompt": "a", "image": None}, {"prompt": "\0", "video": {"embed": [[1.0]]}},
    {"prompt": "a", "image": {"embed": [[1.0] * 4], "n_image_tokens": 1, "n_image": 16384}},
    [{"role": "user", "content": "a"}], [{"role": "", "content": None}], [{"role": "tool", "content": "\0"}],
    "all", "demo:0", "ipc://x", "../../etc/passwd", "/etc/passwd\0", "generate", "hidden", "logits", "list",
]  # fmt: skip
#: Texts that no encoder writes, in the place of a member's value.
RAW = [
    b"NaN", b"Infinity", b"-0", b"1e999", b"-1e999", b"01", b"1.", b'"\xff"', b'"\\ud800"', b'"\\u0000"', b"[" * 2000,
    b"{", b"", b"tru",
]  # fmt: skip
#: A request that is fine, to be spoilt.
FINE: dict[str, Any] = {"model": "demo", "prompt": "a"}


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def hostile_values() -> st.SearchStrategy[bytes]:
    """The JSON text of a value, or bytes that are none."""
    return st.sampled_from([*map(encoded, HOSTILE), *RAW]) | st.binary(max_size=12)


def members(kind: type[Params]) -> st.SearchStrategy[bytes]:
    """The text of an object with members of *kind*, some of them twice."""
    pairs = st.tuples(st.sampled_from([*kind.__struct_fields__, "nonsense"]), hostile_values())

    def whole(found: list[tuple[str, bytes]]) -> bytes:
        return b"{%b}" % b",".join(b'"%b":%b' % (name.encode(), value) for name, value in found)

    return st.lists(pairs, max_size=5).map(whole)


def pursue(name: str, raw: bytes, attachments: list[bytes], dimensions: Dimensions) -> Any:
    """All that is done with params before anything reaches C.  Raises the catalogue's errors."""
    kind = TABLE[name]
    params = decode_params(kind, raw)
    assert isinstance(params, kind)
    if isinstance(params, (AbortParams, PauseParams, ResumeParams)):
        check_abort(params)
    elif isinstance(params, OpenParams):
        check_open(params)
    elif name in CALLS:
        check_call(params)
        check_attachments(params, attachments)
    elif isinstance(params, RunParams):
        check_run(params)
        if params.session is not None:
            check_turn(params)
        check_attachments(params, attachments)
        assert len(digest_of(params, attachments)) == 32
        if params.messages is None:
            return build(params, attachments, dimensions)
    return params


def outcome(name: str, raw: bytes, attachments: list[bytes], dimensions: Dimensions) -> None:
    """Pursue it; an error of the catalogue must be one that can be sent."""
    error: RkvisorError | None = None
    try:
        pursue(name, raw, attachments, dimensions)
    except RkvisorError as raised:
        error = raised
    if error is not None:
        assert error.message.startswith("cannot ")
        assert b'"code":-32' in msgspec.json.encode(error.to_object(0.0))


frames = st.lists(st.binary(max_size=40), max_size=3)
known = st.builds(
    Dimensions,
    embedding_size=st.none() | st.integers(1, 4),
    vocab_size=st.none() | st.integers(1, 100),
    n_batch=st.integers(1, 3),
)


@given(methods, st.data(), frames, known)
def test_any_members_of_any_method_end_in_params_or_an_error(
    name: str, data: st.DataObject, attachments: list[bytes], dimensions: Dimensions
) -> None:
    outcome(name, data.draw(members(TABLE[name])), attachments, dimensions)


@given(methods, st.lists(hostile_values(), max_size=6), frames, known)
def test_any_params_by_position_do_so_too(
    name: str, values: list[bytes], attachments: list[bytes], dimensions: Dimensions
) -> None:
    outcome(name, b"[%b]" % b",".join(values), attachments, dimensions)


@given(methods, st.binary(max_size=40), known)
@example("rkllm.run", b"\xff\xfe", Dimensions())
@example("rkllm.run", b'{"model":"a","prompt":"\xed\xa0\x80"}', Dimensions())
@example("rkllm.run", b"[" * 100_000, Dimensions())
@example("rkllm.run", b'{"a":' * 100_000, Dimensions())
def test_bytes_do_so_too(name: str, raw: bytes, dimensions: Dimensions) -> None:
    outcome(name, raw, [], dimensions)


@given(st.sampled_from(RunParams.__struct_fields__), hostile_values(), frames, known)
def test_a_run_with_one_member_spoilt_runs_or_is_refused(
    member: str, value: bytes, attachments: list[bytes], dimensions: Dimensions
) -> None:
    whole = {name: encoded(one) for name, one in FINE.items()} | {member: value}
    if member in ("prompts", "tokens", "embed", "messages", "multimodal"):
        del whole["prompt"]
    raw = b"{%b}" % b",".join(b'"%b":%b' % (name.encode(), one) for name, one in whole.items())
    outcome("rkllm.run", raw, attachments, dimensions)


shapes = st.lists(st.integers(-1, 5), max_size=4)


@given(shapes, st.sampled_from(["float32", "int32"]), st.binary(max_size=80), st.integers(0, 2))
def test_an_attachment_is_read_whole_and_finite_or_refused(
    shape: list[int], dtype: str, frame: bytes, index: int
) -> None:
    described = {"attachment": index, "shape": shape, "dtype": dtype}
    raw = encoded({"model": "m", "embed": described})
    try:
        params = decode_params(RunParams, raw)
        check_attachments(params, [frame])
        array = read(params.embed, [frame], "embed")
    except RkvisorError:
        return
    assert indices(params) == {0}
    size = 1
    for one in array.shape:
        size *= one
    assert len(array.data) == size
    assert len(frame) == 4 * size
    assert all(number == number and abs(number) != float("inf") for number in array.data)
