"""Conversations with a real model: at temperature 0 they are the same whatever happens to the worker."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from harness.llama import runtime_or_skip
from harness.rkvisord import Client, Rkvisord
from harness.talk import kill_workers, open_session, said, talk, turn

pytestmark = [pytest.mark.llama, pytest.mark.resilience]

QUESTIONS = ("What is the capital of France?", "And of Italy?", "Which of the two is older?")
MODELS = """
[models.demo]
runtime = "llama"
path = "{path}"
spares = 1
startretries = 100
param = {{ temperature = 0.0, max_new_tokens = 16, max_context_len = 512, enabled_cpus_num = 1 }}
[models.warm]
runtime = "llama"
path = "{path}"
spares = 0
param = {{ temperature = 0.8, max_new_tokens = 8, max_context_len = 512, enabled_cpus_num = 1 }}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Rkvisord]:
    with Rkvisord(MODELS.format(path=runtime_or_skip()[1]), supervisor="fault_window_s = 0") as running:
        yield running


@pytest.fixture
def client(server: Rkvisord) -> Iterator[Client]:
    with server.client() as connected:
        yield connected


@pytest.mark.parametrize("ending", [{}, {"stop": ["is"]}, {"max_new_tokens": 3}], ids=["end", "stop", "length"])
def test_a_conversation_is_the_same_with_deaths_and_others_before_its_turns(
    server: Rkvisord, client: Client, ending: dict[str, Any]
) -> None:
    def kill(_: int) -> str:
        kill_workers(server, "demo")
        return ""

    def ask_something_else(_: int) -> str:
        client.call("rkllm.run", {"model": "demo", "prompt": "x", "max_new_tokens": 3})
        return ""

    calm = talk(client, None, QUESTIONS, **ending)
    assert [one["session_restored"] for one in calm] == [False] * 3
    for disturb in (kill, ask_something_else):
        stormy = talk(client, disturb, QUESTIONS, **ending)
        assert said(stormy) == said(calm)
        assert [one["session_restored"] for one in stormy] == [False, True, True]


def test_a_conversation_is_the_same_when_the_worker_dies_within_its_turns(server: Rkvisord, client: Client) -> None:
    def kill(seen: int) -> None:
        if seen == 2:
            os.kill(next(one["pid"] for one in server.workers() if one["name"] == "demo:0"), signal.SIGKILL)

    calm = talk(client, None, QUESTIONS)
    session = open_session(client)
    stormy = [client.stream(kill, model="demo", session=session, prompt=prompt)[1] for prompt in QUESTIONS]
    assert said(stormy) == said(calm)
    assert [one["resumed"] for one in stormy] == [1, 1, 1]


def test_the_model_knows_what_was_said_before(client: Client) -> None:
    results = talk(client, None, QUESTIONS)
    assert "Italy" in results[1]["text"]
    alone = client.call("rkllm.run", {"model": "demo", "prompt": QUESTIONS[1]})
    assert alone["text"] != results[1]["text"]


def test_a_sampled_conversation_is_restored_with_every_token_in_the_cache(server: Rkvisord, client: Client) -> None:
    def size() -> int:
        return int(client.call("rkllm.get_kv_cache_size", {"model": "warm"})["workers"]["warm:0"][0])

    session = open_session(client, "warm")
    first = [turn(client, session, prompt, "warm") for prompt in QUESTIONS]
    held = size()
    kill_workers(server, "warm")
    last = turn(client, session, "Why?", "warm")
    assert last["session_restored"] is True
    # Behind what was held: the turn's own prompt (perf counts its tokens), its answer, and the token that ended it.
    grown = size() - held - last["perf"]["prefill_tokens"]
    assert grown - len(last["token_ids"]) in (0, 1)
    history = client.call("session.history", {"session": session, "token_ids": True})["turns"]
    assert [one["token_ids"] for one in history] == [one["token_ids"] for one in [*first, last]]


def test_a_session_s_template_counts_for_its_turns_only(client: Client) -> None:
    alone = client.call("rkllm.run", {"model": "demo", "prompt": QUESTIONS[0]})
    opened = {"chat_template": {"system_prompt": "", "prompt_prefix": "Q: ", "prompt_postfix": "\nA:"}}
    special = talk(client, None, QUESTIONS[:2], opened)
    assert special[0]["text"] != alone["text"]
    assert client.call("rkllm.run", {"model": "demo", "prompt": QUESTIONS[0]})["text"] == alone["text"]
    assert said(talk(client, None, QUESTIONS[:2], opened)) == said(special)
