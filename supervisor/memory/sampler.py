"""Samples every process, in a thread of its own: on a timer, and after requests (design §7).

The thread asks *roster* whom to sample, so that nobody has to tell it of births and deaths; it holds the GIL for some
ten microseconds a sample.  A worker is taken as it was when it rested last, which it writes into its page itself: a
worker that never rests for long is sampled as truly as one that does.  Its mappings are looked at rarely, and
thoroughly only while it rests.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import setproctitle
from loguru import logger

from rkvisor.protocol.page import Page, Rest
from rkvisor.supervisor.clock import Clock
from rkvisor.supervisor.memory.history import History, Life, Look
from rkvisor.supervisor.memory.probe import Probe
from rkvisor.supervisor.memory.proc import Descriptors, Mappings, Status
from rkvisor.supervisor.memory.sample import Mark, Sample

#: The name of the thread.
THREAD = "rkvisor-memory"
#: In the name of what waits to become a worker, before its incarnation.
STANDBY = ":standby-"
#: The mappings are looked at when a process is so old, then at twice that age, and so on up to the configured interval.
FIRST_LOOK_S = 1.0
#: A process rests, for a thorough look, when it did nothing for so long, seconds.
QUIET_S = 0.1
#: A look that is due and finds no rest for so long is a cheap one instead, seconds.
PATIENCE_S = 1.0


@dataclass(frozen=True, slots=True)
class Target:
    """A living process.  worker: what it fills.  process: its name for ever, "epoch:incarnation".  requests: of one
    without a page.  model: path of the file that its runtime may map."""

    worker: str
    process: str
    pid: int
    page: Page | None = None
    requests: int = 0
    model: str = ""


@dataclass(slots=True)
class _Watched:
    probe: Probe
    life: Life
    next_look_s: float
    look_step_s: float = FIRST_LOOK_S
    thorough_s: float = 0.0
    count: int = -1
    is_denied: bool = False
    descriptors: Descriptors = field(default_factory=Descriptors)
    mappings: Mappings | None = None


class Sampler:
    """roster: who lives; called in the thread.  on_sample: told of each new sample, in the thread.

    interval_s: of the timer.  look_interval_s: of looks at the mappings of an old process.
    """

    def __init__(
        self,
        clock: Clock,
        history: History,
        roster: Callable[[], Iterable[Target]],
        on_sample: Callable[[Life, Target, Sample], None],
        *,
        interval_s: float,
        look_interval_s: float,
    ):
        self._clock = clock
        self._history = history
        self._roster = roster
        self._on_sample = on_sample
        self._interval_s = interval_s
        self._look_interval_s = look_interval_s
        self._watched: dict[str, _Watched] = {}
        self._todo: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)

    # From the loop.

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, action: Callable[[], None]) -> None:
        """Let the thread do *action*."""
        self._todo.put(action)

    def rested(self, targets: Sequence[Target]) -> None:
        """Requests of *targets* were done a moment ago: sample them."""
        self._todo.put(lambda: self._sample_all(targets))

    def gone(self, process: str, ending: str, tell: Callable[[Life], None]) -> None:
        """*process* has ended so; *tell*, in the thread, of the life that it had, if it had one."""
        self._todo.put(lambda: self._end(process, ending, tell))

    def close(self) -> None:
        """End the thread; waits for the sample at hand."""
        if self._thread.is_alive():
            self._todo.put(None)
            self._thread.join(5.0)

    # The thread.

    def _run(self) -> None:
        setproctitle.setthreadtitle(THREAD)  # for top -H, and for the bench
        due_s = self._clock.monotonic()
        while True:
            try:
                action = self._todo.get(timeout=max(0.0, due_s - self._clock.monotonic()))
                if action is None:
                    break
            except queue.Empty:
                due_s = self._clock.monotonic() + self._interval_s
                action = self.tick
            try:
                action()
            except Exception as error:  # the loop guard: a process that vanishes half-read must not end the sampling
                logger.warning("cannot sample: {}: {}", type(error).__name__, error)
        for watched in self._watched.values():
            watched.probe.close()

    def tick(self) -> None:
        """Sample everybody, and see who is gone."""
        targets = list(self._roster())
        names = {target.process for target in targets}
        for name in [one for one in self._watched if one not in names]:
            self._forget(name)
        self._sample_all(targets)

    def _forget(self, process: str) -> None:
        watched = self._watched.pop(process)
        watched.probe.close()
        watched.life.end(self._clock.monotonic(), "")
        if STANDBY in watched.life.worker:
            self._history.drop(watched.life.worker)

    def _end(self, process: str, ending: str, tell: Callable[[Life], None]) -> None:
        watched = self._watched.get(process)
        life = watched.life if watched is not None else self._unended(process)
        if watched is not None:
            self._forget(process)
        if life is not None:
            life.ending = ending
            tell(life)

    def _unended(self, process: str) -> Life | None:
        """The life of one that left the roster before it was gone, as the old process of a recycling does."""
        lives = (life for worker in self._history.workers() for life in self._history.lives(worker))
        return next((life for life in lives if life.process == process and not life.ending), None)

    def _end_others(self, worker: str) -> None:
        """Another process fills *worker* now."""
        for life in self._history.lives(worker):
            if life.ended_s is None:
                life.end(self._clock.monotonic(), "")

    def _watch(self, target: Target) -> _Watched | None:
        watched = self._watched.get(target.process)
        if watched is not None:
            if watched.life.worker != target.worker:  # a standby that became a worker
                self._end_others(target.worker)
                self._history.move(watched.life, target.worker)
            return watched
        now_s = self._clock.monotonic()
        for life in self._history.lives(target.worker):
            if life.process == target.process:
                return None  # it ended
        try:
            probe = Probe(target.pid)
        except OSError:
            return None
        life = Life(worker=target.worker, process=target.process, pid=target.pid, began_s=now_s)
        self._end_others(target.worker)
        life.marks.append(Mark(at_s=now_s, kind="loaded"))
        self._history.begin(life)
        self._watched[target.process] = watched = _Watched(probe, life, next_look_s=now_s)
        return watched

    def _sample_all(self, targets: Sequence[Target]) -> None:
        for target in targets:
            self._sample(target)

    def _sample(self, target: Target) -> None:
        watched = self._watch(target)
        if watched is None:
            return
        try:
            sample = self._read(target, watched)
        except PermissionError as error:
            if not watched.is_denied:
                logger.warning("{}: cannot watch the memory of process {}: {}", target.worker, target.pid, error)
                watched.is_denied = True
            return
        except (OSError, ValueError):  # it is gone, or its page is closed
            return
        if sample is not None:
            watched.life.add(sample)
            self._on_sample(watched.life, target, sample)

    def _read(self, target: Target, watched: _Watched) -> Sample | None:
        now_s = self._clock.monotonic()
        before = target.page.rested() if target.page is not None else None
        status = watched.probe.status()
        if status is None:
            return None
        after = target.page.rested() if target.page is not None else None
        if target.page is not None and after is not None:
            status = _at_rest(status, before, after)
        requests = after.served if after is not None else target.requests
        is_fresh = self._look(target, watched, now_s, requests)
        count = watched.probe.count_descriptors()
        if count != watched.count or watched.descriptors.dmabuf_bytes or watched.descriptors.npu_bytes is not None:
            watched.count, watched.descriptors = count, watched.probe.descriptors()
        mappings = watched.mappings
        return Sample(
            at_s=now_s,
            wall_s=self._clock.wall(),
            requests=requests,
            tokens_in=after.tokens_in if after is not None else 0,
            tokens_out=after.tokens_out if after is not None else 0,
            context_tokens=after.context_tokens if after is not None else 0,
            is_idle=after is None or after.rss_bytes > 0 or not after.is_running,
            rss_bytes=status.rss_bytes,
            rss_anon_bytes=status.rss_anon_bytes,
            rss_file_bytes=status.rss_file_bytes,
            rss_shmem_bytes=status.rss_shmem_bytes,
            swap_bytes=status.swap_bytes,
            hwm_bytes=status.hwm_bytes,
            threads=status.threads,
            descriptors=count,
            dmabuf_bytes=watched.descriptors.dmabuf_bytes,
            npu_bytes=watched.descriptors.npu_bytes,
            pss_bytes=mappings.pss_bytes if mappings is not None and is_fresh else None,
            uss_bytes=mappings.uss_bytes if mappings is not None and is_fresh else None,
            model_file_bytes=(mappings.resident_bytes or {}).get("model", 0) if mappings is not None else 0,
        )

    def _look(self, target: Target, watched: _Watched, now_s: float, requests: int) -> bool:
        """Look at the mappings if that is due.  Returns whether a thorough look was taken.

        Where a model file is mapped every look should be thorough: how much of it is resident must be subtracted.
        """
        late_s = now_s - watched.next_look_s
        if late_s < 0:
            return False
        is_wanted = watched.mappings is None or bool((watched.mappings.resident_bytes or {}).get("model"))
        is_thorough = (is_wanted or now_s >= watched.thorough_s) and self._is_quiet(target, now_s)
        if is_wanted and not is_thorough and late_s < PATIENCE_S:
            return False
        found = watched.probe.mappings(target.model, is_thorough=is_thorough)
        watched.next_look_s = now_s + watched.look_step_s
        watched.look_step_s = min(2 * watched.look_step_s, self._look_interval_s)
        if is_thorough:
            watched.mappings, watched.thorough_s = found, now_s + self._look_interval_s
        told = target.page.accounts() if target.page is not None else None
        watched.descriptors = watched.probe.descriptors()
        watched.life.add_look(
            Look(
                at_s=now_s,
                requests=requests,
                mappings=found,
                descriptors=watched.descriptors.kinds,
                buffers_bytes=told.buffers_bytes if told is not None else None,
                python_blocks=told.python_blocks if told is not None else None,
            )
        )
        return is_thorough

    @staticmethod
    def _is_quiet(target: Target, now_s: float) -> bool:
        if target.page is None:
            return True
        return not target.page.rested().is_running and now_s - target.page.progress_s >= QUIET_S


def _at_rest(status: Status, before: Rest | None, after: Rest) -> Status:
    """*status*, read between two looks at the page, as it was when the process rested last."""
    if after.rss_bytes == 0 or (before == after and not after.is_running):
        return status
    return replace(
        status,
        rss_bytes=after.rss_bytes,
        rss_anon_bytes=max(0, after.rss_bytes - after.shared_bytes),
        rss_file_bytes=max(0, after.shared_bytes - status.rss_shmem_bytes),
        rss_shmem_bytes=min(status.rss_shmem_bytes, after.shared_bytes),
    )
