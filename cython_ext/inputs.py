"""What a run takes: an ``Input`` (or one per item of a batch) and an ``Infer``.

Pure descriptions: they own no native memory and check nothing; ``Runtime.run`` checks them against the family of its
library and keeps the buffers alive as long as the library may look at them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """Embeddings of images, from a vision encoder.

    embed: float32, C-contiguous, ``n_image`` × ``n_image_tokens`` × embedding size.  width, height: pixels (0: the
    model's own; F1 and F2 know no other).  start, end, content: marks in the prompt (None: the model's own; only F5).
    """

    embed: Buffer
    n_image_tokens: int
    n_image: int = 1
    width: int = 0
    height: int = 0
    start: str | None = None
    end: str | None = None
    content: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """Embeddings of videos; only F5.

    embed: float32, C-contiguous, ``n_video`` × ``n_frame_per_video`` × ``n_frame_tokens`` × embedding size.  width,
    height: pixels of a frame.  start, end, content: marks in the prompt (None: the model's own).
    """

    embed: Buffer
    n_frame_tokens: int
    n_frame_per_video: int
    n_video: int = 1
    width: int = 0
    height: int = 0
    start: str | None = None
    end: str | None = None
    content: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One prompt.

    kind: "prompt" (``prompt``), "tokens" (``tokens``), "embed" (``embed`` and ``n_tokens``) or "multimodal"
    (``prompt`` and ``image`` and/or ``video``).  prompt: UTF-8 without NUL.  tokens: ids from 0, as a sequence or an
    int32 buffer (bytes are native int32).  embed: float32, C-contiguous, ``n_tokens`` rows.  role, enable_thinking:
    F4 and F5.
    """

    kind: str
    prompt: str | bytes | None = None
    tokens: Buffer | Sequence[int] | None = None
    embed: Buffer | None = None
    n_tokens: int = 0
    role: str = "user"
    enable_thinking: bool = False
    image: Image | None = None
    video: Video | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Infer:
    """How to run.

    mode: "generate", "hidden" or "logits" (F2 and later).  lora: name of a loaded adapter.  prompt_cache: path of a
    cache to use, or to write with ``save_prompt_cache``.  sampling: the vendor's nine names, those missing as at init;
    only F5.  keep_history: F2 and later.  max_new_tokens: 0 means as at init; only F5.
    """

    mode: str = "generate"
    lora: str | None = None
    prompt_cache: str | None = None
    save_prompt_cache: bool = False
    sampling: Mapping[str, float | int] | None = None
    keep_history: bool = False
    max_new_tokens: int = 0
