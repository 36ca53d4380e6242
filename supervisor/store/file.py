"""Opening ``state.db``: its schema, its mode, and what happens to a file that cannot be used.

A damaged file, or one of a newer rkvisor, is moved aside with a warning, its log files with it, and a new one is begun:
state is worth less than service.  Where not even that works, the state lives in memory until the end.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from loguru import logger

from rkvisor.supervisor.store.stamps import Stamp

_STAMP = "wall REAL NOT NULL, boot_id TEXT NOT NULL, boot_s REAL NOT NULL"
_FIRST = (
    f"""CREATE TABLE crashes (number INTEGER PRIMARY KEY, id TEXT NOT NULL, worker TEXT NOT NULL,
        signature TEXT NOT NULL, body BLOB NOT NULL, {_STAMP})""",
    "CREATE INDEX crashes_by_id ON crashes (id)",
    "CREATE INDEX crashes_by_worker ON crashes (worker)",
    f"CREATE TABLE quarantine (digest TEXT PRIMARY KEY, ttl_s REAL NOT NULL, {_STAMP})",
    f"""CREATE TABLE dead_letters (number INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, body BLOB NOT NULL,
        {_STAMP})""",
    f"CREATE TABLE breakers (model TEXT PRIMARY KEY, body BLOB NOT NULL, {_STAMP})",
)
_WISHES = (f"CREATE TABLE wishes (worker TEXT PRIMARY KEY, is_up INTEGER NOT NULL, {_STAMP})",)
_MEMORY = (
    f"""CREATE TABLE memory (number INTEGER PRIMARY KEY, worker TEXT NOT NULL, process TEXT NOT NULL,
        kind TEXT NOT NULL, body BLOB NOT NULL, {_STAMP})""",
)
#: What brings a database of version n to n + 1.  Only ever added to: old files are brought up step by step.
STEPS = (_FIRST, _WISHES, _MEMORY)
VERSION = len(STEPS)
#: Looked at when a file is opened: what lacks one of them, or a stamp in it, is not ours.
_TABLES = ("crashes", "quarantine", "dead_letters", "breakers", "wishes", "memory")


class Unusable(Exception):
    """The file is no database of ours.  aside: what to call it when it is moved."""

    def __init__(self, reason: str, aside: str):
        super().__init__(reason)
        self.aside = aside


def open_or_replace(path: Path, now: Stamp) -> sqlite3.Connection:
    """The database at *path*, made if need be; what cannot be used is moved aside first."""
    try:
        try:
            return _open(path)
        except Unusable as problem:
            kept = _move_aside(path, f"{problem.aside}-{int(now.wall)}")
            logger.warning("{} {}: moved to {}, beginning a new one", path, problem, kept.name)
            return _open(path)
    except (OSError, sqlite3.Error, Unusable) as error:
        logger.warning("cannot keep state in {}: {}; it will be lost when rkvisord ends", path, error)
        return _prepare(sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False))


def _open(path: Path) -> sqlite3.Connection:
    """Raises Unusable, OSError."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)  # the log files get the mode of this one
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    try:
        return _prepare(connection)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise Unusable(f"is damaged ({error})", "damaged") from error
    except Unusable:
        connection.close()
        raise


def _prepare(connection: sqlite3.Connection) -> sqlite3.Connection:
    """Bring a connection's database to ``VERSION``.  Raises Unusable, sqlite3.DatabaseError."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > VERSION:
        raise Unusable(f"is of version {version}, this rkvisord knows {VERSION}", f"version-{version}")
    problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if problem != "ok":
        raise Unusable(f"is damaged ({problem})", "damaged")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA journal_size_limit = 4194304")
    if version < VERSION:
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            for step in STEPS[version:]:
                for statement in step:
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {VERSION}")
    for table in _TABLES:
        connection.execute(f"SELECT wall, boot_id, boot_s FROM {table} LIMIT 1").fetchone()
    return connection


def _move_aside(path: Path, name: str) -> Path:
    """Rename *path* and its log files to ``state.db.NAME…``; a number keeps apart what happened in one second."""
    target = Path(f"{path}.{name}")
    number = 1
    while target.exists():
        number += 1
        target = Path(f"{path}.{name}.{number}")
    for ending in ("", "-wal", "-shm"):
        source = Path(f"{path}{ending}")
        if source.exists():
            source.rename(f"{target}{ending}")
    return target
