"""Input that does not fit is refused before the runtime sees it: the worker's process stays what it was."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest

from harness.api import FAMILIES, VOCABULARY, WIDTH, Api, floats, ints, model, ref
from harness.rkvisord import Rkvisord, RpcError

pytestmark = pytest.mark.validation

ROW = [0.5] * WIDTH
ONE, TWO = floats(*ROW), floats(*ROW, *ROW)
ALMOST = ROW[1:]


def image(**more: Any) -> dict[str, Any]:
    return {"prompt": "see <image>", "image": {"embed": ref(0, 2, WIDTH), "n_image_tokens": 2, **more}}


def video(**more: Any) -> dict[str, Any]:
    members = {"embed": ref(0, 2, WIDTH), "n_frame_tokens": 1, "n_frame_per_video": 2, **more}
    return {"prompt": "see <video>", "video": members}


#: (params of a run, attachments), each of which must be −32602.
BAD: dict[str, tuple[dict[str, Any], tuple[bytes, ...]]] = {
    "no attachment": ({"embed": ref(0, 1, WIDTH)}, ()),
    "attachment behind the last": ({"embed": ref(1, 1, WIDTH)}, (ONE,)),
    "attachment beyond the limit": ({"embed": ref(16, 1, WIDTH)}, (ONE,)),
    "negative attachment": ({"embed": ref(-1, 1, WIDTH)}, (ONE,)),
    "attachment that is a text": ({"embed": {"attachment": "0", "shape": [1, WIDTH]}}, (ONE,)),
    "spare attachment": ({"embed": ref(0, 1, WIDTH)}, (ONE, ONE)),
    "attachment of a prompt": ({"prompt": "a"}, (ONE,)),
    "empty attachment": ({"embed": ref(0, 1, WIDTH)}, (b"",)),
    "a byte too few": ({"embed": ref(0, 1, WIDTH)}, (ONE[:-1],)),
    "a byte too many": ({"embed": ref(0, 1, WIDTH)}, (ONE + b"\0",)),
    "a shape too large": ({"embed": ref(0, 2, WIDTH)}, (ONE,)),
    "a shape too small": ({"embed": ref(0, 1, WIDTH)}, (TWO,)),
    "a shape beyond all memory": ({"embed": ref(0, 2**31 - 1, 2**31 - 1)}, (ONE,)),
    "a shape beyond an int": ({"embed": ref(0, 2**63)}, (ONE,)),
    "a dimension of 0": ({"embed": ref(0, 0, WIDTH)}, (b"",)),
    "a negative dimension": ({"embed": ref(0, -1, -WIDTH)}, (ONE,)),
    "no dimension": ({"embed": ref(0)}, (ONE[:4],)),
    "five dimensions": ({"embed": ref(0, 1, 1, 1, 1, WIDTH)}, (ONE,)),
    "a fractional dimension": ({"embed": {"attachment": 0, "shape": [1.5, WIDTH]}}, (ONE,)),
    "shape missing": ({"embed": {"attachment": 0}}, (ONE,)),
    "another dtype": ({"embed": ref(0, 1, WIDTH, dtype="int32")}, (ONE,)),
    "an unknown dtype": ({"embed": ref(0, 1, WIDTH, dtype="float16")}, (ONE,)),
    "an unknown member": ({"embed": ref(0, 1, WIDTH, order="F")}, (ONE,)),
    "rows of another width": ({"embed": ref(0, 2, WIDTH // 2)}, (ONE,)),
    "NaN": ({"embed": ref(0, 1, WIDTH)}, (floats(*ALMOST, math.nan),)),
    "infinity": ({"embed": ref(0, 1, WIDTH)}, (floats(math.inf, *ALMOST),)),
    "two infinities": ({"embed": ref(0, 1, WIDTH)}, (floats(math.inf, -math.inf, *ROW[2:]),)),
    "an empty list": ({"embed": []}, ()),
    "an empty row": ({"embed": [[]]}, ()),
    "ragged rows": ({"embed": [ROW, ALMOST]}, ()),
    "a list of another width": ({"embed": [ALMOST]}, ()),
    "a flat list": ({"embed": ROW}, ()),
    "a list of texts": ({"embed": [["0.5"] * WIDTH]}, ()),
    "a list with null": ({"embed": [[*ALMOST, None]]}, ()),
    "a number beyond float32": ({"embed": [[*ALMOST, 1e39]]}, ()),
    "a list beyond the limit": ({"embed": [ROW] * (65_536 // WIDTH + 1)}, ()),
    "token ids outside the vocabulary": ({"tokens": [5, VOCABULARY]}, ()),
    "a negative token id": ({"tokens": [-1]}, ()),
    "a token id beyond an int32": ({"tokens": [2**31]}, ()),
    "no token": ({"tokens": []}, ()),
    "too many tokens": ({"tokens": [5] * 16_385}, ()),
    "a fractional token": ({"tokens": [5.5]}, ()),
    "a token that is a text": ({"tokens": ["5"]}, ()),
    "no input": ({}, ()),
    "two inputs": ({"prompt": "a", "tokens": [5]}, ()),
    "an unknown mode": ({"prompt": "a", "mode": "hiden"}, ()),
    "an unknown tensor format": ({"prompt": "a", "mode": "hidden", "tensor_format": "numpy"}, ()),
    "an unknown member of a run": ({"prompt": "a", "promt": "b"}, ()),
    "no tokens to generate": ({"prompt": "a", "max_new_tokens": 0}, ()),
    "a probability above 1": ({"prompt": "a", "top_p": 1.5}, ()),
    "a role that is no text": ({"prompt": "a", "role": 5}, ()),
    "NUL in the prompt": ({"prompt": "a\0b"}, ()),
    "NUL in the role": ({"prompt": "a", "role": "us\0er"}, ()),
    "NUL in the name of a LoRA": ({"prompt": "a", "lora": "\0"}, ()),
    "NUL in a multimodal prompt": ({"multimodal": {**image(), "prompt": "\0"}}, (TWO,)),
    "NUL in a mark": ({"multimodal": image(start="\0")}, (TWO,)),
    "neither image nor video": ({"multimodal": {"prompt": "see"}}, ()),
    "an image without a count": ({"multimodal": {"prompt": "a", "image": {"embed": ref(0, 2, WIDTH)}}}, (TWO,)),
    "an image of no tokens": ({"multimodal": image(n_image_tokens=0)}, (TWO,)),
    "an image of fewer tokens than rows": ({"multimodal": image(n_image_tokens=1)}, (TWO,)),
    "more images than rows": ({"multimodal": image(n_image=2)}, (TWO,)),
    "negative images": ({"multimodal": image(n_image=-1)}, (TWO,)),
    "counts beyond an int": ({"multimodal": image(n_image=2**63)}, (TWO,)),
    "a negative width": ({"multimodal": image(width=-1)}, (TWO,)),
    "image rows of another width": ({"multimodal": image(embed=ref(0, 4, WIDTH // 2), n_image_tokens=4)}, (TWO,)),
    "an image with NaN": ({"multimodal": image()}, (floats(*ROW, *ALMOST, math.nan),)),
    "a video of fewer frames than rows": ({"multimodal": video(n_frame_per_video=1)}, (TWO,)),
    "a video of no frames": ({"multimodal": video(n_frame_per_video=0)}, (TWO,)),
    "more videos than rows": ({"multimodal": video(n_video=3)}, (TWO,)),
    "one attachment for two": ({"multimodal": {**image(), **video(embed=ref(1, 2, WIDTH))}}, (TWO,)),
}


@pytest.fixture(scope="module", params=FAMILIES)
def api(request: pytest.FixtureRequest) -> Iterator[Api]:
    with Rkvisord(model("demo", request.param, "workers = 1")) as server:
        connection = Api(server, request.param)
        yield connection
        connection.close()


@pytest.fixture
def pids(api: Api) -> Iterator[None]:
    """The worker is the same process before and after, and serves."""
    before = api.pids()
    yield
    assert api.pids() == before
    assert len(api.run(prompt="a")["token_ids"]) == 8


@pytest.mark.parametrize("what", BAD)
def test_input_that_does_not_fit_is_refused(api: Api, pids: None, what: str) -> None:
    params, attachments = BAD[what]
    with pytest.raises(RpcError) as caught:
        api.run(*attachments, **params)
    assert (caught.value.code, caught.value.name) == (-32602, "INVALID_PARAMS")
    assert str(caught.value).startswith("-32602 cannot ")


def test_json_that_is_not_utf8_or_not_finite_is_refused(api: Api, pids: None) -> None:
    head = b'{"jsonrpc":"2.0","id":1,"method":"rkllm.run","params":{"model":"demo",'
    for tail, codes in (
        (b'"prompt":"\xff\xfe"}}', {-32700, -32602}),
        (b'"prompt":"\\ud800"}}', {-32700, -32602}),
        (b'"embed":[[NaN]]}}', {-32700}),
        (b'"embed":[[1e999]]}}', {-32700, -32602}),
        (b'"tokens":[1' + b"0" * 400 + b"]}}", {-32700, -32602}),
    ):
        api.send_raw(head + tail)
        message, _ = api.receive()
        assert message["error"]["code"] in codes, tail


def test_more_attachments_than_a_message_may_have_are_too_large(api: Api, pids: None) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "rkllm.run", "params": {"model": "demo", "embed": ref(0, 1, WIDTH)}}
    api.send_raw(json.dumps(body).encode(), *[ONE] * 17)
    message, _ = api.receive()
    assert message["error"]["data"]["name"] == "TOO_LARGE"


def test_a_prompt_longer_than_the_context_is_the_librarys_context_error(api: Api, pids: None) -> None:
    long = floats(*ROW * 513)
    for params, attachments in (
        ({"tokens": [5] * 513}, ()),
        ({"embed": ref(0, 513, WIDTH)}, (long,)),
        ({"prompt": "x" * 513}, ()),
        ({"multimodal": image(embed=ref(0, 513, WIDTH), n_image_tokens=513)}, (long,)),
    ):
        with pytest.raises(RpcError) as caught:
            api.run(*attachments, **params)
        assert (caught.value.code, caught.value.name) == (-32603, "RKLLM_CONTEXT_ERROR"), params


def test_the_largest_finite_numbers_and_the_smallest_are_taken(api: Api, pids: None) -> None:
    extremes = floats(3.4e38, -3.4e38, 1e-45, -0.0, *ROW[4:])
    assert len(api.run(extremes, embed=ref(0, 1, WIDTH))["token_ids"]) == 8
    assert len(api.run(floats(*[3.4e38] * WIDTH), embed=ref(0, 1, WIDTH))["token_ids"]) == 8


def test_the_same_attachment_may_serve_two_members(api: Api, pids: None) -> None:
    if api.family != "f5":
        pytest.skip("only F5 takes an image and a video together")
    both = {**image(), **video()}
    copied = {**image(), **video(embed=ref(1, 2, WIDTH))}
    assert api.run(TWO, multimodal=both)["token_ids"] == api.run(TWO, TWO, multimodal=copied)["token_ids"]


def test_integers_may_stand_for_numbers_but_not_in_an_attachment(api: Api, pids: None) -> None:
    listed = api.run(embed=[[1] * WIDTH])["token_ids"]
    assert api.run(floats(*[1.0] * WIDTH), embed=ref(0, 1, WIDTH))["token_ids"] == listed
    bits = api.run(ints(*[1] * WIDTH), embed=ref(0, 1, WIDTH))["token_ids"]  # tiny, but numbers
    assert bits != listed
