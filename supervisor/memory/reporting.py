"""The answer of ``memory.report``: history and judgements as the wire has them.  Pure.

Called in the sampler's thread, where both may be read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from rkvisor.protocol.memory import (
    BLIND_SPOT,
    MemoryChange,
    MemoryLife,
    MemoryMark,
    MemoryPoint,
    MemoryReport,
    MemorySeries,
    MemoryStep,
    WorkerMemory,
)
from rkvisor.supervisor.memory.estimate import Report, SeriesEstimate
from rkvisor.supervisor.memory.history import SUPERVISOR, History, Life
from rkvisor.supervisor.memory.judge import Judgement
from rkvisor.supervisor.memory.limits import Limit, configured
from rkvisor.supervisor.memory.sample import SERIES, Sample, series_of

T = TypeVar("T")


def report(
    history: History,
    judge: Callable[[Life], Judgement],
    limits: Callable[[Life], Sequence[Limit]],
    *,
    worker: str | None,
    points: int,
) -> MemoryReport:
    """Of all workers that have a process, or of *worker* alone.

    judge: what is known of a life.  limits: of one, now.  points: of each life, 0 leaves lives out.
    """
    rows = []
    for name in sorted(history.workers(), key=lambda one: (one == SUPERVISOR, one)):
        life = history.current(name)
        if worker in (None, name) and life is not None and life.last is not None:
            seen = [one for one in history.lives(name) if one.last is not None]
            lives = [_life(one, points) for one in seen] if points else []
            rows.append(_worker(life, life.last, judge(life), limits(life), lives))
    return MemoryReport(workers=rows)


def _worker(
    life: Life, last: Sample, known: Judgement, limits: Sequence[Limit], lives: list[MemoryLife]
) -> WorkerMemory:
    found = known.report
    is_accused = known.standing.verdict in ("suspect", "leaking")
    limit = found.limit if found is not None and found.limit is not None else configured(limits)
    # A standing verdict outlives the estimate that was made when nothing leaked for a moment.
    return WorkerMemory(
        name=life.worker,
        pid=life.pid,
        rss_bytes=last.rss_bytes,
        swap_bytes=last.swap_bytes,
        npu_bytes=last.npu_bytes,
        uss_bytes=next((look.mappings.uss_bytes for look in reversed(life.looks) if look.mappings.uss_bytes), None),
        requests=last.requests,
        seconds=round(last.at_s - life.began_s, 3),
        verdict=known.standing.verdict,
        series=_series(found, last, is_confirmed=known.standing.verdict == "leaking"),
        cause=found.cause if found is not None and is_accused else "unknown",  # type: ignore[arg-type]
        reasons=list(known.attribution.reasons) if is_accused else [],
        growth=dict(known.attribution.growth) if is_accused else {},
        limit=limit.kind if limit is not None else None,
        limit_bytes=limit.bytes if limit is not None else None,
        limit_in_s=round(found.limit_in_s, 1) if found is not None and found.limit_in_s is not None else None,
        notes=_notes(life, last),
        lives=lives,
    )


def _notes(life: Life, last: Sample) -> list[str]:
    notes = []
    if life.is_worker and last.npu_bytes is None:
        notes.append(BLIND_SPOT)
    if last.dmabuf_bytes is None:
        notes.append("dma-buf bytes cannot be read of this process")
    return notes


def _series(found: Report | None, last: Sample, *, is_confirmed: bool) -> list[MemorySeries]:
    if found is None or not found.series:
        return [
            MemorySeries(name=name, verdict="warming_up", value=series_of(last, name), visible=_is_visible(name, last))  # type: ignore[arg-type]
            for name in SERIES
        ]
    shown = [_one(one, last) for one in found.series]
    for one in shown:
        if one.verdict == "leaking" and not is_confirmed:
            one.verdict = "suspect"
    return shown


def _is_visible(name: str, last: Sample) -> bool:
    return name != "dmabuf" or last.dmabuf_bytes is not None


def _one(one: SeriesEstimate, last: Sample) -> MemorySeries:
    wall = last.wall_s - last.at_s
    return MemorySeries(
        name=one.name,  # type: ignore[arg-type]
        verdict=one.verdict,
        value=one.value,
        visible=_is_visible(one.name, last),
        bytes_per_request=one.per_request.value,
        low=one.per_request.low,
        high=one.per_request.high,
        bytes_per_token=one.per_token.value,
        token_low=one.per_token.low,
        token_high=one.per_token.high,
        bytes_per_hour=one.per_hour.value,
        hour_low=one.per_hour.low,
        hour_high=one.per_hour.high,
        explained_by=one.explained_by,  # type: ignore[arg-type]
        grown=one.grown,
        line=[(wall + at_s, value, low, high) for at_s, value, low, high in one.line],
        steps=[
            MemoryStep(time=wall + step.at_s, bytes=step.height, kind=step.kind, text=step.text) for step in one.steps
        ],
        reasons=list(one.reasons),
    )


def _life(life: Life, points: int) -> MemoryLife:
    kept = evenly(life.samples(), points)
    offset = kept[-1].wall_s - kept[-1].at_s if kept else 0.0
    marks = life.marks if kept else ()
    return MemoryLife(
        pid=life.pid,
        began=life.began_s + offset,
        ended=life.ended_s + offset if life.ended_s is not None else None,
        ending=life.ending,
        points=[
            MemoryPoint(
                time=one.wall_s,
                requests=one.requests,
                rss=one.rss_bytes,
                anon=series_of(one, "anon"),
                file=series_of(one, "file"),
                dmabuf=series_of(one, "dmabuf"),
                descriptors=one.descriptors,
            )
            for one in kept
        ],
        marks=[MemoryMark(time=one.at_s + offset, kind=one.kind, text=one.text) for one in marks],
        verdicts=[MemoryChange(time=at_s + offset, verdict=said) for at_s, said in life.verdicts if kept],  # type: ignore[arg-type]
    )


def evenly(items: Sequence[T], most: int) -> list[T]:
    """At most *most* of *items*, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    if most == 1:
        return [items[-1]]
    return [items[index * (len(items) - 1) // (most - 1)] for index in range(most)]
