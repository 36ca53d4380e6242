"""A bounded queue, fair between principals and between the connections of one, by priority.  Pure.

Higher priorities go first.  Within one priority, principals take turns, and so do the connections of each, so that a
client with a thousand requests delays another client by one request, not by a thousand.  Items put back
(``push_front``) go before all others: they have waited already, and their clients see a pause.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
Lane = OrderedDict[Hashable, OrderedDict[Hashable, deque[T]]]


class FairQueue(Generic[T]):
    """capacity: items from ``push`` that may wait; ``push_front`` is not bounded by it (they were admitted once)."""

    def __init__(self, capacity: int):
        self.capacity = capacity
        self._front: deque[T] = deque()
        self._lanes: dict[int, Lane[T]] = {}
        self._size = 0

    def __len__(self) -> int:
        return len(self._front) + self._size

    def __iter__(self) -> Iterator[T]:
        yield from self._front
        for priority in sorted(self._lanes, reverse=True):
            for connections in self._lanes[priority].values():
                for items in connections.values():
                    yield from items

    @property
    def is_full(self) -> bool:
        """Whether ``push`` would exceed the capacity."""
        return self._size >= self.capacity

    def push(self, item: T, *, priority: int, principal: Hashable, connection: Hashable) -> None:
        """Let *item* wait behind what its connection already has waiting.  The caller asks ``is_full`` before."""
        lane: Lane[T] = self._lanes.setdefault(priority, OrderedDict())
        lane.setdefault(principal, OrderedDict()).setdefault(connection, deque()).append(item)
        self._size += 1

    def push_front(self, item: T) -> None:
        """Let *item* go before all others, behind what was put back earlier."""
        self._front.append(item)

    def pop(self, is_eligible: Callable[[T], bool] = lambda _: True) -> T | None:
        """The next item, or None where none is eligible.  Only the front lane is searched beyond its first item."""
        for index, item in enumerate(self._front):
            if is_eligible(item):
                del self._front[index]
                return item
        for priority in sorted(self._lanes, reverse=True):
            taken = self._take_turn(self._lanes[priority])
            if taken is not None:
                if not self._lanes[priority]:
                    del self._lanes[priority]
                return taken
        return None

    def _take_turn(self, lane: Lane[T]) -> T | None:
        if not lane:
            return None
        principal, connections = next(iter(lane.items()))
        connection, items = next(iter(connections.items()))
        item = items.popleft()
        self._size -= 1
        connections.move_to_end(connection)
        lane.move_to_end(principal)
        if not items:
            del connections[connection]
        if not connections:
            del lane[principal]
        return item

    def remove(self, item: T) -> bool:
        """Take *item* out, wherever it waits.  Returns whether it was there."""
        if item in self._front:
            self._front.remove(item)
            return True
        for priority, lane in list(self._lanes.items()):
            for principal, connections in list(lane.items()):
                for connection, items in list(connections.items()):
                    if item in items:
                        items.remove(item)
                        self._size -= 1
                        if not items:
                            del connections[connection]
                        if not connections:
                            del lane[principal]
                        if not lane:
                            del self._lanes[priority]
                        return True
        return False
