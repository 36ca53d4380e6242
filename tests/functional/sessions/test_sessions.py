"""A conversation is the same whatever happens to the worker that has it (design §6, the last paragraphs)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from harness.rkvisord import Client, Rkvisord, RpcError
from harness.talk import PROMPTS, kill_workers, open_session, said, talk, turn

pytestmark = pytest.mark.resilience

MODEL = """
[models.demo]
runtime = "sim"
path = "builtin:tiny"
library = "{library}"
workers = 1
faults = true
force_tokens = {forces}
startretries = 100
param = {{ temperature = 0.0, max_new_tokens = 12, max_context_len = 512 }}
"""
#: With history in the KV cache: F2 speaks as F3 does.  Each with and without rkvisor_force_tokens.
KINDS = list(itertools.product(("f3", "f4", "f5"), (True, False)))
#: How the answers end: by the model's limit, by the request's, by a stop string.
ENDINGS = ({}, {"max_new_tokens": 7}, {"stop": ["e"]})
_keys = itertools.count()


@dataclass(frozen=True)
class Place:
    """A server with one worker, and a connection to it."""

    server: Rkvisord
    client: Client


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: f"{kind[0]}-{'forced' if kind[1] else 'muted'}")
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    library, forces = request.param
    models = MODEL.format(library=library, forces=str(forces).lower())
    with Rkvisord(models, supervisor="fault_window_s = 0") as server, server.client() as client:
        yield Place(server, client)


@pytest.mark.parametrize("ending", ENDINGS, ids=["length", "limit", "stop"])
def test_a_worker_that_keeps_a_conversation_is_not_given_it_again(place: Place, ending: dict[str, object]) -> None:
    results = talk(place.client, **ending)
    assert [one["session_restored"] for one in results] == [False] * len(PROMPTS)
    assert said(results) != said([turn(place.client, open_session(place.client), p, **ending) for p in PROMPTS])


@pytest.mark.parametrize("ending", ENDINGS, ids=["length", "limit", "stop"])
def test_a_conversation_is_the_same_when_its_worker_dies_before_every_turn(
    place: Place, ending: dict[str, object]
) -> None:
    def kill(_: int) -> str:
        kill_workers(place.server)
        return ""

    calm, stormy = talk(place.client, **ending), talk(place.client, kill, **ending)
    assert said(stormy) == said(calm)
    assert [one["session_restored"] for one in stormy] == [False, True, True, True]


@pytest.mark.parametrize("ending", ENDINGS, ids=["length", "limit", "stop"])
def test_a_conversation_is_the_same_when_its_worker_dies_within_every_turn(
    place: Place, ending: dict[str, object]
) -> None:
    calm = talk(place.client, **ending)
    cuts = [max(0, len(one["token_ids"]) - 1 - number) for number, one in enumerate(calm)]
    stormy = talk(
        place.client, lambda number: f"[[sim:segv after={cuts[number]} times=1 key=k{next(_keys)}]]", **ending
    )
    assert said(stormy) == said(calm)
    assert [one["resumed"] for one in stormy] == [1, 1, 1, 1]
    assert [one["session_restored"] for one in stormy] == [False, True, True, True]


@pytest.mark.parametrize("ending", ENDINGS, ids=["length", "limit", "stop"])
def test_two_conversations_and_others_share_one_worker_and_do_not_mix(place: Place, ending: dict[str, object]) -> None:
    other = ("one", "two", "three", "four")
    calm = said(talk(place.client, **ending)), said(talk(place.client, prompts=other, **ending))
    alone = place.client.call("rkllm.run", {"model": "demo", "prompt": "tell me", **ending})
    first, second = open_session(place.client), open_session(place.client)
    results: tuple[list[object], list[object]] = ([], [])
    for one, two in zip(PROMPTS, other, strict=True):
        results[0].append(turn(place.client, first, one, **ending))
        between = place.client.call("rkllm.run", {"model": "demo", "prompt": "tell me", **ending})
        assert between["token_ids"] == alone["token_ids"], "the KV cache was not cleared before it"
        results[1].append(turn(place.client, second, two, **ending))
    assert (said(results[0]), said(results[1])) == calm
    assert [one["session_restored"] for one in results[0]] == [False, True, True, True]  # type: ignore[index]


def test_a_conversation_goes_on_where_an_abort_left_it(place: Place) -> None:
    session = open_session(place.client)
    identifier = place.client.send(
        "rkllm.run",
        {"model": "demo", "session": session, "prompt": "[[sim:slow ms=30]]tell me", "stream": True},
    )
    assert place.client.receive()["params"]["seq"] == 0
    place.client.send("rkllm.abort", {"request": identifier})
    aborted = place.client.result(identifier)
    assert aborted["finish_reason"] == "abort"
    assert 0 < len(aborted["token_ids"]) < 12
    calm = turn(place.client, session, "go on")
    assert calm["session_restored"] is False
    history = place.client.call("session.history", {"session": session, "token_ids": True})["turns"]
    assert [one["token_ids"] for one in history] == [aborted["token_ids"], calm["token_ids"]]
    kill_workers(place.server)
    third = turn(place.client, session, "and then?")
    assert third["session_restored"]
    kill_workers(place.server)
    again = turn(place.client, session, "why?")
    assert again["session_restored"]


def test_a_turn_that_failed_is_not_part_of_the_conversation(place: Place) -> None:
    calm = said(talk(place.client, prompts=PROMPTS[:2]))
    session = open_session(place.client)
    first = turn(place.client, session, PROMPTS[0])
    for fault in ("error", "errcb at=prefill"):
        with pytest.raises(RpcError):
            turn(place.client, session, f"[[sim:{fault}]]this fails")
    with pytest.raises(RpcError) as late:
        turn(place.client, session, "[[sim:slow ms=200]]this is late", deadline_ms=100)
    assert late.value.name == "DEADLINE_EXCEEDED"
    assert said([first, turn(place.client, session, PROMPTS[1])]) == calm


def test_what_nobody_waits_for_any_more_is_not_part_of_the_conversation(place: Place) -> None:
    calm = said(talk(place.client, prompts=PROMPTS[:2]))
    session = open_session(place.client)
    first = turn(place.client, session, PROMPTS[0])
    with place.server.client() as leaver:
        leaver.send("rkllm.run", {"model": "demo", "session": session, "prompt": "[[sim:slow ms=50]]x", "stream": True})
        assert leaver.receive()["params"]["seq"] == 0
    assert said([first, turn(place.client, session, PROMPTS[1])]) == calm
    assert len(place.client.call("session.history", {"session": session})["turns"]) == 2


def test_turns_that_come_at_once_are_taken_in_order(place: Place) -> None:
    calm = said(talk(place.client))
    session = open_session(place.client)
    sent = [
        place.client.send("rkllm.run", {"model": "demo", "session": session, "prompt": prompt}) for prompt in PROMPTS
    ]
    answers = {}
    while len(answers) < len(sent):
        message = place.client.receive()
        answers[message["id"]] = message["result"]
    assert said([answers[one] for one in sent]) == calm
