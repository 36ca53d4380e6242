"""The statements of the memory history: each takes a connection inside a transaction."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from rkvisor.supervisor.store.stamps import Stamp, age_s

#: A sample a minute is kept so long; then one an hour, so long (design §7: minutes for hours, hours for weeks).
MINUTES_S, HOURS_S = 6 * 3600.0, 28 * 86_400.0
#: Rows of one worker at most, whatever the clocks say.
MAX_ROWS = 2_000


@dataclass(frozen=True, slots=True)
class MemoryRow:
    """kind: "sample" or "end".  age_s: when it was put, before now."""

    worker: str
    process: str
    kind: str
    body: bytes
    age_s: float


def put(db: sqlite3.Connection, stamp: Stamp, worker: str, process: str, kind: str, body: bytes) -> None:
    db.execute(
        "INSERT INTO memory (worker, process, kind, body, wall, boot_id, boot_s) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (worker, process, kind, body, stamp.wall, stamp.boot_id, stamp.boot_s),
    )


def load(db: sqlite3.Connection, now: Stamp) -> list[MemoryRow]:
    """All that is kept, oldest first."""
    found = db.execute("SELECT worker, process, kind, body, wall, boot_id, boot_s FROM memory ORDER BY number")
    return [
        MemoryRow(worker, process, kind, bytes(body), age_s(Stamp(wall, boot_id, boot_s), now, HOURS_S))
        for worker, process, kind, body, wall, boot_id, boot_s in found
    ]


def prune(db: sqlite3.Connection, now: Stamp) -> None:
    """Thin what is older than ``MINUTES_S`` to one sample an hour of each process; drop what is too old or too much."""
    dropped = []
    hours: set[tuple[str, str, int]] = set()
    counts: dict[str, int] = {}
    rows = db.execute("SELECT number, worker, process, kind, wall, boot_id, boot_s FROM memory ORDER BY number DESC")
    for number, worker, process, kind, wall, boot_id, boot_s in rows:
        age = age_s(Stamp(wall, boot_id, boot_s), now, HOURS_S)
        hour = (worker, process, int(boot_s // 3600))
        is_extra = kind == "sample" and age > MINUTES_S and hour in hours
        if age >= HOURS_S or is_extra or counts.get(worker, 0) >= MAX_ROWS:
            dropped.append((number,))
            continue
        counts[worker] = counts.get(worker, 0) + 1
        if kind == "sample":
            hours.add(hour)
    db.executemany("DELETE FROM memory WHERE number = ?", dropped)
