"""``session.*`` over the wire: what belongs to a session, its limits, its end, and what is refused."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

from harness.places import ROOT
from harness.rkvisord import PATIENCE_S, Client, Rkvisord, RpcError
from harness.talk import PROMPTS, kill_workers, open_session, said, talk, turn

pytestmark = pytest.mark.api

LIMITS = """
[limits]
sessions = 8
session_turns = 5
session_bytes = 65536
session_tokens = 1000
session_idle_s = 600
"""
MODEL = """
[models.{name}]
runtime = "sim"
path = "builtin:tiny"
library = "{library}"
workers = {workers}
faults = true
force_tokens = {forces}
startretries = 100
lora_dir = "lora"
param = {{ temperature = {temperature}, max_new_tokens = 12, max_context_len = {context}{more} }}
"""
_keys = itertools.count()


def model(name: str = "demo", library: str = "f5", **more: Any) -> str:
    usual = {"workers": 1, "forces": "true", "temperature": "0.0", "context": 512, "more": ""}
    return MODEL.format(name=name, library=library, **{**usual, **more})


MODELS = LIMITS + "".join(
    (
        model(),
        model("pair", workers=2),
        model("vendor", forces="false", temperature="0.8"),
        model("small", context=64),
        model("batched", more=", n_batch = 2"),
        model("f1", library="f1"),
        model("f3", library="f3"),
        model("f4", library="f4"),
    )
)


@pytest.fixture(scope="module")
def server() -> Iterator[Rkvisord]:
    with Rkvisord(MODELS, supervisor="fault_window_s = 0", listen=LISTEN) as running:
        (running.folder / "lora").mkdir()
        (running.folder / "lora" / "a.bin").write_bytes(b"lora")
        yield running


LISTEN = 'clients = ["ipc://run/client.sock"]\nevents = ["ipc://run/events.sock"]'


@pytest.fixture
def client(server: Rkvisord) -> Iterator[Client]:
    with server.client() as connected:
        yield connected
        for one in connected.call("session.list")["sessions"]:
            connected.call("session.close", {"session": one["session"]})


def refused(client: Client, method: str, params: dict[str, Any]) -> RpcError:
    with pytest.raises(RpcError) as caught:
        client.call(method, params)
    return caught.value


def refusal(client: Client, session: str, prompt: str = "go on", **params: Any) -> RpcError:
    with pytest.raises(RpcError) as caught:
        turn(client, session, prompt, **params)
    return caught.value


# What is told of a session.


def test_the_history_has_every_turn_as_it_was_answered(client: Client) -> None:
    session = open_session(client)
    results = [turn(client, session, prompt, role="user") for prompt in PROMPTS]
    history = client.call("session.history", {"session": session, "token_ids": True})
    assert [(one["prompt"], one["text"], one["token_ids"], one["role"]) for one in history["turns"]] == [
        (prompt, result["text"], result["token_ids"], "user") for prompt, result in zip(PROMPTS, results, strict=True)
    ]
    assert (history["state"], history["lost_because"], history["session"]) == ("idle", None, session)
    assert "token_ids" not in client.call("session.history", {"session": session})["turns"][0]
    assert [result["session"] for result in results] == [session] * 4


def test_the_list_tells_who_has_it_and_how_much_it_is(client: Client) -> None:
    session = open_session(client, "pair", idle_timeout_s=60, max_turns=3)
    (fresh,) = client.call("session.list")["sessions"]
    assert (fresh["turns"], fresh["worker"], fresh["state"]) == (0, None, "idle")
    result = turn(client, session, "hi", "pair")
    (entry,) = client.call("session.list")["sessions"]
    assert entry["worker"] == result["worker"]
    assert (entry["model"], entry["turns"], entry["tokens"]) == ("pair", 1, len(result["token_ids"]))
    assert (entry["idle_timeout_s"], entry["restored"], entry["waiting"]) == (60, 0, 0)
    assert 0 < entry["bytes"] < 4096


def test_a_result_outside_of_a_session_says_nothing_of_one(client: Client) -> None:
    result = client.call("rkllm.run", {"model": "demo", "prompt": "hi"})
    assert "session" not in result
    assert "session_restored" not in result


# Where it runs.


def test_with_a_worker_for_each_no_conversation_is_restored_and_others_leave_them_alone(client: Client) -> None:
    session = open_session(client, "pair")
    results = []
    for prompt in PROMPTS:
        results.append(turn(client, session, prompt, "pair"))
        assert client.call("rkllm.run", {"model": "pair", "prompt": "hi"})["worker"] != results[0]["worker"]
    assert {one["worker"] for one in results} == {results[0]["worker"]}
    assert not any(one["session_restored"] for one in results)


def test_a_conversation_moves_when_others_need_both_workers(client: Client) -> None:
    calm = said(talk(client))
    sessions = [open_session(client, "pair") for _ in range(3)]
    results: list[list[Any]] = [[], [], []]
    for prompt in PROMPTS:
        for number, session in enumerate(sessions):
            results[number].append(turn(client, session, prompt, "pair"))
    assert [said(one) for one in results] == [calm] * 3
    assert any(one["session_restored"] for result in results for one in result)


def test_what_configures_the_model_or_clears_its_cache_costs_a_replay_and_no_turn(client: Client) -> None:
    calm = said(talk(client))
    session = open_session(client)
    results = []
    for prompt in PROMPTS:
        client.call("rkllm.clear_kv_cache", {"model": "demo"})
        results.append(turn(client, session, prompt))
    assert said(results) == calm
    assert [one["session_restored"] for one in results] == [False, True, True, True]


def test_asking_for_the_size_of_the_cache_costs_nothing(client: Client) -> None:
    session = open_session(client)
    turn(client, session, "tell me")
    before = client.call("rkllm.get_kv_cache_size", {"model": "demo"})["workers"]["demo:0"][0]
    assert turn(client, session, "go on")["session_restored"] is False
    after = client.call("rkllm.get_kv_cache_size", {"model": "demo"})["workers"]["demo:0"][0]
    assert after > before > 0


def test_watchers_hear_of_a_restored_conversation_and_why(server: Rkvisord, client: Client) -> None:
    watcher = zmq.Context.instance().socket(zmq.SUB)
    watcher.connect(f"ipc://{server.folder}/run/events.sock")
    watcher.subscribe(b"session")
    session = open_session(client)
    turn(client, session, "tell me")
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:  # until the subscription has arrived
        client.call("rkllm.run", {"model": "demo", "prompt": "x"})
        if len(client.call("session.history", {"session": session})["turns"]) < 4:
            turn(client, session, "go on")
        if watcher.poll(100):
            break
    event = watcher.recv_multipart()
    watcher.close(0)
    assert event[0] == b"session"
    assert b'"event":"session.restored"' in event[1]
    assert b'"reason":"evicted"' in event[1]


@pytest.mark.parametrize("name", ["f1", "f3", "f4", "demo"])
def test_a_run_without_a_session_knows_nothing_of_what_ran_before(client: Client, name: str) -> None:
    alone = client.call("rkllm.run", {"model": name, "prompt": "tell me"})
    if name != "f1":
        turn(client, open_session(client, name), "something else", name)
    client.call("rkllm.run", {"model": name, "prompt": "another"})
    assert client.call("rkllm.run", {"model": name, "prompt": "tell me"})["token_ids"] == alone["token_ids"]


# What belongs to it.

TEMPLATE = {"system_prompt": "You are a pirate.", "prompt_prefix": "<", "prompt_postfix": ">"}
TOOLS = {"system_prompt": "Use tools.", "tools": "[1]", "tool_response": "<r>"}


@pytest.mark.parametrize("opened", [{"chat_template": TEMPLATE}, {"function_tools": TOOLS}, {"lora": "a"}], ids=str)
def test_what_is_set_for_a_session_counts_there_and_nowhere_else(client: Client, opened: dict[str, Any]) -> None:
    if "lora" in opened and "a" not in _loaded:
        client.call("rkllm.load_lora", {"model": "demo", "path": "a.bin", "name": "a"})
        _loaded.add("a")
    plain, alone = said(talk(client)), client.call("rkllm.run", {"model": "demo", "prompt": "tell me"})["text"]
    special = said(talk(client, opened=opened))
    assert special != plain
    both = open_session(client), open_session(client, **opened)
    results: tuple[list[Any], list[Any]] = ([], [])
    for prompt in PROMPTS:
        for session, said_there in zip(both, results, strict=True):
            said_there.append(turn(client, session, prompt))
            assert client.call("rkllm.run", {"model": "demo", "prompt": "tell me"})["text"] == alone
    assert (said(results[0]), said(results[1])) == (plain, special)


_loaded: set[str] = set()


def test_what_is_set_for_a_session_is_set_again_on_the_next_worker(server: Rkvisord, client: Client) -> None:
    opened = {"chat_template": TEMPLATE, "function_tools": TOOLS}
    calm = said(talk(client, opened=opened))

    def kill(_: int) -> str:
        kill_workers(server)
        return ""

    assert said(talk(client, kill, opened=opened)) == calm


def test_a_session_s_template_gives_way_to_the_model_s_own_setting(client: Client) -> None:
    """Where the model has a template of its own, a session's is replaced by it instead of by a reload."""
    wide = {"system_prompt": "", "prompt_prefix": "[", "prompt_postfix": "]"}
    client.call("rkllm.set_chat_template", {"model": "f4", **wide})
    alone = client.call("rkllm.run", {"model": "f4", "prompt": "tell me"})["text"]
    session = open_session(client, "f4", chat_template=TEMPLATE, function_tools=TOOLS)
    first = turn(client, session, "tell me", "f4")
    assert first["text"] != alone
    assert client.call("rkllm.run", {"model": "f4", "prompt": "tell me"})["text"] == alone
    assert turn(client, session, "go on", "f4")["session_restored"] is True


# Its limits and its end.


def test_a_principal_has_a_limited_number_of_sessions(client: Client) -> None:
    sessions = [open_session(client) for _ in range(8)]
    error = refused(client, "session.open", {"model": "demo"})
    assert error.name == "RATE_LIMITED"
    assert "[limits] sessions" in str(error)
    client.call("session.close", {"session": sessions[0]})
    open_session(client)


@pytest.mark.parametrize("opened", [{"max_turns": 2}, {}])
def test_a_session_has_a_limited_number_of_turns(client: Client, opened: dict[str, int]) -> None:
    session = open_session(client, **opened)
    for number in range(opened.get("max_turns", 5)):
        turn(client, session, f"turn {number}")
    error = refusal(client, session)
    assert error.name == "TOO_LARGE"
    assert "session_turns" in str(error)
    assert client.call("session.history", {"session": session})["turns"]


def test_a_history_has_a_limited_size(client: Client) -> None:
    session = open_session(client)
    stops = [f"{number}" + "#" * 1000 for number in range(16)]  # params are kept with the turn, for its replay
    for _ in range(4):
        turn(client, session, "go on", stop=stops, max_new_tokens=1)
    error = refusal(client, session)
    assert error.name == "TOO_LARGE"
    assert "session_bytes" in str(error)


def test_an_unused_session_expires_and_says_so(server: Rkvisord, client: Client) -> None:
    session = open_session(client, idle_timeout_s=0.2)
    server.wait_until(lambda: not client.call("session.list")["sessions"], "its expiry")
    error = refusal(client, session)
    assert (error.code, error.error["data"]["reason"]) == (-32013, "expired")


def test_a_session_in_use_does_not_expire(client: Client) -> None:
    session = open_session(client, idle_timeout_s=0.2)
    slow = turn(client, session, "[[sim:slow ms=60]]tell me")
    assert len(slow["token_ids"]) == 12


def test_a_closed_session_is_closed_for_what_waits_in_it_too(client: Client) -> None:
    session = open_session(client)
    sent = [
        client.send("rkllm.run", {"model": "demo", "session": session, "prompt": f"[[sim:slow ms=50]]{n}"})
        for n in range(3)
    ]
    closing = client.send("session.close", {"session": session})
    answers: dict[Any, Any] = {}
    while len(answers) < 4:
        message = client.receive()
        answers[message["id"]] = message["result"]
    assert answers[closing] == {"closed": True}
    assert [answers[one]["finish_reason"] for one in sent] == ["abort"] * 3
    assert client.call("session.close", {"session": session}) == {"closed": False}
    assert refusal(client, session).error["data"]["reason"] == "closed"
    assert refused(client, "session.history", {"session": session}).name == "SESSION_LOST"


# SESSION_LOST.


def test_a_sampled_conversation_cannot_be_restored_without_forced_tokens(client: Client) -> None:
    session = open_session(client, "vendor")
    first = turn(client, session, "tell me", "vendor")
    assert turn(client, session, "go on", "vendor")["session_restored"] is False
    client.call("rkllm.run", {"model": "vendor", "prompt": "x"})
    error = refusal(client, session, "and then?", model="vendor")
    data = error.error["data"]
    assert (error.code, data["name"], data["reason"], data["retryable"]) == (-32013, "SESSION_LOST", "sampled", False)
    assert "session.history" in str(error)
    assert "temperature 0" in str(error)
    assert data["history"][0]["text"] == first["text"]
    history = client.call("session.history", {"session": session})
    assert (history["state"], history["lost_because"], len(history["turns"])) == ("lost", "sampled", 2)
    assert refusal(client, session, model="vendor").error["data"]["reason"] == "sampled"


def test_a_client_may_choose_to_be_told_instead_of_a_replay(server: Rkvisord, client: Client) -> None:
    session = open_session(client, on_lost="lost")
    turn(client, session, f"[[sim:segv after=3 times=1 key=k{next(_keys)}]]tell me")  # nothing to lose yet
    assert turn(client, session, "go on")["session_restored"] is False
    kill_workers(server)
    error = refusal(client, session)
    assert error.error["data"]["reason"] == "evicted"
    assert len(error.error["data"]["history"]) == 2


def test_a_prompt_that_does_not_fit_behind_the_history_leaves_the_conversation_as_it_was(client: Client) -> None:
    session = open_session(client, "small")
    turn(client, session, "tell me", "small", max_new_tokens=2)
    error = refusal(client, session, "far too much " * 20, model="small")
    data = error.error["data"]
    assert (error.code, data["reason"], data["session_state"]) == (-32013, "context", "idle")
    assert turn(client, session, "ok", "small", max_new_tokens=2)["finish_reason"] == "length"


def test_a_conversation_that_filled_the_context_is_over(client: Client) -> None:
    session = open_session(client, "small")
    results = []
    while not results or results[-1]["finish_reason"] != "context":
        results.append(turn(client, session, "one two three", "small"))
    error = refusal(client, session, "b", model="small")
    assert error.error["data"]["reason"] == "context"
    assert len(client.call("session.history", {"session": session})["turns"]) == len(results)


def test_a_new_rkvisord_says_that_it_is_new() -> None:
    with Rkvisord(model()) as server, server.client() as client:
        session = open_session(client)
        turn(client, session, "tell me")
        server.kill()
        server.start()
        error = refusal(client, session)
        assert (error.code, error.error["data"]["reason"]) == (-32013, "restarted")


# Bad input.


@pytest.mark.parametrize(
    ("params", "name"),
    [
        ({"tokens": [1, 2]}, "INVALID_PARAMS"),
        ({"embed": [[0.0] * 64]}, "INVALID_PARAMS"),
        ({"messages": [{"role": "user", "content": "x"}]}, "INVALID_PARAMS"),
        ({"prompts": ["a", "b"]}, "INVALID_PARAMS"),
        ({"prompt": "x", "mode": "hidden"}, "INVALID_PARAMS"),
        ({"prompt": "x", "mode": "logits"}, "INVALID_PARAMS"),
        ({"prompt": "x", "prompt_cache": "c.bin"}, "INVALID_PARAMS"),
        ({"prompt": "x", "model": "pair"}, "INVALID_PARAMS"),
        ({"prompt": "x", "model": "nobody"}, "INVALID_PARAMS"),
        ({"prompt": "x", "session": "s-unknown"}, "SESSION_LOST"),
        ({"prompt": "x", "session": "unknown"}, "SESSION_LOST"),
        ({"prompt": "x", "session": ""}, "SESSION_LOST"),
        ({"prompt": "x", "session": "\u0000" * 5000}, "SESSION_LOST"),
        ({"prompt": "x", "session": 7}, "INVALID_PARAMS"),
    ],
    ids=str,
)
def test_what_is_no_turn_is_refused_and_the_session_lives(client: Client, params: dict[str, Any], name: str) -> None:
    session = open_session(client)
    error = refused(client, "rkllm.run", {"model": "demo", "session": session, **params})
    assert error.name == name
    assert len(str(error)) < 1000
    assert turn(client, session, "hi")["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("params", "name"),
    [
        ({"model": "nobody"}, "INVALID_PARAMS"),
        ({"model": "demo", "on_lost": "cry"}, "INVALID_PARAMS"),
        ({"model": "demo", "idle_timeout_s": 0}, "INVALID_PARAMS"),
        ({"model": "demo", "max_turns": -1}, "INVALID_PARAMS"),
        ({"model": "demo", "chat_template": {"system": "x"}}, "INVALID_PARAMS"),
        ({"model": "demo", "chat_template": {"system_prompt": "a\u0000b"}}, "INVALID_PARAMS"),
        ({"model": "demo", "lora": "a\u0000b"}, "INVALID_PARAMS"),
        ({"model": "batched"}, "NOT_SUPPORTED"),
        ({"model": "f1"}, "NOT_SUPPORTED"),
        ({"model": "f3", "function_tools": TOOLS}, "NOT_SUPPORTED"),
    ],
    ids=str,
)
def test_a_session_that_cannot_be_is_not_opened(client: Client, params: dict[str, Any], name: str) -> None:
    error = refused(client, "session.open", params)
    assert error.name == name
    assert client.call("session.list")["sessions"] == []


def test_a_lora_that_is_not_loaded_is_an_error_of_the_turn(client: Client) -> None:
    session = open_session(client, lora="nobody")
    assert refusal(client, session).code == -32602
    assert turn(client, open_session(client), "hi")["finish_reason"] == "length"


@pytest.mark.parametrize(("name", "column"), [("f1", 1), ("f3", 3), ("f4", 4), ("demo", 5)])
def test_the_page_of_families_says_who_can_hold_a_conversation(client: Client, name: str, column: int) -> None:
    page = (ROOT / "docs" / "reference" / "families.md").read_text(encoding="utf-8")
    (row,) = [line.split(" | ") for line in page.splitlines() if line.startswith("| `session` |")]
    if row[column].strip(" |") == "yes":
        assert turn(client, open_session(client, name), "hi", name)["session_restored"] is False
    else:
        assert refused(client, "session.open", {"model": name}).name == "NOT_SUPPORTED"


def test_where_no_worker_was_loaded_to_be_asked_the_worker_itself_refuses(server: Rkvisord, client: Client) -> None:
    client.call("model.unload", {"model": "f1"})
    session = open_session(client, "f1")
    client.call("model.load", {"model": "f1"})
    assert refusal(client, session, model="f1").name == "NOT_SUPPORTED"
