"""One look at a process's memory, and the series that a leak is looked for in (design §7).  Pure."""

from __future__ import annotations

from dataclasses import dataclass

#: What the estimate runs on.  "descriptors" counts, all others are bytes.
SERIES = ("anon", "file", "dmabuf", "descriptors")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What a process held at one moment.

    at_s: monotonic seconds.  wall_s: seconds since 1970, for display only.
    requests, tokens_in, tokens_out: served by this process so far; they never fall within its life.
    is_idle: no request ran while it was taken.
    rss_bytes … hwm_bytes: of /proc/PID/status (VmRSS, RssAnon, RssFile, RssShmem, VmSwap, VmHWM).
    dmabuf_bytes: of /proc/PID/fdinfo, buffers counted once; None where that cannot be read.
    pss_bytes, uss_bytes: of smaps_rollup, taken rarely; None in between.
    model_file_bytes: the resident part of the mapped model file, 0 where there is none.
    npu_bytes: what the NPU's driver tells, None where it tells nothing (it needs root).
    context_tokens: the most tokens that a request of this process had in the KV cache so far, 0 where unknown: the
    pages of a KV cache are touched, and so resident, only when a longer context comes than any before.
    """

    at_s: float
    wall_s: float
    requests: int
    tokens_in: int = 0
    tokens_out: int = 0
    is_idle: bool = True
    rss_bytes: int
    rss_anon_bytes: int
    rss_file_bytes: int = 0
    rss_shmem_bytes: int = 0
    swap_bytes: int = 0
    hwm_bytes: int = 0
    dmabuf_bytes: int | None = None
    descriptors: int = 0
    threads: int = 0
    pss_bytes: int | None = None
    uss_bytes: int | None = None
    model_file_bytes: int = 0
    npu_bytes: int | None = None
    context_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Something in a process's life that explains a step of its memory.

    kind: "loaded", "lora", "prompt_cache", "kv", or another word.  text: for the report, such as a LoRA's name.
    """

    at_s: float
    kind: str
    text: str = ""


def series_of(sample: Sample, name: str) -> float:
    """The value of *sample* in the series *name*, never below 0.

    anon: what is the process's own, swapped out or not: a leak that is swapped out hides from RSS.
    file: mapped files and shared memory less the model file, whose pages come and go with the page cache.
    dmabuf: 0 where it cannot be read.

    Raises:
        KeyError: there is no such series.
    """
    match name:
        case "anon":
            return float(sample.rss_anon_bytes + sample.swap_bytes)
        case "file":
            return float(max(0, sample.rss_file_bytes + sample.rss_shmem_bytes - sample.model_file_bytes))
        case "dmabuf":
            return float(sample.dmabuf_bytes or 0)
        case "descriptors":
            return float(sample.descriptors)
    raise KeyError(name)
