"""What is kept of the samples: every life of every worker, thinned as it grows old, so that memory is bounded.  Pure.

A *life* is that of one process; a worker has one after another.  The newest ``FINE`` samples of a life are kept as they
are; older ones one a minute, then one an hour.  At most ``LIVES`` of a worker are kept, those that ended thinned more.
"""

from __future__ import annotations

import contextlib
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from rkvisor.supervisor.memory.proc import Mappings
from rkvisor.supervisor.memory.sample import Mark, Sample

#: Samples of one life: the newest, then one a minute, then one an hour (two weeks).
FINE, MINUTES, HOURS = 240, 240, 336
#: Lives of one worker, the one that lasts included; and the samples that are kept of one that ended.
LIVES, ENDED = 8, 120
#: Of one life: marks, and looks at its mappings.
MARKS, LOOKS = 64, 16

#: The name under which rkvisord watches itself.
SUPERVISOR = "rkvisord"

_NAMES = tuple(Sample.__dataclass_fields__)
_NONE = -1  # stands for None in a packed sample
_PACK = struct.Struct("<dd" + "q" * (len(_NAMES) - 2))
_OPTIONAL = frozenset(("dmabuf_bytes", "pss_bytes", "uss_bytes", "npu_bytes"))


def pack(sample: Sample) -> bytes:
    """*sample* in a fifth of its memory; also what stands in ``state.db``."""
    values = [getattr(sample, name) for name in _NAMES]
    return _PACK.pack(*(_NONE if value is None else value for value in values))


def unpack(packed: bytes) -> Sample:
    """The inverse of ``pack``.  Raises struct.error for what another version wrote."""
    values = dict(zip(_NAMES, _PACK.unpack(packed), strict=True))
    values["is_idle"] = bool(values["is_idle"])
    for name in _OPTIONAL:
        if values[name] == _NONE:
            values[name] = None
    return Sample(**values)


class Tiers:
    """Packed samples, oldest first, the older the fewer."""

    def __init__(self, fine: int = FINE, minutes: int = MINUTES, hours: int = HOURS):
        self._fine: deque[tuple[float, bytes]] = deque()
        self._minutes: deque[tuple[float, bytes]] = deque()
        self._hours: deque[tuple[float, bytes]] = deque()
        self._limits = (fine, minutes, hours)

    def add(self, sample: Sample) -> None:
        """Keep *sample*, the newest; what is too much for a tier falls into the next, and out of the last."""
        fine, minutes, hours = self._limits
        self._fine.append((sample.at_s, pack(sample)))
        if len(self._fine) > fine:
            _sift(self._minutes, self._fine.popleft(), 60.0)
        if len(self._minutes) > minutes:
            _sift(self._hours, self._minutes.popleft(), 3600.0)
        if len(self._hours) > hours:
            self._hours.popleft()

    def samples(self) -> list[Sample]:
        """All that is kept, oldest first."""
        return [unpack(packed) for tier in (self._hours, self._minutes, self._fine) for _, packed in tier]

    def __len__(self) -> int:
        return len(self._hours) + len(self._minutes) + len(self._fine)

    def shrink(self, most: int) -> None:
        """Keep at most *most*, evenly over its life; no sample is added after it."""
        kept = [*self._hours, *self._minutes, *self._fine]
        if len(kept) > most:
            kept = [kept[index * (len(kept) - 1) // (most - 1)] for index in range(most)]
        self._hours, self._minutes, self._fine = deque(), deque(), deque(kept)


def past(rows: Iterable[tuple[str, str, str, bytes, float]], now_s: float) -> list[Life]:
    """The lives before this start, from (worker, process, kind, body, age in seconds), oldest first."""
    lives: dict[tuple[str, str], Life] = {}
    for worker, process, kind, body, age_s in rows:
        at_s = now_s - age_s
        life = lives.setdefault((worker, process), Life(worker=worker, process=process, pid=0, began_s=at_s))
        if kind == "sample":
            with contextlib.suppress(struct.error):
                life.add(replace(unpack(body), at_s=at_s))
        else:
            life.ending = body.decode(errors="replace")
        life.ended_s = at_s
    for life in lives.values():
        life.tiers.shrink(ENDED)
    return list(lives.values())


def _sift(tier: deque[tuple[float, bytes]], one: tuple[float, bytes], width_s: float) -> None:
    """The last sample of each *width_s* seconds stays."""
    if tier and tier[-1][0] // width_s == one[0] // width_s:
        tier.pop()
    tier.append(one)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a process had at one moment, by class, for ``attribution``.

    descriptors: by kind.  buffers_bytes: held for the runtime by rkvisor's binding.  python_blocks: of Python's own
    allocator.  None: the process has not told.
    """

    at_s: float
    requests: int
    mappings: Mappings
    descriptors: dict[str, int]
    buffers_bytes: int | None = None
    python_blocks: int | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class Life:
    """worker: "demo:0", or "rkvisord".  began_s, ended_s: monotonic; None while it lasts.  ending: why it ended."""

    worker: str
    process: str
    pid: int
    began_s: float
    ended_s: float | None = None
    ending: str = ""
    tiers: Tiers = field(default_factory=Tiers)
    marks: deque[Mark] = field(default_factory=lambda: deque(maxlen=MARKS))
    looks: list[Look] = field(default_factory=list)
    last: Sample | None = None

    @property
    def is_worker(self) -> bool:
        """Whether a runtime lives in it: rkvisord itself is no worker."""
        return self.worker != SUPERVISOR

    def add(self, sample: Sample) -> None:
        """One more sample, the newest."""
        self.last = sample
        self.tiers.add(sample)

    def add_look(self, look: Look) -> None:
        """One more look; the first few and the last ones are kept."""
        self.looks.append(look)
        if len(self.looks) > LOOKS:
            del self.looks[LOOKS // 4]

    def samples(self) -> list[Sample]:
        """All that are kept, oldest first."""
        return self.tiers.samples()

    def end(self, at_s: float, ending: str) -> None:
        """Its process is gone."""
        self.ended_s, self.ending = at_s, ending or self.ending
        self.tiers.shrink(ENDED)
        self.looks.clear()


class History:
    """The lives of all workers, each worker's oldest first."""

    def __init__(self, past: Iterable[Life] = ()):
        self._workers: dict[str, deque[Life]] = {}
        for life in past:
            self.begin(life)

    def begin(self, life: Life) -> None:
        """A process begins to fill a worker."""
        self._workers.setdefault(life.worker, deque(maxlen=LIVES)).append(life)

    def move(self, life: Life, worker: str) -> None:
        """The process of *life* fills *worker* from now on: a standby's does so when it is needed."""
        lives = self._workers.get(life.worker)
        if lives is not None and life in lives:
            lives.remove(life)
            if not lives:
                del self._workers[life.worker]
        life.worker = worker
        self.begin(life)

    def drop(self, worker: str) -> None:
        """Forget *worker*, which there will not be again."""
        self._workers.pop(worker, None)

    def workers(self) -> list[str]:
        """Every worker that has or had a life."""
        return list(self._workers)

    def lives(self, worker: str) -> list[Life]:
        """Oldest first; the last one may last."""
        return list(self._workers.get(worker, ()))

    def current(self, worker: str) -> Life | None:
        """The life that lasts, or None."""
        lives = self._workers.get(worker)
        return lives[-1] if lives and lives[-1].ended_s is None else None

    def lasting(self) -> Iterator[Life]:
        """Every life that lasts."""
        for lives in list(self._workers.values()):
            yield from [life for life in lives if life.ended_s is None]
