"""The fair queue, against a reference that says the rule in the slowest and plainest way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rkvisor.supervisor.requests.fairqueue import FairQueue

PRINCIPALS, CONNECTIONS, PRIORITIES = "AB", (1, 2, 3), (0, 5, 9)
PLACES: dict[str, Any] = {
    "priority": st.sampled_from(PRIORITIES),
    "principal": st.sampled_from(PRINCIPALS),
    "connection": st.sampled_from(CONNECTIONS),
}


@dataclass(frozen=True)
class Item:
    number: int
    priority: int
    principal: str
    connection: int


class Reference:
    """waiting: in order of arrival.  Whoever was served longest ago (or came last, among the never served) is next."""

    def __init__(self) -> None:
        self.front: list[Item] = []
        self.waiting: list[Item] = []
        self.ranks: dict[tuple[object, ...], int] = {}
        self.clock = 0

    def push(self, item: Item) -> None:
        for group in self.groups(item):
            if not any(group in self.groups(other) for other in self.waiting):
                self.touch(group)
        self.waiting.append(item)

    @staticmethod
    def groups(item: Item) -> list[tuple[object, ...]]:
        return [(item.priority, item.principal), (item.priority, item.principal, item.connection)]

    def touch(self, group: tuple[object, ...]) -> None:
        self.clock += 1
        self.ranks[group] = self.clock

    def pop(self, is_eligible: Callable[[Item], bool] = lambda _: True) -> Item | None:
        for item in self.front:
            if is_eligible(item):
                self.front.remove(item)
                return item
        if not self.waiting:
            return None
        item = min(
            self.waiting,
            key=lambda one: (-one.priority, *(self.ranks[group] for group in self.groups(one)), one.number),
        )
        self.waiting.remove(item)
        for group in self.groups(item):
            self.touch(group)
        return item


class Queues(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.queue: FairQueue[Item] = FairQueue(capacity=12)
        self.reference = Reference()
        self.number = 0

    def make(self, priority: int, principal: str, connection: int) -> Item:
        self.number += 1
        return Item(self.number, priority, principal, connection)

    @rule(**PLACES)
    def push(self, priority: int, principal: str, connection: int) -> None:
        if self.queue.is_full:
            return
        item = self.make(priority, principal, connection)
        self.queue.push(item, priority=priority, principal=principal, connection=connection)
        self.reference.push(item)

    @rule(**PLACES)
    def put_back(self, priority: int, principal: str, connection: int) -> None:
        item = self.make(priority, principal, connection)
        self.queue.push_front(item)
        self.reference.front.append(item)

    @rule()
    def pop(self) -> None:
        assert self.queue.pop() == self.reference.pop()

    @rule(refused=st.integers(0, 3))
    def pop_what_is_eligible(self, refused: int) -> None:
        def is_eligible(item: Item) -> bool:
            return item.number % 4 != refused

        assert self.queue.pop(is_eligible) == self.reference.pop(is_eligible)

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        known = self.reference.front + self.reference.waiting
        if not known:
            return
        item = data.draw(st.sampled_from(known))
        assert self.queue.remove(item)
        assert not self.queue.remove(item)
        for place in (self.reference.front, self.reference.waiting):
            if item in place:
                place.remove(item)

    @invariant()
    def it_holds_what_was_put_in(self) -> None:
        everything = self.reference.front + self.reference.waiting
        assert len(self.queue) == len(everything)
        assert Counter(self.queue) == Counter(everything)
        assert list(self.queue)[: len(self.reference.front)] == self.reference.front

    @invariant()
    def only_admitted_items_count_against_the_capacity(self) -> None:
        assert self.queue.is_full == (len(self.reference.waiting) >= 12)


class TestQueues(Queues.TestCase):
    settings = settings(max_examples=150, stateful_step_count=50)


@given(st.lists(st.tuples(st.sampled_from("ABCD"), st.sampled_from(CONNECTIONS)), min_size=1, max_size=60))
def test_nobody_waits_for_more_than_one_item_of_each_other_principal_per_item_of_its_own(
    arrivals: list[tuple[str, int]],
) -> None:
    queue: FairQueue[Item] = FairQueue(1000)
    for number, (principal, connection) in enumerate(arrivals):
        item = Item(number, 5, principal, connection)
        queue.push(item, priority=5, principal=principal, connection=connection)
    served: list[str] = []
    while (popped := queue.pop()) is not None:
        served.append(popped.principal)
    for one in set(served):
        turns = [index for index, principal in enumerate(served) if principal == one]
        for before, after in zip([-1, *turns], turns, strict=False):
            between = Counter(served[before + 1 : after])
            assert all(count == 1 for count in between.values())


@given(st.lists(st.sampled_from(PRIORITIES), max_size=40))
def test_a_higher_priority_always_goes_first_and_equals_keep_their_order(priorities: list[int]) -> None:
    queue: FairQueue[Item] = FairQueue(1000)
    items = [Item(number, priority, "A", 1) for number, priority in enumerate(priorities)]
    for item in items:
        queue.push(item, priority=item.priority, principal="A", connection=1)
    popped = [queue.pop() for _ in items]
    assert popped == sorted(items, key=lambda item: (-item.priority, item.number))
    assert queue.pop() is None


def test_one_client_with_many_requests_delays_another_by_one() -> None:
    queue: FairQueue[str] = FairQueue(1000)
    for number in range(100):
        queue.push(f"hog {number}", priority=5, principal="A", connection=1)
    queue.push("guest", priority=5, principal="A", connection=2)
    assert [queue.pop(), queue.pop()] == ["hog 0", "guest"]
