"""``state.db``: what survives a kill of rkvisord (design §8), in SQLite with a write-ahead log.

A thread of its own does all the work; the loop only queues what is to be written and is called back with what was read.
The queue is bounded: when the disk does not follow, the newest is dropped and counted.  What a write was queued for is
on disk after the next commit, some milliseconds later; a kill -9 of rkvisord loses nothing that was committed.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from loguru import logger

from rkvisor.supervisor.rate import Limiter, untold
from rkvisor.supervisor.store import memory_rows, rows
from rkvisor.supervisor.store.file import open_or_replace
from rkvisor.supervisor.store.stamps import Stamp

#: Writes and reads that may wait for the disk.
QUEUE_LENGTH = 10_000
#: The most that one transaction takes.
BATCH = 256
#: Crash reports between two prunings.
PRUNE_EVERY = 100
#: How long a close waits for the disk, seconds.
CLOSE_S = 5.0

T = TypeVar("T")
Action = Callable[[sqlite3.Connection], Any]
Tell = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class _Task:
    """tell: told the result on the loop, after the commit; None where a read failed."""

    action: Action
    tell: Tell | None = None


class Store:
    """path: of the database.  now: makes stamps.  post: runs a callable on the loop (``call_soon_threadsafe``)."""

    def __init__(self, path: Path, now: Callable[[], Stamp], post: Callable[..., Any]):
        self._path = path
        self._now = now
        self._post = post
        self._tasks: queue.Queue[_Task | None] = queue.Queue(QUEUE_LENGTH)
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._connection: sqlite3.Connection | None = None
        self._limiter = Limiter(burst=3, every_s=60.0)
        self._since_prune = 0
        self.dropped = 0

    def load(self, poison_ttl_s: float) -> rows.Snapshot:
        """Open the database and read what rkvisord starts with.  Blocks; called once, before the loop serves.

        poison_ttl_s: the longest that a payload may still be refused.
        """
        self._connection = open_or_replace(self._path, self._now())
        try:
            return rows.load(self._connection, self._now(), poison_ttl_s)
        except sqlite3.Error as error:
            logger.warning("cannot read {}: {}; going on without what was kept", self._path, error)
            return rows.Snapshot()
        finally:
            self._thread.start()

    def _put(self, action: Action, tell: Tell | None = None) -> None:
        try:
            self._tasks.put_nowait(_Task(action, tell))
        except queue.Full:
            self.dropped += 1
            self._warn("full", f"the disk does not follow: {self.dropped} write(s) to {self._path.name} were dropped")
            if tell is not None:
                tell(None)

    # Writes.

    def put_crash(self, id: str, worker: str, signature: str, body: bytes) -> None:
        """Keep a crash report.  body: its JSON text."""
        stamp = self._now()
        self._put(lambda db: rows.put_crash(db, stamp, id, worker, signature, body))
        self._since_prune += 1
        if self._since_prune >= PRUNE_EVERY:
            self._since_prune = 0
            self._put(lambda db: rows.prune(db, stamp))

    def put_quarantine(self, digest: bytes, ttl_s: float) -> None:
        """Refuse *digest* for *ttl_s* seconds from now."""
        stamp = self._now()
        self._put(lambda db: rows.put_quarantine(db, stamp, digest, ttl_s))

    def drop_quarantine(self, digest: bytes) -> None:
        """Let *digest* run again."""
        self._put(lambda db: rows.drop_quarantine(db, digest))

    def put_dead_letter(self, digest: bytes, body: bytes) -> None:
        """Keep a dead letter; a newer one of the same digest takes the place of the older.  body: its JSON text."""
        stamp = self._now()
        self._put(lambda db: rows.put_dead_letter(db, stamp, digest, body))

    def put_breaker(self, model: str, state: dict[str, Any]) -> None:
        """Keep the state of a model's circuit breaker: JSON values, times as ages."""
        stamp = self._now()
        self._put(lambda db: rows.put_breaker(db, stamp, model, state))

    def put_wish(self, worker: str, is_up: bool) -> None:
        """The operator started or stopped *worker*."""
        stamp = self._now()
        self._put(lambda db: rows.put_wish(db, stamp, worker, is_up))

    def drop_wishes(self) -> None:
        """The operator stopped rkvisord: the next start is as configured."""
        self._put(rows.drop_wishes)

    def put_memory(self, worker: str, process: str, kind: str, body: bytes) -> None:
        """Keep a sample, or the end, of the memory of *process*, which fills *worker*.  May be called in any thread."""
        stamp = self._now()
        self._put(lambda db: memory_rows.put(db, stamp, worker, process, kind, body))

    def prune_memory(self) -> None:
        """Thin the history of memory.  May be called in any thread."""
        stamp = self._now()
        self._put(lambda db: memory_rows.prune(db, stamp))

    # Reads and those writes that answer: ``tell`` is called on the loop, with None where the disk failed.

    def list_crashes(self, limit: int, worker: str | None, id: str | None, tell: Callable[[Any], None]) -> None:
        """The JSON texts of crash reports, newest first.  id: or the beginning of one."""
        self._put(lambda db: rows.list_crashes(db, limit, worker, id), tell)

    def list_dead_letters(self, prefix: str, tell: Callable[[Any], None]) -> None:
        """(digest, JSON text) of dead letters, newest first.  prefix: of the digest in hex."""
        self._put(lambda db: rows.list_dead_letters(db, prefix), tell)

    def purge_dead_letters(self, prefix: str, tell: Callable[[Any], None]) -> None:
        """Throw dead letters away; tells their number."""
        self._put(lambda db: rows.purge_dead_letters(db, prefix), tell)

    # The thread.

    def _run(self) -> None:
        is_open = True
        while is_open:
            batch: list[_Task] = []
            task = self._tasks.get()
            while task is not None:
                batch.append(task)
                if len(batch) == BATCH or self._tasks.empty():
                    break
                task = self._tasks.get()
            is_open = task is not None
            self._do(batch)
        assert self._connection is not None
        self._connection.close()

    def _do(self, batch: list[_Task]) -> None:
        """One transaction for all; where it fails, one for each, so that one bad task takes no other along."""
        done = self._transact(batch)
        if done is None and len(batch) > 1:
            for task in batch:
                self._tell([task], self._transact([task]))
        else:
            self._tell(batch, done)

    def _transact(self, batch: list[_Task]) -> list[Any] | None:
        assert self._connection is not None
        try:
            with self._connection as db:  # commits, or rolls back
                db.execute("BEGIN IMMEDIATE")
                return [task.action(db) for task in batch]
        except Exception as error:  # the loop guard: without this thread nothing is kept any more
            self._warn(type(error).__name__, f"cannot write {self._path}: {error}")
            return None

    def _tell(self, batch: list[_Task], results: list[Any] | None) -> None:
        for index, task in enumerate(batch):
            if task.tell is None:
                continue
            try:
                self._post(task.tell, None if results is None else results[index])
            except RuntimeError:  # the loop is closed: nobody waits any more
                return

    def _warn(self, key: str, text: str) -> None:
        suppressed = self._limiter.admit(key, self._now().boot_s)
        if suppressed is not None:
            logger.warning("{}{}", text, untold(suppressed))

    def close(self) -> None:
        """Write what is queued, then close.  Waits ``CLOSE_S`` at most."""
        if self._thread.is_alive():
            try:
                self._tasks.put(None, timeout=CLOSE_S)
            except queue.Full:
                return
            self._thread.join(CLOSE_S)
