"""What may wait for one client: in ZeroMQ's hands (``Pipe``) and in its outbox (``Connection``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from rkvisor.supervisor.front.channel import LARGE_BYTES, PeerFull, PeerGone
from rkvisor.supervisor.front.pipe import Pipe
from rkvisor.supervisor.front.replies import Connection

KB = 1024
SMALL, LARGE, HUGE = b"s" * 200, b"l" * 40 * KB, b"h" * 1024 * KB


@dataclass
class Tracker:
    done: bool = False


@dataclass
class Wire:
    """A frontend and its channel.  sent: sizes, in order.  high_water: messages that it takes."""

    outbox_bytes: int = 64 * KB
    high_water: int = 1000
    is_gone: bool = False
    sent: list[int] = field(default_factory=list)
    trackers: list[Tracker] = field(default_factory=list)
    dropped: list[Connection] = field(default_factory=list)
    waiting: list[Connection] = field(default_factory=list)
    left: list[bytes] = field(default_factory=list)

    @property
    def channel(self) -> Wire:
        return self

    def send(self, parts: Sequence[bytes], *, is_tracked: bool = False) -> Tracker | None:
        if self.is_gone:
            raise PeerGone
        if len(self.sent) >= self.high_water:
            raise PeerFull
        self.sent.append(sum(map(len, parts)))
        if not is_tracked:
            return None
        self.trackers.append(Tracker())
        return self.trackers[-1]

    def gone(self, key: bytes) -> None:
        self.left.append(key)

    def drop_slow(self, connection: Connection) -> None:
        connection.dropped_at_s = 1.0
        self.dropped.append(connection)

    def flush_later(self, connection: Connection) -> None:
        self.waiting.append(connection)


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def pipe(wire: Wire) -> Pipe:
    return Pipe(wire, wire.outbox_bytes)  # type: ignore[arg-type]


@pytest.fixture
def connection(wire: Wire) -> Connection:
    return Connection(wire, b"key", "local")  # type: ignore[arg-type]


def test_small_messages_are_left_to_the_high_water_mark(wire: Wire, pipe: Pipe) -> None:
    for _ in range(wire.high_water):
        pipe.send([b"key", SMALL])
    with pytest.raises(PeerFull):
        pipe.send([b"key", SMALL])
    assert not wire.trackers


def test_large_ones_are_taken_until_more_than_the_bound_has_not_left(wire: Wire, pipe: Pipe) -> None:
    pipe.send([b"key", LARGE])
    pipe.send([b"key", LARGE])
    with pytest.raises(PeerFull):
        pipe.send([b"key", LARGE])
    pipe.send([b"key", SMALL])
    assert wire.sent == [40 * KB + 3, 40 * KB + 3, 203]
    wire.trackers[0].done = True
    pipe.send([b"key", LARGE])
    assert len(wire.sent) == 4


def test_what_counts_is_the_message_and_not_its_largest_frame(wire: Wire, pipe: Pipe) -> None:
    pipe.send([b"x" * (LARGE_BYTES // 2)] * 2)
    pipe.send([b"x" * (LARGE_BYTES // 2 - 1)] * 2)
    assert len(wire.trackers) == 1


def test_one_larger_than_the_bound_is_taken_when_little_else_waits(wire: Wire, pipe: Pipe) -> None:
    pipe.send([HUGE])
    with pytest.raises(PeerFull):
        pipe.send([LARGE])
    wire.trackers[0].done = True
    pipe.send([HUGE])


def test_what_was_not_sent_does_not_count(wire: Wire, pipe: Pipe) -> None:
    wire.high_water = 0
    for _ in range(3):
        with pytest.raises(PeerFull):
            pipe.send([HUGE])
    wire.high_water = 1
    pipe.send([HUGE])


def test_a_client_may_be_owed_more_than_the_bound_in_one_message_behind_another(
    wire: Wire, connection: Connection
) -> None:
    connection.send([HUGE])
    connection.send([HUGE])
    connection.send([SMALL])
    assert (wire.dropped, wire.waiting[-1:]) == ([], [connection])
    wire.trackers[0].done = True
    assert connection.flush()
    assert [len(HUGE), len(HUGE), len(SMALL)] == wire.sent
    assert (len(connection.outbox), connection.outbox_bytes) == (0, 0)


def test_a_client_is_dropped_when_more_than_the_bound_waits_behind_the_next_to_leave(
    wire: Wire, connection: Connection
) -> None:
    for _ in range(3):
        connection.send([LARGE])
    connection.send([LARGE])
    assert not wire.dropped
    connection.send([LARGE])
    assert wire.dropped == [connection]
    connection.send([LARGE])
    assert connection.outbox_bytes == 3 * len(LARGE), "it is sent nothing any more"


def test_order_is_kept_when_some_of_the_outbox_leaves(wire: Wire, connection: Connection) -> None:
    wire.high_water = 2
    for size in (1, 2, 3, 4):
        connection.send([b"x" * size])
    wire.high_water = 3
    assert connection.flush()
    connection.send([b"x" * 5])
    assert not connection.flush()
    wire.high_water = 9
    assert connection.flush()
    assert wire.sent == [1, 2, 3, 4, 5]


def test_who_is_forgiven_is_served_but_what_zeromq_holds_still_counts(wire: Wire, connection: Connection) -> None:
    for _ in range(5):
        connection.send([LARGE])
    assert wire.dropped
    connection.forgive()
    connection.send([LARGE])
    assert wire.sent == [len(LARGE)] * 2
    assert len(connection.outbox) == 1


def test_one_that_left_is_told_to_the_frontend(wire: Wire, connection: Connection) -> None:
    wire.is_gone = True
    connection.send([SMALL])
    assert wire.left == [b"key"]
    connection.keep([SMALL])
    with pytest.raises(PeerGone):
        connection.flush()
