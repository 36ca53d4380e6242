"""Sampled conversations on a runtime that cannot be given tokens, Rockchip's: what a death costs, and when."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from harness.rkvisord import Client, Rkvisord, RpcError
from harness.talk import kill_workers, open_session, turn

pytestmark = pytest.mark.resilience

MODEL = """
[models.{name}]
runtime = "sim"
path = "builtin:tiny"
workers = 1
faults = true
force_tokens = false
startretries = 100
param = {{ temperature = {temperature}, max_new_tokens = 12, max_context_len = 512 }}
"""
MODELS = MODEL.format(name="sampled", temperature=0.8) + MODEL.format(name="greedy", temperature=0.0)
_keys = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[Rkvisord]:
    with Rkvisord(MODELS, supervisor="fault_window_s = 0") as running:
        yield running


@pytest.fixture
def client(server: Rkvisord) -> Iterator[Client]:
    with server.client() as connected:
        yield connected


def death(where: str) -> str:
    """A marker: the process dies once."""
    return f"[[sim:segv {where} times=1 key=s{next(_keys)}]]"


def refusal(client: Client, session: str, prompt: str, model: str = "sampled", **params: Any) -> Any:
    """The error of a turn."""
    with pytest.raises(RpcError) as caught:
        turn(client, session, prompt, model, **params)
    return caught.value.error


def standing(client: Client, session: str) -> tuple[str, Any, int]:
    told = client.call("session.history", {"session": session})
    return told["state"], told["lost_because"], len(told["turns"])


def test_a_death_between_two_turns_loses_it_with_the_next(server: Rkvisord, client: Client) -> None:
    session = open_session(client, "sampled")
    turn(client, session, "tell me", "sampled")
    kill_workers(server, "sampled")
    assert standing(client, session) == ("idle", None, 1)
    assert refusal(client, session, "go on")["data"]["reason"] == "sampled"
    assert standing(client, session) == ("lost", "sampled", 1)


def test_a_death_before_the_first_token_of_a_turn_loses_it_at_once(client: Client) -> None:
    session = open_session(client, "sampled")
    first = turn(client, session, "tell me", "sampled")
    error = refusal(client, session, f"{death('at=prefill')}go on")
    assert (error["data"]["name"], error["data"]["reason"]) == ("SESSION_LOST", "sampled")
    assert [one["text"] for one in error["data"]["history"]] == [first["text"]]


def test_a_death_in_an_answer_ends_the_turn_with_its_text_and_the_next_one_finds_it_lost(client: Client) -> None:
    session = open_session(client, "sampled")
    turn(client, session, "tell me", "sampled")
    error = refusal(client, session, f"{death('after=4')}go on")
    assert (error["data"]["name"], error["data"]["retryable"]) == ("WORKER_CRASHED", True)
    assert error["data"]["text"]
    assert standing(client, session) == ("idle", None, 1)
    assert refusal(client, session, "go on")["data"]["reason"] == "sampled"


def test_a_first_turn_has_nothing_to_lose(client: Client) -> None:
    session = open_session(client, "sampled")
    assert refusal(client, session, f"{death('after=4')}tell me")["data"]["name"] == "WORKER_CRASHED"
    assert standing(client, session) == ("idle", None, 0)
    assert turn(client, session, f"{death('at=prefill')}tell me", "sampled")["finish_reason"] == "length"
    assert standing(client, session) == ("idle", None, 1)


def test_one_sampled_turn_among_greedy_ones_loses_it_only_once_it_counts(server: Rkvisord, client: Client) -> None:
    """The temperature of a turn is its own, where the runtime takes that (1.3.0)."""
    session = open_session(client, "greedy")
    turn(client, session, "tell me", "greedy")
    failed = refusal(client, session, f"{death('after=4')}go on", "greedy", temperature=0.8)
    assert failed["data"]["name"] == "WORKER_CRASHED"
    again = turn(client, session, "go on", "greedy", temperature=0.8)
    assert again["session_restored"] is True
    kill_workers(server, "greedy")
    error = refusal(client, session, "and then?", "greedy")
    assert error["data"]["reason"] == "sampled"
    assert "turn 2 was sampled" in error["data"]["detail"]
