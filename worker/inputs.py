"""From the params of a run and its attachments to what the binding takes.  Pure: C sees only what was checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rkvisor.cython_ext.inputs import Image, Input, Video
from rkvisor.protocol import tensors
from rkvisor.protocol.errors import InvalidParams, NotSupported
from rkvisor.protocol.run import ImageInput, RunParams, VideoInput
from rkvisor.protocol.tensors import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimensions:
    """What is known of the model; None where its file does not tell (a .rkllm does not).

    n_batch: inputs that one run takes.
    """

    embedding_size: int | None = None
    vocab_size: int | None = None
    n_batch: int = 1


def build(params: RunParams, attachments: Sequence[bytes], dimensions: Dimensions) -> Input | list[Input]:
    """The input of the run: one, or a list of ``n_batch`` of them.

    Raises:
        InvalidParams: a tensor or a token id that does not fit the model, or the wrong number of prompts.
        NotSupported: one input where the model wants several, embeddings where their width is not known.
    """
    if params.prompts is not None:
        if len(params.prompts) != dimensions.n_batch:
            text = f"the model is configured for n_batch = {dimensions.n_batch}"
            raise InvalidParams(f"cannot run {len(params.prompts)} prompts at once: {text}")
        return [_input("prompt", params, prompt=prompt) for prompt in params.prompts]
    if dimensions.n_batch != 1:
        text = f"the model is configured for n_batch = {dimensions.n_batch}; send that many prompts"
        raise NotSupported(f"cannot run a single input: {text}")
    if params.prompt is not None:
        return _input("prompt", params, prompt=params.prompt)
    if params.tokens is not None:
        check_tokens(params.tokens, dimensions)
        return _input("tokens", params, tokens=params.tokens)
    if params.embed is not None:
        rows = _rows(tensors.read(params.embed, attachments, "embed"), "embed", dimensions)
        return _input("embed", params, embed=rows.data, n_tokens=rows.shape[0])
    return _multimodal(params, attachments, dimensions)


def _input(kind: str, params: RunParams, **members: object) -> Input:
    return Input(kind=kind, role=params.role, enable_thinking=params.enable_thinking, **members)  # type: ignore[arg-type]


def check_tokens(tokens: Sequence[int], dimensions: Dimensions) -> None:
    """Raise InvalidParams for an id outside the vocabulary, where its size is known."""
    largest = max(tokens)
    if dimensions.vocab_size is not None and largest >= dimensions.vocab_size:
        text = f"the vocabulary has {dimensions.vocab_size} tokens, ids go from 0 to {dimensions.vocab_size - 1}"
        raise InvalidParams(f"cannot take token id {largest}: {text}")


def _rows(array: Array, what: str, dimensions: Dimensions, rows: int | None = None) -> Array:
    """*array* as rows of embeddings.  Raises InvalidParams unless shape and model agree, NotSupported where the model
    does not tell."""
    width = array.shape[-1]
    count = 1
    for size in array.shape[:-1]:
        count *= size
    if dimensions.embedding_size is None:  # the runtime would read as many numbers as it wants, behind the end too
        text = "how wide the model's embeddings are is not known; set embedding_size in the model's section"
        raise NotSupported(f"cannot take {what}: {text}")
    if width != dimensions.embedding_size:
        text = f"its rows have {width} numbers; the model's embeddings have {dimensions.embedding_size}"
        raise InvalidParams(f"cannot take {what}: {text}")
    if rows is not None and count != rows:
        raise InvalidParams(f"cannot take {what}: it has {count} rows; the counts beside it make {rows}")
    return Array(array.data, (count, width))


def _multimodal(params: RunParams, attachments: Sequence[bytes], dimensions: Dimensions) -> Input:
    media = params.multimodal
    assert media is not None
    image = None if media.image is None else _image(media.image, attachments, dimensions)
    video = None if media.video is None else _video(media.video, attachments, dimensions)
    return _input("multimodal", params, prompt=media.prompt, image=image, video=video)


def _image(image: ImageInput, attachments: Sequence[bytes], dimensions: Dimensions) -> Image:
    array = tensors.read(image.embed, attachments, "image.embed")
    rows = _rows(array, "image.embed", dimensions, image.n_image * image.n_image_tokens)
    return Image(
        embed=rows.data,
        n_image_tokens=image.n_image_tokens,
        n_image=image.n_image,
        width=image.width,
        height=image.height,
        start=image.start,
        end=image.end,
        content=image.content,
    )


def _video(video: VideoInput, attachments: Sequence[bytes], dimensions: Dimensions) -> Video:
    array = tensors.read(video.embed, attachments, "video.embed")
    wanted = video.n_video * video.n_frame_per_video * video.n_frame_tokens
    rows = _rows(array, "video.embed", dimensions, wanted)
    return Video(
        embed=rows.data,
        n_frame_tokens=video.n_frame_tokens,
        n_frame_per_video=video.n_frame_per_video,
        n_video=video.n_video,
        width=video.width,
        height=video.height,
        start=video.start,
        end=video.end,
        content=video.content,
    )
