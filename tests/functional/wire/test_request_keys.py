"""``request_key``, deadlines and aborts: who gets which answer, and when a run is ended."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.rkvisord import UNIT_S, Client, Rkvisord, RpcError
from harness.running import ENDLESS, abort, refusal, run, start_stream

pytestmark = pytest.mark.api

#: Prefill takes 200 ms a token.
SLOW = """
name = "slow"
vocab_size = 1024
embedding_size = 64
context = 512
prefill_ms_per_token = 200.0
token_ms = 20.0
"""
MODELS = """
[models.demo]
runtime = "sim"
path = "builtin:tiny"
workers = 2
faults = true
[models.slow]
runtime = "sim"
path = "{folder}/slow.toml"
workers = 2
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Rkvisord]:
    with tempfile.TemporaryDirectory(prefix="rkv") as folder:
        (Path(folder) / "slow.toml").write_text(SLOW)
        with Rkvisord(MODELS.format(folder=folder)) as server:
            yield server


@pytest.fixture
def client(server: Rkvisord) -> Iterator[Client]:
    with server.client() as client:
        yield client


# request_key.


def test_a_key_runs_once_and_gives_the_same_answer(client: Client) -> None:
    first = run(client, prompt="keyed", request_key="same")
    again = run(client, prompt="keyed", request_key="same")
    assert again == first, "even its times are those of the one run"
    tokens, streamed = client.stream(model="demo", prompt="keyed", max_new_tokens=12, request_key="same")
    assert streamed == first
    assert "".join(token["text"] for token in tokens) == first["text"]
    assert [token["seq"] for token in tokens] == list(range(len(tokens)))


def test_a_key_gives_the_same_answer_to_another_connection(server: Rkvisord, client: Client) -> None:
    first = run(client, prompt="keyed too", request_key="shared")
    with server.client() as other:
        assert run(other, prompt="keyed too", request_key="shared") == first


@pytest.mark.parametrize(
    "change", [{"prompt": "other"}, {"max_new_tokens": 3}, {"temperature": 0.5}, {"stop": ["a"]}, {"retry": "never"}]
)
def test_another_payload_under_a_key_is_a_conflict(client: Client, change: dict[str, Any]) -> None:
    run(client, prompt="mine", request_key=f"conflict {change}")
    assert refusal(client, **{"prompt": "mine", "request_key": f"conflict {change}", **change}).code == -32015


@pytest.mark.parametrize("change", [{"priority": 9}, {"deadline_ms": 60_000}])
def test_hurry_is_not_part_of_a_payload(client: Client, change: dict[str, Any]) -> None:
    first = run(client, prompt="mine", request_key=f"hurry {change}")
    assert run(client, prompt="mine", request_key=f"hurry {change}", **change) == first


def test_an_error_that_asking_again_would_not_mend_is_an_answer_too(client: Client) -> None:
    params = {"prompt": "[[sim:error times=1 key=kept]]x", "request_key": "failed"}
    first, again = refusal(client, **params), refusal(client, **params)
    assert first.name == "RKLLM_DEVICE_ERROR"
    assert again.error == first.error, "it did not run again"
    del params["request_key"]
    assert run(client, **params)["finish_reason"] == "length"


@pytest.mark.parametrize("is_waiting", [False, True], ids=["running", "waiting"])
def test_a_key_whose_request_was_aborted_runs_anew(server: Rkvisord, client: Client, is_waiting: bool) -> None:
    busy = [start_stream(client, f"busy {index}") for index in range(2)] if is_waiting else []
    params = {**ENDLESS, "max_new_tokens": 40, "request_key": f"aborted {is_waiting}"}
    with server.client() as other:
        identifier = other.send("rkllm.run", params)
        assert other.call("rkllm.is_running", {"request": identifier}) == {"is_running": True}
        assert abort(other, identifier)["finish_reason"] == "abort"
        for one in busy:
            abort(client, one)
        assert other.call("rkllm.run", params)["finish_reason"] == "length"


def test_a_running_stream_is_joined_from_its_first_token(server: Rkvisord, client: Client) -> None:
    params = {**ENDLESS, "max_new_tokens": 80, "request_key": "joined", "stream": True}
    identifier = client.send("rkllm.run", params)
    for _ in range(20):
        client.receive()
    with server.client() as other:
        tokens, joined = other.stream(**params)
    assert [token["seq"] for token in tokens] == list(range(len(tokens)))
    assert "".join(token["text"] for token in tokens) == joined["text"]
    assert client.result(identifier) == joined


def test_a_joined_run_goes_on_for_those_who_stay(server: Rkvisord, client: Client) -> None:
    params = {**ENDLESS, "max_new_tokens": 80, "request_key": "left", "stream": True}
    with server.client() as first:
        first.send("rkllm.run", params)
        first.receive()
        identifier = client.send("rkllm.run", params)
        assert client.receive()["params"]["seq"] == 0
    assert client.result(identifier)["finish_reason"] == "length"


def test_a_key_whose_run_was_abandoned_runs_anew(server: Rkvisord, client: Client) -> None:
    params = {**ENDLESS, "max_new_tokens": 60, "request_key": "abandoned"}
    with server.client() as first:
        start_stream(first, **params)
    tokens, result = client.stream(**params)
    assert result["finish_reason"] == "length"
    assert tokens[0]["seq"] == 0
    with server.client() as third:
        assert third.call("rkllm.run", params) == result, "the late end of the abandoned run did not take the key away"


def test_an_abandoned_run_that_ends_late_does_not_take_the_key_from_its_successor(server: Rkvisord) -> None:
    """A prefill cannot be aborted: the abandoned run ends in the middle of the next one under its key."""
    params = {"model": "slow", "tokens": [300] * 4, "max_new_tokens": 60, "request_key": "late"}
    with server.client() as first, server.client() as second, server.client() as third:
        first.send("rkllm.run", params)
        server.wait_until(lambda: second.call("rkllm.is_running")["is_running"])
        first.__exit__()
        time.sleep(0.3 * UNIT_S)
        answered = requests_answered(server)
        early = second.send("rkllm.run", params)
        server.wait_until(lambda: requests_answered(server) > answered, "the abandoned run ended")
        late = third.send("rkllm.run", params)
        assert third.result(late) == second.result(early)


def requests_answered(server: Rkvisord) -> int:
    return sum(worker["requests"] for worker in server.workers())


# Who joined a run, and whose deadline or abort it is.


def test_the_deadline_of_the_first_caller_is_not_that_of_who_joined(server: Rkvisord, client: Client) -> None:
    params = {**ENDLESS, "max_new_tokens": 150, "request_key": "first in a hurry"}
    hurried = client.send("rkllm.run", {**params, "deadline_ms": 300})
    assert client.call("rkllm.is_running", {"request": hurried}) == {"is_running": True}
    with server.client() as other:
        joined = other.send("rkllm.run", params)
        with pytest.raises(RpcError) as caught:
            client.result(hurried)
        result = other.result(joined)
    assert caught.value.name == "DEADLINE_EXCEEDED"
    assert "300 ms" in caught.value.error["message"]
    assert 0 < len(caught.value.error["data"]["token_ids"]) < 150
    assert result["text"].startswith(caught.value.error["data"]["text"])
    assert (result["finish_reason"], len(result["token_ids"])) == ("length", 150)
    assert run(client, **params) == result, "the answer of the run is the key's, not the error of one caller"


def test_who_joined_has_a_deadline_too_and_the_others_go_on(server: Rkvisord, client: Client) -> None:
    params = {**ENDLESS, "max_new_tokens": 150, "request_key": "second in a hurry", "stream": True}
    patient = start_stream(client, **params)
    with server.client() as other:
        hurried = other.send("rkllm.run", {**params, "deadline_ms": 200})
        with pytest.raises(RpcError) as caught:
            other.result(hurried)
        assert caught.value.name == "DEADLINE_EXCEEDED"
        assert "200 ms" in caught.value.error["message"]
        assert not other.call("rkllm.is_running", {"request": hurried})["is_running"]
    assert client.result(patient)["finish_reason"] == "length"


def test_a_run_ends_with_the_deadline_of_its_last_caller(server: Rkvisord, client: Client) -> None:
    params = {**ENDLESS, "request_key": "all in a hurry"}
    first = client.send("rkllm.run", {**params, "deadline_ms": 200})
    with server.client() as other:
        second = other.send("rkllm.run", {**params, "deadline_ms": 600})
        told = []
        for who, identifier in ((client, first), (other, second)):
            with pytest.raises(RpcError) as caught:
                who.result(identifier)
            told.append(caught.value.error)
    assert [one["data"]["name"] for one in told] == ["DEADLINE_EXCEEDED"] * 2
    assert ["600 ms" in one["message"] for one in told] == [False, True]
    server.wait_until(lambda: not client.call("rkllm.is_running")["is_running"], "the run was aborted")


def test_the_deadline_of_a_first_caller_that_left_ends_nothing(server: Rkvisord, client: Client) -> None:
    params = {**ENDLESS, "max_new_tokens": 250, "request_key": "hurried away"}
    with server.client() as first:
        identifier = first.send("rkllm.run", {**params, "deadline_ms": 400})
        assert first.call("rkllm.is_running", {"request": identifier}) == {"is_running": True}
        joined = client.send("rkllm.run", params)
        client.call("system.version")
    assert client.result(joined)["finish_reason"] == "length"


@pytest.mark.parametrize("is_first", [True, False], ids=["the first caller", "one who joined"])
def test_an_abort_by_id_ends_only_the_answer_of_its_caller(server: Rkvisord, client: Client, is_first: bool) -> None:
    params = {**ENDLESS, "max_new_tokens": 200, "request_key": f"shared {is_first}"}
    with server.client() as other:
        leaves, stays = (client, other) if is_first else (other, client)
        ids = {one: start_stream(one, **params) for one in (client, other)}
        ended = abort(leaves, ids[leaves])
        assert (ended["finish_reason"], ended["worker"][:5]) == ("abort", "demo:")
        assert 0 < len(ended["token_ids"]) < 200
        assert leaves.call("rkllm.abort", {"request": ids[leaves]}) == {"aborted": False}
        result = stays.result(ids[stays])
        assert result["finish_reason"] == "length"
        assert result["text"].startswith(ended["text"])


def test_an_abort_by_key_ends_the_run_for_all_and_so_does_one_by_id_of_the_last(
    server: Rkvisord, client: Client
) -> None:
    with server.client() as other:
        ids = {one: start_stream(one, request_key="for all") for one in (client, other)}
        assert other.call("rkllm.abort", {"request_key": "for all"}) == {"aborted": True}
        assert {one.result(ids[one])["finish_reason"] for one in ids} == {"abort"}
        ids = {one: start_stream(one, request_key="one by one") for one in (client, other)}
        for one in ids:
            assert abort(one, ids[one])["finish_reason"] == "abort"
        server.wait_until(lambda: not client.call("rkllm.is_running")["is_running"], "the run was aborted")


# Deadlines.


def test_a_deadline_ends_a_running_request_with_the_text_so_far(server: Rkvisord, client: Client) -> None:
    error = refusal(client, **ENDLESS | {"deadline_ms": 300})
    assert (error.code, error.name) == (-32008, "DEADLINE_EXCEEDED")
    assert error.error["data"]["text"]
    assert len(error.error["data"]["token_ids"]) < 16384
    server.wait_until(lambda: not client.call("rkllm.is_running")["is_running"], "the run was aborted")


def test_a_deadline_counts_the_time_in_the_queue(server: Rkvisord, client: Client) -> None:
    busy = [start_stream(client, f"busy {index}") for index in range(2)]
    with server.client() as other:
        error = refusal(other, prompt="wait", deadline_ms=200)
    assert error.name == "DEADLINE_EXCEEDED"
    assert (error.error["data"]["text"], error.error["data"]["token_ids"]) == ("", [])
    assert client.call("system.status")["models"][0]["queue"] == 0
    for identifier in busy:
        abort(client, identifier)


# Aborts.


def test_an_aborted_request_succeeds_with_the_text_so_far(client: Client) -> None:
    identifier = start_stream(client)
    tokens = [client.receive()["params"] for _ in range(10)]
    result = abort(client, identifier)
    assert result["finish_reason"] == "abort"
    assert "".join(token["text"] for token in tokens) in result["text"]
    assert client.call("rkllm.abort", {"request": identifier}) == {"aborted": False}


def test_a_waiting_request_can_be_aborted(server: Rkvisord, client: Client) -> None:
    busy = [start_stream(client, f"busy {index}") for index in range(2)]
    with server.client() as other:
        identifier = other.send("rkllm.run", {"model": "demo", "prompt": "wait"})
        assert other.call("rkllm.is_running", {"request": identifier}) == {"is_running": True}
        ended = abort(other, identifier)
        assert (ended["finish_reason"], ended["text"]) == ("abort", "")
    for one in busy:
        abort(client, one)


def test_an_abort_by_id_reaches_only_its_own_connection_one_by_key_any(server: Rkvisord, client: Client) -> None:
    start_stream(client, "mine", request_key="abort me")
    with server.client() as other:
        assert other.call("rkllm.abort", {"request": "mine"}) == {"aborted": False}
        assert other.call("rkllm.is_running", {"request": "mine"}) == {"is_running": False}
        assert other.call("rkllm.is_running", {"model": "demo"}) == {"is_running": True}
        assert other.call("rkllm.abort", {"request_key": "abort me"}) == {"aborted": True}
    assert client.result("mine")["finish_reason"] == "abort"


def test_ids_are_told_apart_as_they_were_written(client: Client) -> None:
    client.send_raw(json.dumps({"jsonrpc": "2.0", "id": 5, "method": "rkllm.run", "params": ENDLESS}).encode())
    assert client.call("rkllm.abort", {"request": "5"}) == {"aborted": False}
    assert abort(client, 5)["finish_reason"] == "abort"
