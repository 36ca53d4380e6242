"""The statements behind ``database.py``: each takes a connection inside a transaction."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from rkvisor.protocol.crashes import MAX_CRASHES, CrashGroup, CrashReport
from rkvisor.supervisor.store import memory_rows
from rkvisor.supervisor.store.memory_rows import MemoryRow
from rkvisor.supervisor.store.stamps import Stamp, age_s

#: Crash reports and dead letters older than this are thrown away, and so are the oldest beyond ``MAX_CRASHES``.
MAX_AGE_S = 30 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What rkvisord starts with.

    quarantine: digest → seconds that it is still refused.  breakers: model → (state as it was put, its age in seconds).
    groups: of crash reports, by signature.  wishes: worker → whether the operator wants it up.
    memory: samples and marks, oldest first.
    """

    quarantine: dict[bytes, float] = field(default_factory=dict)
    breakers: dict[str, tuple[dict[str, Any], float]] = field(default_factory=dict)
    groups: dict[str, CrashGroup] = field(default_factory=dict)
    wishes: dict[str, bool] = field(default_factory=dict)
    memory: list[MemoryRow] = field(default_factory=list)


def load(db: sqlite3.Connection, now: Stamp, poison_ttl_s: float) -> Snapshot:
    """Prune, then read.  Rows that cannot be read are passed over."""
    prune(db, now)
    memory_rows.prune(db, now)
    quarantine = {}
    for digest, ttl_s, stamp in _stamped(db, "SELECT wall, boot_id, boot_s, digest, ttl_s FROM quarantine"):
        limit_s = min(ttl_s, poison_ttl_s)
        left_s = limit_s - age_s(stamp, now, limit_s)
        if left_s > 0:
            with contextlib.suppress(ValueError):
                quarantine[bytes.fromhex(digest)] = left_s
        else:
            db.execute("DELETE FROM quarantine WHERE digest = ?", (digest,))
    breakers = {}
    for model, body, stamp in _stamped(db, "SELECT wall, boot_id, boot_s, model, body FROM breakers"):
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            breakers[model] = (msgspec.json.decode(body, type=dict[str, Any]), age_s(stamp, now, MAX_AGE_S))
    history = memory_rows.load(db, now)
    wishes = {str(worker): bool(is_up) for worker, is_up in db.execute("SELECT worker, is_up FROM wishes")}
    return Snapshot(quarantine=quarantine, breakers=breakers, groups=_groups(db), wishes=wishes, memory=history)


def _stamped(db: sqlite3.Connection, statement: str) -> Iterator[tuple[Any, Any, Stamp]]:
    for wall, boot_id, boot_s, one, two in db.execute(statement).fetchall():
        yield one, two, Stamp(wall, boot_id, boot_s)


def _groups(db: sqlite3.Connection) -> dict[str, CrashGroup]:
    groups: dict[str, CrashGroup] = {}
    for (body,) in db.execute("SELECT body FROM crashes ORDER BY number"):
        report = decode_crash(body)
        if report is not None:
            add_to_group(groups, report)
    return groups


def decode_crash(body: bytes) -> CrashReport | None:
    """The report in *body*; None where an older rkvisor wrote what this one cannot read."""
    try:
        return msgspec.json.decode(body, type=CrashReport)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def add_to_group(groups: dict[str, CrashGroup], report: CrashReport) -> CrashGroup:
    """Count *report* in; its group becomes the last one.  At most ``MAX_CRASHES`` groups are kept."""
    group = groups.pop(report.signature, None)
    if group is None:
        group = CrashGroup(
            signature=report.signature, class_=report.class_, count=0, first=report.time, last=report.time, workers=[]
        )
    groups[report.signature] = group
    group.count += 1
    group.last, group.class_ = report.time, report.class_
    if report.worker not in group.workers:
        group.workers.append(report.worker)
    while len(groups) > MAX_CRASHES:
        groups.pop(next(iter(groups)))
    return group


def put_crash(db: sqlite3.Connection, stamp: Stamp, id: str, worker: str, signature: str, body: bytes) -> None:
    db.execute(
        "INSERT INTO crashes (id, worker, signature, body, wall, boot_id, boot_s) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (id, worker, signature, body, stamp.wall, stamp.boot_id, stamp.boot_s),
    )


def put_quarantine(db: sqlite3.Connection, stamp: Stamp, digest: bytes, ttl_s: float) -> None:
    db.execute(
        "INSERT OR REPLACE INTO quarantine (digest, ttl_s, wall, boot_id, boot_s) VALUES (?, ?, ?, ?, ?)",
        (digest.hex(), ttl_s, stamp.wall, stamp.boot_id, stamp.boot_s),
    )


def drop_quarantine(db: sqlite3.Connection, digest: bytes) -> None:
    db.execute("DELETE FROM quarantine WHERE digest = ?", (digest.hex(),))


def put_dead_letter(db: sqlite3.Connection, stamp: Stamp, digest: bytes, body: bytes) -> None:
    db.execute(
        "INSERT OR REPLACE INTO dead_letters (digest, body, wall, boot_id, boot_s) VALUES (?, ?, ?, ?, ?)",
        (digest.hex(), body, stamp.wall, stamp.boot_id, stamp.boot_s),
    )


def put_breaker(db: sqlite3.Connection, stamp: Stamp, model: str, state: dict[str, Any]) -> None:
    db.execute(
        "INSERT OR REPLACE INTO breakers (model, body, wall, boot_id, boot_s) VALUES (?, ?, ?, ?, ?)",
        (model, msgspec.json.encode(state), stamp.wall, stamp.boot_id, stamp.boot_s),
    )


def put_wish(db: sqlite3.Connection, stamp: Stamp, worker: str, is_up: bool) -> None:
    db.execute(
        "INSERT OR REPLACE INTO wishes (worker, is_up, wall, boot_id, boot_s) VALUES (?, ?, ?, ?, ?)",
        (worker, is_up, stamp.wall, stamp.boot_id, stamp.boot_s),
    )


def drop_wishes(db: sqlite3.Connection) -> None:
    db.execute("DELETE FROM wishes")


def list_crashes(db: sqlite3.Connection, limit: int, worker: str | None, id: str | None) -> list[bytes]:
    found = db.execute(
        "SELECT body FROM crashes WHERE (?1 IS NULL OR worker = ?1) AND (?2 IS NULL OR substr(id, 1, length(?2)) = ?2)"
        " ORDER BY number DESC LIMIT ?3",
        (worker, id, limit),
    )
    return [bytes(body) for (body,) in found]


def list_dead_letters(db: sqlite3.Connection, prefix: str) -> list[tuple[str, bytes]]:
    found = db.execute(
        "SELECT digest, body FROM dead_letters WHERE substr(digest, 1, length(?1)) = ?1 ORDER BY number DESC", (prefix,)
    )
    return [(digest, bytes(body)) for digest, body in found]


def purge_dead_letters(db: sqlite3.Connection, prefix: str) -> int:
    return db.execute("DELETE FROM dead_letters WHERE substr(digest, 1, length(?1)) = ?1", (prefix,)).rowcount


def prune(db: sqlite3.Connection, now: Stamp) -> None:
    """Throw away what is too old or too much."""
    for table in ("crashes", "dead_letters"):
        old = [
            (number,)
            for number, _, stamp in _stamped(db, f"SELECT wall, boot_id, boot_s, number, NULL FROM {table}")
            if age_s(stamp, now, MAX_AGE_S) >= MAX_AGE_S
        ]
        db.executemany(f"DELETE FROM {table} WHERE number = ?", old)
        db.execute(
            f"DELETE FROM {table} WHERE number <= (SELECT number FROM {table} ORDER BY number DESC LIMIT 1 OFFSET ?)",
            (MAX_CRASHES,),
        )
