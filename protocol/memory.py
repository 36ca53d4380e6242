"""What ``memory.report`` answers with: what the memory of each process does, and whose leak it is (design §7, §11)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from rkvisor.protocol.params import Params

MemoryVerdict = Literal["clean", "warming_up", "suspect", "leaking"]
MemoryLimitKind = Literal["max_rss", "memory_limit", "machine"]
#: Points of a process's life that an answer holds at most.
MAX_POINTS = 1000
#: What no report can see, and says so.
BLIND_SPOT = (
    "NPU buffers that the runtime holds behind one DRM descriptor are invisible without root: "
    "a leak of these shows in no series"
)


class MemoryParams(Params, frozen=True):
    """worker: one, by name; all without it.  points: of each life's samples; 0 leaves the lives out."""

    worker: str | None = None
    points: Annotated[int, Meta(ge=0, le=MAX_POINTS)] = 0


class MemoryStep(msgspec.Struct, kw_only=True):
    """A rise that something explains.  time: wall clock.  kind: "lora", "prompt_cache", "kv" and so on."""

    time: float
    bytes: float
    kind: str
    text: str = ""


class MemorySeries(msgspec.Struct, kw_only=True):
    """One series.  Of "descriptors" everything called bytes is a count.

    low, high: the interval of bytes_per_request.  line: (time, value, low, high) along the fit, empty where
    nothing grows.  visible: whether the series could be read at all.
    """

    name: Literal["anon", "file", "dmabuf", "descriptors"]
    verdict: MemoryVerdict
    value: float
    visible: bool = True
    bytes_per_request: float = 0.0
    low: float = 0.0
    high: float = 0.0
    bytes_per_token: float = 0.0
    token_low: float = 0.0
    token_high: float = 0.0
    bytes_per_hour: float = 0.0
    hour_low: float = 0.0
    hour_high: float = 0.0
    explained_by: Literal["requests", "tokens", "time"] | None = None
    grown: float = 0.0
    line: list[tuple[float, float, float, float]] = []
    steps: list[MemoryStep] = []
    reasons: list[str] = []


class MemoryPoint(msgspec.Struct, kw_only=True, array_like=True):
    """One sample, as an array in this order; sizes in bytes.  time: wall clock."""

    time: float
    requests: int
    rss: int
    anon: float
    file: float
    dmabuf: float
    descriptors: int


class MemoryMark(msgspec.Struct, kw_only=True):
    """What may make a process larger for good.  time: wall clock.  kind: "loaded", "lora", "prompt_cache"."""

    time: float
    kind: str
    text: str = ""


class MemoryChange(msgspec.Struct, kw_only=True):
    """The verdict became another one.  time: wall clock."""

    time: float
    verdict: MemoryVerdict


class MemoryLife(msgspec.Struct, kw_only=True):
    """One process of a worker.  ending: why it ended, "recycled: …" among others; "" while it lives.

    marks, verdicts: of this start of rkvisord; a mark that made a series rise is among its steps, too.
    """

    pid: int
    began: float
    ended: float | None
    ending: str
    points: list[MemoryPoint]
    marks: list[MemoryMark] = []
    verdicts: list[MemoryChange] = []


class WorkerMemory(msgspec.Struct, kw_only=True):
    """rss_bytes is what ``ps`` shows; what leaks may be swapped out.  cause: "unknown" where nothing leaks.

    growth: bytes by class of mapping while it grew.  uss_bytes: the last that was taken.  notes: what was not seen.
    limit: what is reached first at this rate, limit_in_s: when; "machine": no memory is free any more.  Where nothing
    grows it is the smallest that was set.  npu_bytes: what the NPU's driver tells, None where it tells nothing.
    """

    name: str
    pid: int
    rss_bytes: int
    swap_bytes: int
    uss_bytes: int | None
    npu_bytes: int | None
    requests: int
    seconds: float
    verdict: MemoryVerdict
    series: list[MemorySeries]
    cause: Literal["runtime", "rkvisor", "unknown"]
    reasons: list[str]
    growth: dict[str, int]
    limit: MemoryLimitKind | None
    limit_bytes: int | None
    limit_in_s: float | None
    notes: list[str]
    lives: list[MemoryLife] = []


class MemoryReport(msgspec.Struct, kw_only=True):
    """Every worker, and rkvisord itself as the row "rkvisord"."""

    workers: list[WorkerMemory]
