"""state.db: what comes back, what is moved aside, what is thrown away (supervisor/store*.py, stamps.py, state.py)."""

from __future__ import annotations

import contextlib
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger

from rkvisor.protocol.crashes import CrashReport
from rkvisor.supervisor.requests.breaker import Breaker, Circuit
from rkvisor.supervisor.store import rows as store_rows
from rkvisor.supervisor.store.database import Store
from rkvisor.supervisor.store.file import STEPS, VERSION, open_or_replace
from rkvisor.supervisor.store.rows import MAX_AGE_S, Snapshot
from rkvisor.supervisor.store.stamps import SANE_WALL, Stamp, age_s
from rkvisor.supervisor.store.state import kept, restored

TODAY = 1_795_000_000.0
TTL_S = 3600.0


class Now:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.stamp = Stamp(TODAY, "boot-1", 1000.0)

    def __call__(self) -> Stamp:
        return self.stamp

    def pass_s(self, seconds: float) -> None:
        self.stamp = Stamp(self.stamp.wall + seconds, self.stamp.boot_id, self.stamp.boot_s + seconds)

    def reboot(self, wall: float) -> None:
        self.stamp = Stamp(wall, self.stamp.boot_id + "'", 5.0)


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def open_store(tmp_path: Path, now: Now) -> Iterator[Callable[[], tuple[Store, Snapshot]]]:
    """Opens state.db, closing the one that was open before."""
    stores: list[Store] = []

    def open_it() -> tuple[Store, Snapshot]:
        for store in stores:
            store.close()
        store = Store(tmp_path / "state.db", now, lambda tell, result: tell(result))
        stores.append(store)
        return store, store.load(TTL_S)

    yield open_it
    for store in stores:
        store.close()


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """What was logged as a warning."""
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), level="WARNING", format="{message}")
    yield lines
    logger.remove(sink)


OpenStore = Callable[[], tuple[Store, Snapshot]]


def read(ask: Callable[..., None], *args: Any) -> Any:
    """The answer of a method of Store that answers later."""
    answered = threading.Event()
    answers: list[Any] = []
    ask(*args, lambda answer: (answers.append(answer), answered.set()))
    assert answered.wait(30)
    return answers[0]


def crash(id: str, worker: str = "demo:0", signature: str = "SIGSEGV a+0x1", time: float = TODAY) -> bytes:
    report = CrashReport(
        id=id,
        worker=worker,
        model="demo",
        pid=1,
        incarnation=1,
        time=time,
        boot_id="b",
        error="e",
        severity="error",
        signature=signature,
        class_="systematic",
    )
    return msgspec.json.encode(report)


def put(store: Store, id: str, worker: str = "demo:0", signature: str = "SIGSEGV a+0x1") -> None:
    store.put_crash(id, worker, signature, crash(id, worker, signature))


def ids(store: Store, limit: int = 1000, worker: str | None = None, id: str | None = None) -> list[str]:
    return [msgspec.json.decode(body)["id"] for body in read(store.list_crashes, limit, worker, id)]


# What comes back.


def test_a_new_store_is_empty_and_nobody_elses(open_store: OpenStore, tmp_path: Path) -> None:
    store, snapshot = open_store()
    assert snapshot == Snapshot()
    put(store, "a")
    assert ids(store) == ["a"]
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name


def test_a_file_that_others_could_read_is_closed_to_them(open_store: OpenStore, tmp_path: Path) -> None:
    (tmp_path / "state.db").touch(mode=0o644)
    open_store()
    assert stat.S_IMODE((tmp_path / "state.db").stat().st_mode) == 0o600


def test_crashes_come_back_newest_first_and_grouped(open_store: OpenStore) -> None:
    store, _ = open_store()
    put(store, "aa1")
    put(store, "aa2", worker="demo:1")
    put(store, "bb1", signature="exit 1")
    store, snapshot = open_store()
    assert ids(store) == ["bb1", "aa2", "aa1"]
    assert ids(store, limit=2) == ["bb1", "aa2"]
    assert ids(store, worker="demo:0") == ["bb1", "aa1"]
    assert ids(store, id="aa") == ["aa2", "aa1"]
    assert ids(store, id="%") == []
    group = snapshot.groups["SIGSEGV a+0x1"]
    assert (group.count, group.workers) == (2, ["demo:0", "demo:1"])
    assert list(snapshot.groups) == ["SIGSEGV a+0x1", "exit 1"]


def test_a_report_of_another_shape_is_passed_over(open_store: OpenStore) -> None:
    store, _ = open_store()
    store.put_crash("old", "demo:0", "s", b'{"id": "old"}')
    put(store, "new")
    _, snapshot = open_store()
    assert [group.count for group in snapshot.groups.values()] == [1]


def test_dead_letters_are_kept_once_a_digest(open_store: OpenStore) -> None:
    store, _ = open_store()
    store.put_dead_letter(b"\xaa" * 32, b"1")
    store.put_dead_letter(b"\xbb" * 32, b"2")
    store.put_dead_letter(b"\xaa" * 32, b"3")
    store, _ = open_store()
    assert read(store.list_dead_letters, "") == [("aa" * 32, b"3"), ("bb" * 32, b"2")]
    assert read(store.list_dead_letters, "bbb") == [("bb" * 32, b"2")]
    assert read(store.purge_dead_letters, "aa") == 1
    assert read(store.purge_dead_letters, "") == 1
    assert read(store.list_dead_letters, "") == []


# Quarantine: ages.


def test_a_payload_is_refused_for_what_was_left(open_store: OpenStore, now: Now) -> None:
    store, _ = open_store()
    store.put_quarantine(b"\1" * 32, TTL_S)
    store.put_quarantine(b"\2" * 32, TTL_S)
    store.drop_quarantine(b"\2" * 32)
    now.pass_s(600)
    _, snapshot = open_store()
    assert snapshot.quarantine == {b"\1" * 32: TTL_S - 600}
    now.pass_s(TTL_S)
    _, snapshot = open_store()
    assert snapshot.quarantine == {}


@pytest.mark.parametrize(
    ("before", "after", "left_s"),
    [
        (TODAY, TODAY + 100, TTL_S - 100),
        (TODAY, 0.0, TTL_S),  # the board boots in 1970: nobody knows, so all of it
        (0.0, TODAY, TTL_S),
        (TODAY, TODAY - 10_000, TTL_S),  # the clock was put back
        (TODAY, TODAY + TTL_S, None),
        (TODAY, TODAY + 1e9, None),
    ],
)
def test_a_reboot_leaves_between_nothing_and_all_of_it(
    open_store: OpenStore, now: Now, before: float, after: float, left_s: float | None
) -> None:
    now.stamp = Stamp(before, "boot-1", 50.0)
    store, _ = open_store()
    store.put_quarantine(b"\1" * 32, TTL_S)
    store.close()
    now.reboot(after)
    _, snapshot = open_store()
    assert snapshot.quarantine == ({} if left_s is None else {b"\1" * 32: left_s})


def test_within_a_boot_a_jump_of_the_wall_clock_means_nothing(open_store: OpenStore, now: Now) -> None:
    now.stamp = Stamp(0.0, "boot-1", 50.0)
    store, _ = open_store()
    store.put_quarantine(b"\1" * 32, TTL_S)
    now.stamp = Stamp(TODAY, "boot-1", 60.0)
    _, snapshot = open_store()
    assert snapshot.quarantine == {b"\1" * 32: TTL_S - 10}


def test_a_shorter_limit_in_the_configuration_holds_for_what_was_stored(tmp_path: Path, now: Now) -> None:
    store = Store(tmp_path / "state.db", now, lambda tell, result: tell(result))
    store.load(TTL_S)
    store.put_quarantine(b"\1" * 32, TTL_S)
    store.close()
    store = Store(tmp_path / "state.db", now, lambda tell, result: tell(result))
    snapshot = store.load(60.0)
    store.close()
    assert snapshot.quarantine == {b"\1" * 32: 60.0}


@given(
    st.builds(Stamp, st.floats(-1e10, 1e10), st.sampled_from(["", "a", "b"]), st.floats(0, 1e7)),
    st.builds(Stamp, st.floats(-1e10, 1e10), st.sampled_from(["", "a", "b"]), st.floats(0, 1e7)),
    st.floats(0, 1e6),
)
def test_an_age_is_never_beyond_its_bounds(then: Stamp, later: Stamp, limit_s: float) -> None:
    assert 0.0 <= age_s(then, later, limit_s) <= limit_s
    if then.wall < SANE_WALL and then.boot_id != later.boot_id:
        assert age_s(then, later, limit_s) == 0.0


# Breakers.


def test_a_breaker_that_was_open_is_open_for_the_rest_of_its_time(open_store: OpenStore, now: Now) -> None:
    opened = Breaker(open_s=30.0, circuit=Circuit.OPEN, failures=3, opened_s=95.0)
    store, _ = open_store()
    store.put_breaker("demo", kept(opened, 100.0))
    now.pass_s(10)
    _, snapshot = open_store()
    again = restored(Breaker(open_s=30.0), *snapshot.breakers["demo"], 1000.0)
    assert again == Breaker(open_s=30.0, circuit=Circuit.OPEN, failures=3, opened_s=985.0)
    assert again.retry_after_s(1000.0) == 15.0


def test_a_breaker_that_was_closed_stays_closed_and_an_old_one_may_probe_at_once() -> None:
    fresh = Breaker(open_s=30.0)
    assert restored(fresh, kept(Breaker(failures=2), 100.0), 1.0, 1000.0) == fresh
    half = kept(Breaker(circuit=Circuit.HALF_OPEN, failures=3, opened_s=0.0, is_probing=True), 100.0)
    again = restored(fresh, half, 1e6, 1000.0)
    assert (again.circuit, again.is_probing, again.retry_after_s(1000.0)) == (Circuit.OPEN, False, 0.0)


# What cannot be used.


@pytest.mark.parametrize("damage", ["noise", "cut", "other", "page", "orphan"])
def test_a_damaged_file_is_moved_aside_with_a_warning(
    open_store: OpenStore, tmp_path: Path, now: Now, warnings: list[str], damage: str
) -> None:
    store, _ = open_store()
    for number in range(50):
        put(store, f"id{number}", signature=f"s{number}")
    store.close()
    path = tmp_path / "state.db"
    whole = path.read_bytes()
    assert len(whole) > 3 * 4096
    match damage:
        case "noise":
            path.write_bytes(b"this was a database once" * 100)
        case "cut":
            path.write_bytes(whole[:6000])
        case "page":
            path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
        case "orphan":  # a page that belongs to nothing: only a check of the whole file sees it
            count = int.from_bytes(whole[28:32], "big") + 1
            path.write_bytes(whole[:28] + count.to_bytes(4, "big") + whole[32:] + bytes(4096))
        case "other":
            path.unlink()
            other = sqlite3.connect(path)
            other.executescript(f"CREATE TABLE crashes (x); PRAGMA user_version = {VERSION}")
            other.close()
    store, snapshot = open_store()
    assert snapshot == Snapshot()
    aside = tmp_path / f"state.db.damaged-{int(TODAY)}"
    assert aside.exists()
    assert any(aside.name in line for line in warnings)
    put(store, "new")
    assert ids(store) == ["new"]


def test_a_file_of_a_newer_rkvisor_is_moved_aside_whole(
    open_store: OpenStore, tmp_path: Path, warnings: list[str]
) -> None:
    path = tmp_path / "state.db"
    newer = sqlite3.connect(path)
    newer.executescript(f"CREATE TABLE future (x); INSERT INTO future VALUES (7); PRAGMA user_version = {VERSION + 1}")
    newer.close()
    store, _ = open_store()
    put(store, "a")
    assert ids(store) == ["a"]
    (aside,) = tmp_path.glob("state.db.version-*")
    assert aside.name == f"state.db.version-{VERSION + 1}-{int(TODAY)}"
    with contextlib.closing(sqlite3.connect(aside)) as db:
        assert db.execute("SELECT x FROM future").fetchone() == (7,)
    assert any(aside.name in line for line in warnings)


def test_two_damaged_files_of_one_second_are_both_kept(open_store: OpenStore, tmp_path: Path) -> None:
    for text in ("first" * 1000, "second" * 1000):
        (tmp_path / "state.db").write_text(text)
        store, _ = open_store()
        store.close()
    kept_aside = {path.read_text()[:5] for path in tmp_path.glob("state.db.damaged-*")}
    assert kept_aside == {"first", "secon"}


def test_where_nothing_can_be_written_state_lives_in_memory(tmp_path: Path, now: Now, warnings: list[str]) -> None:
    store = Store(tmp_path / "missing" / "state.db", now, lambda tell, result: tell(result))
    assert store.load(TTL_S) == Snapshot()
    put(store, "a")
    assert ids(store) == ["a"]
    store.close()
    assert any("cannot keep state" in line for line in warnings)


def test_a_task_that_fails_takes_no_other_along(open_store: OpenStore, warnings: list[str]) -> None:
    store, _ = open_store()
    hold = threading.Event()
    store._put(lambda db: hold.wait(30))  # so that the next ones share a transaction
    put(store, "a")
    store._put(lambda db: db.execute("INSERT INTO nothing VALUES (1)"))
    put(store, "b")
    hold.set()
    assert ids(store) == ["b", "a"]
    assert any("nothing" in line for line in warnings)


def test_a_disk_that_does_not_follow_costs_the_newest_and_no_memory(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch, warnings: list[str]
) -> None:
    monkeypatch.setattr("rkvisor.supervisor.store.database.QUEUE_LENGTH", 3)
    store, _ = open_store()
    held, hold = threading.Event(), threading.Event()
    store._put(lambda db: (held.set(), hold.wait(30)))
    assert held.wait(30)
    for number in range(5):
        put(store, f"id{number}")
    assert store.dropped == 2
    answers: list[Any] = []
    store.list_crashes(10, None, None, answers.append)
    assert answers == [None]  # told at once that there will be no answer
    hold.set()
    store.close()
    store, _ = open_store()
    assert ids(store) == ["id2", "id1", "id0"]
    assert any("dropped" in line for line in warnings)


# What is thrown away.


def test_crashes_are_pruned_by_number(open_store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_rows, "MAX_CRASHES", 10)
    store, _ = open_store()
    for number in range(25):
        put(store, f"id{number}")
    store, snapshot = open_store()
    assert ids(store) == [f"id{number}" for number in range(24, 14, -1)]
    assert snapshot.groups["SIGSEGV a+0x1"].count == 10


def test_crashes_are_pruned_while_rkvisord_runs(open_store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_rows, "MAX_CRASHES", 10)
    monkeypatch.setattr("rkvisor.supervisor.store.database.PRUNE_EVERY", 5)
    store, _ = open_store()
    for number in range(20):
        put(store, f"id{number}")
    assert len(ids(store)) == 10


def test_crashes_are_pruned_by_age_but_not_by_a_clock_that_was_never_set(open_store: OpenStore, now: Now) -> None:
    store, _ = open_store()
    put(store, "old")
    store.put_dead_letter(b"\1" * 32, b"{}")
    now.pass_s(MAX_AGE_S - 10)
    put(store, "young")
    now.pass_s(10)
    store, _ = open_store()
    assert ids(store) == ["young"]
    assert read(store.list_dead_letters, "") == []
    now.reboot(0.0)  # 1970
    store, _ = open_store()
    put(store, "clockless")
    now.reboot(TODAY + 2 * MAX_AGE_S)
    store, _ = open_store()
    assert ids(store) == ["clockless"]


def test_a_connection_is_in_the_promised_modes(tmp_path: Path, now: Now) -> None:
    db = open_or_replace(tmp_path / "state.db", now())
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert db.execute("PRAGMA synchronous").fetchone() == (1,)
    assert db.execute("PRAGMA user_version").fetchone() == (VERSION,)
    db.close()


def test_a_database_of_the_first_version_is_brought_up_and_keeps_what_it_has(
    tmp_path: Path, open_store: Callable[[], tuple[Store, Snapshot]]
) -> None:
    old = sqlite3.connect(tmp_path / "state.db")
    old.executescript(";".join(STEPS[0]) + ";PRAGMA user_version = 1")
    old.execute("INSERT INTO quarantine VALUES ('ab', 1000, ?, 'boot', 0)", (TODAY,))
    old.commit()
    old.close()
    store, snapshot = open_store()
    assert (set(snapshot.quarantine), snapshot.wishes) == ({b"\xab"}, {})
    store.put_wish("demo:0", False)
    store.put_wish("demo:1", True)
    store.close()
    _, snapshot = open_store()
    assert snapshot.wishes == {"demo:0": False, "demo:1": True}


def test_wishes_end_with_a_stop_that_was_asked_for(open_store: Callable[[], tuple[Store, Snapshot]]) -> None:
    store, _ = open_store()
    store.put_wish("demo:0", False)
    store.drop_wishes()
    store.close()
    assert open_store()[1].wishes == {}
