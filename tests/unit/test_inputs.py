"""From the params of a run to what the binding takes: what it is given has the sizes that it is told."""

from __future__ import annotations

from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkvisor.cython_ext.inputs import Input
from rkvisor.protocol.errors import InvalidParams, NotSupported, RkvisorError
from rkvisor.protocol.run import ImageInput, Multimodal, RunParams, VideoInput
from rkvisor.protocol.tensors import TensorRef
from rkvisor.worker.inputs import Dimensions, build

KNOWN = Dimensions(embedding_size=4, vocab_size=100)
UNKNOWN = Dimensions()
small = st.integers(1, 4)


def tensor(*shape: int) -> tuple[TensorRef, bytes]:
    size = 1
    for one in shape:
        size *= one
    return TensorRef(attachment=0, shape=list(shape)), array("f", [0.5] * size).tobytes()


def outcome(params: RunParams, attachments: list[bytes], dimensions: Dimensions = KNOWN) -> Any:
    try:
        return build(params, attachments, dimensions)
    except RkvisorError as error:
        return error


@given(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=8), st.booleans())
def test_ids_are_checked_where_the_vocabulary_is_known(tokens: list[int], is_known: bool) -> None:
    found = outcome(RunParams(model="m", tokens=tokens), [], KNOWN if is_known else UNKNOWN)
    if is_known and max(tokens) >= 100:
        assert isinstance(found, InvalidParams)
        assert str(max(tokens)) in str(found)
    else:
        assert (found.kind, found.tokens) == ("tokens", tokens)


@given(st.lists(small, min_size=1, max_size=4), st.booleans())
def test_embeddings_are_rows_of_the_models_width(shape: list[int], is_known: bool) -> None:
    described, frame = tensor(*shape)
    found = outcome(RunParams(model="m", embed=described), [frame], KNOWN if is_known else UNKNOWN)
    if not is_known:
        assert isinstance(found, NotSupported), "the runtime would read as far as its own width takes it"
        assert "embedding_size" in str(found)
    elif shape[-1] != 4:
        assert isinstance(found, InvalidParams)
    else:
        assert isinstance(found, Input)
        assert found.n_tokens * shape[-1] * 4 == len(frame) == memoryview(found.embed).nbytes


@given(small, small, small, small)
def test_images_have_as_many_rows_as_their_counts_make(rows: int, tokens: int, images: int, width: int) -> None:
    described, frame = tensor(rows, width)
    image = ImageInput(
        embed=described, n_image_tokens=tokens, n_image=images, width=7, height=9, start="[", content="c"
    )
    found = outcome(RunParams(model="m", multimodal=Multimodal(prompt="p", image=image)), [frame])
    if rows != tokens * images or width != 4:
        assert isinstance(found, InvalidParams)
        return
    made = found.image
    assert (found.kind, found.prompt, found.video) == ("multimodal", "p", None)
    assert (made.n_image_tokens, made.n_image, made.width, made.height) == (tokens, images, 7, 9)
    assert (made.start, made.end, made.content) == ("[", None, "c")
    assert memoryview(made.embed).nbytes == len(frame)


@given(st.integers(1, 8), small, small, small)
def test_videos_have_as_many_rows_as_their_counts_make(rows: int, tokens: int, frames: int, videos: int) -> None:
    described, frame = tensor(rows, 4)
    video = VideoInput(embed=described, n_frame_tokens=tokens, n_frame_per_video=frames, n_video=videos)
    found = outcome(RunParams(model="m", multimodal=Multimodal(prompt="p", video=video)), [frame])
    if rows != tokens * frames * videos:
        assert isinstance(found, InvalidParams)
    else:
        made = found.video
        assert (made.n_frame_tokens, made.n_frame_per_video, made.n_video) == (tokens, frames, videos)


@given(st.integers(1, 4), st.integers(1, 4))
def test_prompts_are_as_many_as_the_model_takes(count: int, n_batch: int) -> None:
    prompts = [f"p{i}" for i in range(count)]
    found = outcome(RunParams(model="m", prompts=prompts, role="tool"), [], Dimensions(n_batch=n_batch))
    if count != n_batch:
        assert isinstance(found, InvalidParams)
    else:
        assert [(one.kind, one.prompt, one.role) for one in found] == [("prompt", one, "tool") for one in prompts]


def test_role_and_thinking_go_with_a_prompt() -> None:
    found = outcome(RunParams(model="m", prompt="p", role="tool", enable_thinking=True), [])
    assert (found.kind, found.prompt, found.role, found.enable_thinking) == ("prompt", "p", "tool", True)


@pytest.mark.parametrize("params", [RunParams(model="m", prompt="p"), RunParams(model="m", tokens=[1])])
def test_one_input_is_not_several(params: RunParams) -> None:
    assert isinstance(outcome(params, [], Dimensions(n_batch=2)), NotSupported)
