"""What is kept of the samples: every life of every worker, thinned as it grows old, so that memory is bounded.  Pure.

A *life* is that of one process; a worker has one after another.  ``sieve`` says which samples of a life are kept.  At
most ``LIVES`` of a worker are kept, those that ended thinned more.
"""

from __future__ import annotations

import contextlib
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from rkvisor.supervisor.memory.proc import Mappings
from rkvisor.supervisor.memory.sample import Mark, Sample
from rkvisor.supervisor.memory.sieve import Sieve

#: Lives of one worker, the one that lasts included; and the samples that are kept of one that ended.
LIVES, ENDED = 8, 120
#: Of one life: marks, looks at its mappings, and changes of the verdict.
MARKS, LOOKS, CHANGES = 64, 16, 32

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
        life.sieve.shrink(ENDED)
    return list(lives.values())


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
    """worker: "demo:0", or "rkvisord".  began_s, ended_s: monotonic; None while it lasts.  ending: why it ended.

    verdicts: what was said of it since when, monotonic.
    """

    worker: str
    process: str
    pid: int
    began_s: float
    ended_s: float | None = None
    ending: str = ""
    sieve: Sieve[bytes] = field(default_factory=Sieve)
    marks: deque[Mark] = field(default_factory=lambda: deque(maxlen=MARKS))
    looks: list[Look] = field(default_factory=list)
    verdicts: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=CHANGES))
    last: Sample | None = None

    @property
    def is_worker(self) -> bool:
        """Whether a runtime lives in it: rkvisord itself is no worker."""
        return self.worker != SUPERVISOR

    def add(self, sample: Sample) -> None:
        """One more sample, the newest."""
        self.last = sample
        self.sieve.add(sample.at_s, sample.requests, pack(sample))

    def add_look(self, look: Look) -> None:
        """One more look; the first few and the last ones are kept."""
        self.looks.append(look)
        if len(self.looks) > LOOKS:
            del self.looks[LOOKS // 4]

    def samples(self) -> list[Sample]:
        """All that are kept, oldest first."""
        return [unpack(packed) for packed in self.sieve.samples()]

    def end(self, at_s: float, ending: str) -> None:
        """Its process is gone."""
        self.ended_s, self.ending = at_s, ending or self.ending
        self.sieve.shrink(ENDED)
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
