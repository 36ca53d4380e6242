"""The client's pure core: no socket, no clock."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkvisor.client.dialogue import Dialogue, Phase
from rkvisor.client.errors import CallTimeout, ConnectionLost, NoServer
from rkvisor.client.exchange import Exchange
from rkvisor.client.replies import Progress
from rkvisor.protocol.errors import InvalidParams, QueueFull, TooLarge

RUN = {"model": "demo", "prompt": "hi"}
RESULT = {"text": "ab", "token_ids": [1, 2], "finish_reason": "stop", "perf": None, "worker": "demo:0"}


def dialogue() -> Dialogue:
    return Dialogue("ipc:///x", connect_timeout_s=5.0, reconnect_timeout_s=30.0)


def sent(talk: Dialogue) -> list[dict[str, Any]]:
    """What the shell would send now."""
    messages = [json.loads(message) for message in talk.outgoing]
    talk.outgoing.clear()
    return messages


def say(talk: Dialogue, **message: Any) -> None:
    talk.received(json.dumps({"jsonrpc": "2.0", **message}).encode())


def token(talk: Dialogue, request: int, seq: int, text: str) -> None:
    say(talk, method="rkllm.token", params={"request": request, "seq": seq, "text": text, "token_id": ord(text)})


def greet(talk: Dialogue, epoch: str = "e1") -> list[dict[str, Any]]:
    """Connect and let the server say who it is; what the client sends thereupon."""
    talk.connected(0.0)
    (hello,) = sent(talk)
    assert hello["method"] == "system.version"
    say(talk, id=hello["id"], result={"version": "1", "protocol": "1.0", "node": "n", "epoch": epoch})
    return sent(talk)


def ready() -> Dialogue:
    talk = dialogue()
    greet(talk)
    return talk


def run(talk: Dialogue, key: str | None = "k", **more: Any) -> tuple[Exchange, int]:
    """A run that was sent, and the id it went under."""
    params = {**RUN, "stream": True, **({"request_key": key} if key else {})}
    exchange = talk.ask("rkllm.run", params, now=0.0, **more)
    (message,) = sent(talk)
    assert message["params"] == params
    return exchange, message["id"]


def texts(exchange: Exchange) -> str:
    return "".join(one.text for one in exchange.tokens)


def test_nothing_is_sent_before_the_server_said_who_it_is() -> None:
    talk = dialogue()
    talk.ask("system.status", {}, now=0.0)
    assert sent(talk) == []
    talk.connected(0.0)
    assert [message["method"] for message in sent(talk)] == ["system.version"]
    assert talk.phase is Phase.GREETING
    talk.ask("model.list", {}, now=0.0)
    assert sent(talk) == []


def test_calls_made_before_the_connection_follow_the_greeting_in_their_order() -> None:
    talk = dialogue()
    talk.ask("system.status", {}, now=0.0)
    talk.ask("model.list", {}, now=0.0)
    assert [message["method"] for message in greet(talk)] == ["system.status", "model.list"]
    assert talk.epoch == "e1"


def test_a_server_that_cannot_say_who_it_is_serves_all_the_same() -> None:
    talk = dialogue()
    talk.connected(0.0)
    (hello,) = sent(talk)
    say(talk, id=hello["id"], error={"code": -32601, "message": "no such method"})
    assert talk.phase is Phase.READY
    assert talk.epoch is None


def test_each_answer_reaches_the_call_it_belongs_to() -> None:
    talk = ready()
    first, one = run(talk, "a")
    second, two = run(talk, "b")
    assert talk.take_changed() == [first, second]
    say(talk, id=two, result=RESULT)
    assert (first.is_over, second.is_over) == (False, True)
    say(talk, id=one, error={"code": -32004, "message": "full", "data": {"name": "QUEUE_FULL", "retry_after_ms": 5}})
    assert isinstance(first.error, QueueFull)
    assert first.error.retry_after_ms == 5
    assert talk.take_changed() == [second, first]
    assert talk.take_changed() == []


def test_tokens_and_progress_reach_their_stream() -> None:
    talk = ready()
    exchange, one = run(talk)
    say(talk, method="rkvisor.progress", params={"request": one, "phase": "queued", "queue_position": 2})
    token(talk, one, 0, "a")
    token(talk, one, 1, "b")
    assert exchange.next_note() == Progress(phase="queued", queue_position=2)
    assert exchange.next_note() is None
    assert texts(exchange) == "ab"


def note(talk: Dialogue, identifier: int, phase: str, **more: Any) -> None:
    say(talk, method="rkvisor.progress", params={"request": identifier, "phase": phase, **more})


def test_a_note_stands_between_the_tokens_where_it_came() -> None:
    talk = ready()
    exchange, one = run(talk)
    token(talk, one, 0, "a")
    note(talk, one, "paused", timeout_in_s=300.0)
    note(talk, one, "resumed")
    token(talk, one, 1, "b")
    token(talk, one, 2, "c")
    note(talk, one, "paused", timeout_in_s=300.0)
    came = []
    while exchange.tokens or exchange.notes:
        while (progress := exchange.next_note()) is not None:
            came.append(progress.phase)
        if exchange.tokens:
            came.append(exchange.tokens.popleft().text)
    assert came == ["a", "paused", "resumed", "b", "c", "paused"]


def test_of_a_phase_that_is_said_again_the_last_counts() -> None:
    talk = ready()
    exchange, one = run(talk)
    for left_s in (300.0, 290.0, 280.0):
        note(talk, one, "paused", timeout_in_s=left_s)
    assert [progress.timeout_in_s for _, progress in exchange.notes] == [280.0]
    talk.leave(exchange)
    assert exchange.next_note() is None


def test_a_lost_connection_ends_what_has_no_key_and_keeps_what_has_one() -> None:
    talk = ready()
    status = talk.ask("system.status", {}, now=0.0)
    keyless = talk.ask("rkllm.run", RUN, now=0.0)
    keyed = talk.ask("rkllm.run", {**RUN, "request_key": "k"}, now=0.0)
    talk.disconnected(1.0)
    assert isinstance(status.error, ConnectionLost)
    assert isinstance(keyless.error, ConnectionLost)
    assert not keyed.is_over


@pytest.mark.parametrize("epoch", ["e1", "e2"])
def test_a_stream_goes_on_behind_a_reconnect_without_gap_or_repetition(epoch: str) -> None:
    talk = ready()
    exchange, one = run(talk)
    token(talk, one, 0, "a")
    token(talk, one, 1, "b")
    talk.disconnected(1.0)
    (again,) = greet(talk, epoch)
    assert again["id"] != one
    assert again["params"]["request_key"] == "k"
    for seq, text in enumerate("abc"):
        token(talk, again["id"], seq, text)
    assert texts(exchange) == "abc"
    say(talk, id=again["id"], result=RESULT)
    assert exchange.result is not None
    assert exchange.asks == 2


def test_a_second_disconnect_in_mid_replay_starts_the_replay_anew() -> None:
    talk = ready()
    exchange, one = run(talk)
    for seq, text in enumerate("abc"):
        token(talk, one, seq, text)
    talk.disconnected(1.0)
    (again,) = greet(talk)
    token(talk, again["id"], 0, "a")
    talk.disconnected(2.0)
    (third,) = greet(talk)
    for seq, text in enumerate("abcd"):
        token(talk, third["id"], seq, text)
    assert texts(exchange) == "abcd"


def test_a_stream_that_differs_when_asked_again_is_lost_and_aborted() -> None:
    talk = ready()
    exchange, one = run(talk)
    token(talk, one, 0, "a")
    talk.disconnected(1.0)
    (again,) = greet(talk, "e2")
    token(talk, again["id"], 0, "x")
    assert isinstance(exchange.error, ConnectionLost)
    assert "differs at token 0" in exchange.error.message
    assert texts(exchange) == "a"
    (abort,) = sent(talk)
    assert (abort["method"], abort["params"]) == ("rkllm.abort", {"request": again["id"]})


def test_a_stream_that_ends_earlier_when_asked_again_is_lost() -> None:
    talk = ready()
    exchange, one = run(talk)
    token(talk, one, 0, "a")
    token(talk, one, 1, "b")
    talk.disconnected(1.0)
    (again,) = greet(talk, "e2")
    token(talk, again["id"], 0, "a")
    say(talk, id=again["id"], result=RESULT)
    assert isinstance(exchange.error, ConnectionLost)
    assert "after 1 of 2 tokens" in exchange.error.message


def test_a_missing_token_ends_the_stream_instead_of_leaving_a_gap() -> None:
    talk = ready()
    exchange, one = run(talk)
    token(talk, one, 0, "a")
    token(talk, one, 2, "c")
    assert isinstance(exchange.error, ConnectionLost)
    assert texts(exchange) == "a"


def test_late_messages_of_the_old_connection_are_dropped() -> None:
    talk = ready()
    exchange, one = run(talk)
    talk.disconnected(1.0)
    (again,) = greet(talk, "e2")
    token(talk, one, 0, "x")
    say(talk, id=one, result=RESULT)
    assert not exchange.is_over
    token(talk, again["id"], 0, "a")
    assert texts(exchange) == "a"


def test_what_was_still_to_be_sent_is_not_sent_to_the_next_server() -> None:
    talk = ready()
    talk.ask("rkllm.run", RUN, now=0.0)
    assert len(talk.outgoing) == 1
    talk.disconnected(1.0)
    assert greet(talk) == []


def test_a_connection_made_twice_counts_as_lost_in_between() -> None:
    talk = ready()
    exchange, one = run(talk)
    (again,) = greet(talk)
    assert again["id"] != one
    assert exchange.asks == 2


def test_a_call_that_waits_too_long_raises_and_aborts_the_run() -> None:
    talk = ready()
    exchange, one = run(talk, timeout_s=2.0)
    assert talk.next_deadline == 2.0
    talk.tick(1.9)
    assert not exchange.is_over
    talk.tick(2.0)
    assert isinstance(exchange.error, CallTimeout)
    assert isinstance(exchange.error, TimeoutError)
    assert [message["params"] for message in sent(talk)] == [{"request": one}]
    say(talk, id=one, result=RESULT)
    assert exchange.result is None


def test_a_control_call_that_waits_too_long_aborts_nothing() -> None:
    talk = ready()
    exchange = talk.ask("system.status", {}, now=0.0, timeout_s=2.0)
    sent(talk)
    talk.tick(3.0)
    assert isinstance(exchange.error, CallTimeout)
    assert sent(talk) == []


def test_a_timeout_counts_while_there_is_no_connection() -> None:
    talk = dialogue()
    exchange = talk.ask("rkllm.run", {**RUN, "request_key": "k"}, now=0.0, timeout_s=2.0)
    talk.tick(2.0)
    assert isinstance(exchange.error, CallTimeout)
    assert greet(talk) == []


def test_a_server_that_never_came_is_told_with_the_reason() -> None:
    talk = dialogue()
    exchange = talk.ask("system.status", {}, now=10.0)
    talk.unreachable_because = "connection refused"
    assert talk.next_deadline == 15.0
    talk.tick(14.9)
    assert not exchange.is_over
    talk.tick(15.0)
    assert isinstance(exchange.error, NoServer)
    assert exchange.error.message == "cannot reach rkvisord at ipc:///x: connection refused"


def test_a_server_that_is_connected_but_mute_is_given_up() -> None:
    talk = dialogue()
    exchange = talk.ask("system.status", {}, now=0.0)
    talk.connected(1.0)
    talk.tick(5.0)
    assert isinstance(exchange.error, NoServer)
    assert "does not answer" in exchange.error.message


def test_a_server_that_does_not_come_back_is_given_up_after_the_reconnect_timeout() -> None:
    talk = ready()
    exchange, _ = run(talk)
    talk.disconnected(100.0)
    talk.tick(129.9)
    assert not exchange.is_over
    talk.tick(130.0)
    assert isinstance(exchange.error, ConnectionLost)
    assert not isinstance(exchange.error, NoServer)


def test_without_timeouts_a_call_waits_for_ever() -> None:
    talk = Dialogue("ipc:///x", connect_timeout_s=None, reconnect_timeout_s=None)
    exchange = talk.ask("system.status", {}, now=0.0)
    talk.tick(1e12)
    assert not exchange.is_over
    assert talk.next_deadline == float("inf")


def test_the_next_deadline_is_that_of_the_next_call_after_one_ended() -> None:
    talk = ready()
    run(talk, "a", timeout_s=1.0)
    run(talk, "b", timeout_s=7.0)
    talk.tick(1.0)
    assert talk.next_deadline == 7.0


def test_leaving_a_run_aborts_it_and_drops_what_still_comes() -> None:
    talk = ready()
    exchange, one = run(talk)
    token(talk, one, 0, "a")
    talk.leave(exchange)
    talk.leave(exchange)
    assert [message["method"] for message in sent(talk)] == ["rkllm.abort"]
    token(talk, one, 1, "b")
    say(talk, id=one, result=RESULT)
    assert (exchange.result, list(exchange.tokens)) == (None, [])


def test_leaving_a_call_that_was_never_sent_says_nothing() -> None:
    talk = dialogue()
    exchange = talk.ask("rkllm.run", {**RUN, "request_key": "k"}, now=0.0)
    talk.leave(exchange)
    assert greet(talk) == []


def test_leaving_an_answered_run_aborts_nothing() -> None:
    talk = ready()
    exchange, one = run(talk)
    say(talk, id=one, result=RESULT)
    talk.leave(exchange)
    talk.abort(exchange)
    assert sent(talk) == []


def test_an_aborted_run_still_gets_its_answer() -> None:
    talk = ready()
    exchange, one = run(talk)
    talk.abort(exchange)
    talk.abort(exchange)
    assert [message["params"] for message in sent(talk)] == [{"request": one}]
    say(talk, id=one, result={**RESULT, "finish_reason": "abort"})
    assert exchange.result is not None


def test_an_abort_before_the_connection_follows_the_run_it_means() -> None:
    talk = dialogue()
    exchange = talk.ask("rkllm.run", {**RUN, "request_key": "k"}, now=0.0)
    talk.abort(exchange)
    asked, aborted = greet(talk)
    assert (asked["method"], aborted["method"]) == ("rkllm.run", "rkllm.abort")
    assert aborted["params"] == {"request": asked["id"]}


def test_an_error_without_id_belongs_to_the_only_request_there_is() -> None:
    talk = ready()
    exchange, _ = run(talk)
    say(talk, id=None, error={"code": -32017, "message": "too large", "data": {"name": "TOO_LARGE"}})
    assert isinstance(exchange.error, TooLarge)


def test_an_error_without_id_is_nobodys_where_there_are_several() -> None:
    talk = ready()
    first, _ = run(talk, "a")
    second, _ = run(talk, "b")
    say(talk, id=None, error={"code": -32700, "message": "what?"})
    assert not first.is_over
    assert not second.is_over


def test_closing_ends_every_open_call() -> None:
    talk = ready()
    exchange, _ = run(talk)
    talk.disconnected(0.0)
    other = talk.ask("system.status", {}, now=0.0)
    talk.close()
    assert isinstance(exchange.error, ConnectionLost)
    assert isinstance(other.error, ConnectionLost)
    assert not talk.outgoing


def test_params_that_are_no_text_are_refused_before_they_are_sent() -> None:
    talk = ready()
    with pytest.raises(InvalidParams, match="cannot send the params"):
        talk.ask("rkllm.run", {**RUN, "prompt": "\ud800"}, now=0.0)
    with pytest.raises(TooLarge, match="cannot send 4"):
        talk.ask("rkllm.run", {**RUN, "prompt": "x" * 4 * 1024 * 1024}, now=0.0)
    assert sent(talk) == []


@given(st.lists(st.binary() | st.from_regex(rb'\{"(id|method|params|error|result)":.{0,40}\}', fullmatch=True)))
def test_whatever_the_server_sends_is_survived(frames: list[bytes]) -> None:
    talk = ready()
    exchange, one = run(talk)
    for frame in frames:
        talk.received(frame)
    if not exchange.is_over:
        say(talk, id=one, result=RESULT)
    assert exchange.is_over
