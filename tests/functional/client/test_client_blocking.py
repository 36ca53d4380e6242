"""``Client`` over a real socket against a scripted server that can hold, vanish and come back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from harness.fake_server import FakeServer, free_tcp_endpoint, reply_to
from rkvisor.client import CallTimeout, Client, ConnectionLost, Keys, NoServer, Progress
from rkvisor.client.errors import BadEndpoint
from rkvisor.protocol.errors import QueueFull

PROMPT = "tell me a story"
WORDS = reply_to(PROMPT)
ASK = {"model": "demo", "prompt": PROMPT}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FakeServer]:
    with FakeServer(f"ipc://{tmp_path}/s") as running:
        yield running


@pytest.fixture
def client(server: FakeServer) -> Iterator[Client]:
    with Client(server.endpoint) as connected:
        yield connected


def test_the_calls_give_typed_results(client: Client, server: FakeServer) -> None:
    assert client.version().epoch == server.epoch
    assert client.status().node == "n"
    assert [model.name for model in client.models()] == ["demo"]
    assert client.call("some.method", {"a": 1}) == {"method": "some.method"}
    assert client.run(**ASK).text == "".join(WORDS)


def test_a_stream_gives_its_tokens_and_then_its_result(client: Client, server: FakeServer) -> None:
    server.hold_after = 1
    stream = client.stream(**ASK)
    with pytest.raises(RuntimeError, match="before the stream has ended"):
        _ = stream.result
    server.release()
    tokens = list(stream)
    assert [token.text for token in tokens] == WORDS
    assert [token.seq for token in tokens] == list(range(len(WORDS)))
    assert tokens[1].token_ids == (1,)
    assert stream.result.finish_reason == "length"
    assert list(stream) == []


def test_each_run_has_a_key_of_its_own_unless_the_caller_gives_one(client: Client, server: FakeServer) -> None:
    client.run(**ASK)
    client.run(**ASK)
    assert client.stream(**ASK, request_key="mine").request_key == "mine"
    first, second, third = (server.wait_for("rkllm.run", times)["request_key"] for times in (1, 2, 3))
    assert first != second
    assert third == "mine"


def test_an_error_of_the_server_is_raised_as_its_class(client: Client, server: FakeServer) -> None:
    data = {"name": "QUEUE_FULL", "retry_after_ms": 250}
    server.errors["rkllm.run"] = {"code": -32004, "message": "cannot queue", "data": data}
    with pytest.raises(QueueFull, match="cannot queue") as caught:
        client.run(**ASK)
    assert caught.value.retry_after_ms == 250
    stream = client.stream(**ASK)
    with pytest.raises(QueueFull):
        next(stream)
    with pytest.raises(QueueFull):
        _ = stream.result


@pytest.mark.resilience
def test_a_stream_survives_a_cut_connection_without_gap_or_repetition(client: Client, server: FakeServer) -> None:
    server.hold_after = 3
    stream = client.stream(**ASK)
    texts = [next(stream).text for _ in range(3)]
    server.drop()
    server.release()
    assert texts + [token.text for token in stream] == WORDS
    assert stream.result.text == "".join(WORDS)


@pytest.mark.resilience
def test_a_greedy_stream_survives_a_restart_of_the_server(client: Client, server: FakeServer) -> None:
    server.hold_after = 3
    stream = client.stream(**ASK)
    texts = [next(stream).text for _ in range(3)]
    server.stop()
    server.hold_after = None
    server.start()
    assert texts + [token.text for token in stream] == WORDS


@pytest.mark.resilience
def test_a_sampled_stream_is_lost_with_the_server_and_its_new_run_is_aborted(
    client: Client, server: FakeServer
) -> None:
    server.is_sampled = True
    server.hold_after = 3
    stream = client.stream(**ASK)
    next(stream)
    next(stream)
    server.stop()
    server.start()
    with pytest.raises(ConnectionLost, match="differs at token 0"):
        list(stream)
    server.wait_for("rkllm.abort")


@pytest.mark.resilience
def test_a_run_is_asked_again_by_its_key_and_a_keyless_call_is_lost(server: FakeServer) -> None:
    server.deaf = {"rkllm.run"}
    answers: list[object] = []
    with Client(server.endpoint) as client:
        run = client.stream(**ASK)
        server.wait_for("rkllm.run")
        server.stop()
        server.deaf = set()
        server.start()
        answers.extend(token.text for token in run)
    assert answers == WORDS

    with Client(server.endpoint) as client:
        server.deaf = {"some.method"}
        client.version()
        killer = threading.Thread(target=lambda: (server.wait_for("some.method"), server.stop()))
        killer.start()
        with pytest.raises(ConnectionLost, match=r"some\.method.*was lost"):
            client.call("some.method")
        killer.join()


@pytest.mark.resilience
def test_a_restart_between_two_calls_is_not_noticed(client: Client, server: FakeServer) -> None:
    before = client.version().epoch
    server.stop()
    server.start()
    assert client.version().epoch != before


def test_interleaved_streams_of_one_client_do_not_mix(client: Client) -> None:
    first = client.stream(model="demo", prompt="a b c")
    second = client.stream(model="demo", prompt="x y z")
    pairs = list(zip(first, second, strict=True))
    assert [one.text for one, _ in pairs] == reply_to("a b c")
    assert [two.text for _, two in pairs] == reply_to("x y z")


def test_a_server_that_does_not_answer_raises_a_timeout_and_gets_an_abort(client: Client, server: FakeServer) -> None:
    server.deaf = {"rkllm.run"}
    with pytest.raises(CallTimeout, match=r"cannot wait longer than 0\.05 s"):
        client.run(**ASK, timeout_s=0.05)
    with pytest.raises(TimeoutError):
        list(client.stream(**ASK, timeout_s=0.05))
    assert server.wait_for("rkllm.abort", times=2)


def test_a_stream_that_stalls_raises_a_timeout_behind_its_tokens(client: Client, server: FakeServer) -> None:
    server.hold_after = 2
    stream = client.stream(**ASK, timeout_s=0.3)
    assert [next(stream).text, next(stream).text] == WORDS[:2]
    with pytest.raises(CallTimeout):
        next(stream)
    server.wait_for("rkllm.abort")


def test_leaving_the_loop_aborts_the_request(client: Client, server: FakeServer) -> None:
    server.hold_after = 2
    stream = client.stream(**ASK)
    for _ in stream:
        break
    server.wait_for("rkllm.abort")
    with pytest.raises(ConnectionLost, match="the caller left it"):
        _ = stream.result
    assert list(stream) == []


def test_an_exception_in_the_loop_aborts_the_request(client: Client, server: FakeServer) -> None:
    server.hold_after = 2

    def consume() -> None:
        for _ in client.stream(**ASK):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        consume()
    server.wait_for("rkllm.abort")


@pytest.mark.parametrize("way", ["close", "with", "forget"])
def test_a_stream_that_is_closed_or_forgotten_is_aborted(client: Client, server: FakeServer, way: str) -> None:
    server.hold_after = 2
    stream = client.stream(**ASK)
    next(stream)
    if way == "close":
        stream.close()
        stream.close()
    elif way == "with":
        with stream:
            pass
    del stream
    server.wait_for("rkllm.abort")
    assert client.version().epoch == server.epoch
    assert server.count("rkllm.abort") == 1


def test_a_stream_that_ran_out_is_not_aborted(client: Client, server: FakeServer) -> None:
    with client.stream(**ASK) as stream:
        list(stream)
    client.version()
    assert server.count("rkllm.abort") == 0


def test_abort_ends_a_stream_with_what_came_so_far(client: Client, server: FakeServer) -> None:
    server.hold_after = 2
    stream = client.stream(**ASK)
    next(stream)
    stream.abort()
    assert [token.text for token in stream] == WORDS[1:2]
    assert stream.result.finish_reason == "abort"


def test_abort_by_key_reaches_the_request_of_another_connection(client: Client, server: FakeServer) -> None:
    server.hold_after = 0
    stream = client.stream(**ASK, request_key="k")
    server.wait_for("rkllm.run")
    with Client(server.endpoint) as other:
        assert other.abort("k") is True
        assert other.abort("nothing") is False
    assert list(stream) == []
    assert stream.result.finish_reason == "abort"


def test_no_server_is_told_after_the_connect_timeout(tmp_path: Path) -> None:
    with (
        Client(f"ipc://{tmp_path}/none", connect_timeout_s=0.05) as client,
        pytest.raises(NoServer, match=r"cannot reach rkvisord at ipc://.*/none: no such file or directory"),
    ):
        client.version()


def test_a_socket_file_without_a_server_refuses(server: FakeServer) -> None:
    server.stop()
    with (
        Client(server.endpoint, connect_timeout_s=0.05) as client,
        pytest.raises(NoServer, match="connection refused"),
    ):
        client.run(**ASK)


def test_a_server_that_stays_away_is_given_up(server: FakeServer) -> None:
    with Client(server.endpoint, reconnect_timeout_s=0.05) as client:
        server.hold_after = 1
        stream = client.stream(**ASK)
        next(stream)
        server.stop()
        with pytest.raises(ConnectionLost, match="the connection was lost"):
            next(stream)


def test_a_server_that_comes_later_is_waited_for(tmp_path: Path) -> None:
    server = FakeServer(f"ipc://{tmp_path}/s")
    starter = threading.Timer(0.1, server.start)
    with Client(server.endpoint, connect_timeout_s=None) as client:
        starter.start()
        assert client.run(**ASK).text == "".join(WORDS)
    starter.join()
    server.stop()


def test_a_closed_client_says_so(server: FakeServer) -> None:
    client = Client(server.endpoint)
    server.hold_after = 1
    stream = client.stream(**ASK)
    next(stream)
    client.close()
    client.close()
    with pytest.raises(ConnectionLost, match="the client was closed"):
        next(stream)
    with pytest.raises(ConnectionLost, match="it was closed"):
        client.version()


def test_an_endpoint_zeromq_cannot_use_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(BadEndpoint, match="cannot connect to 'ipc://"):
        Client(f"ipc://{tmp_path}/{'x' * 120}")
    with pytest.raises(BadEndpoint, match="cannot connect to 'tcp://"):
        Client("tcp://127.0.0.1:notaport")


def test_the_client_works_over_tcp() -> None:
    with FakeServer(free_tcp_endpoint()) as server, Client(server.endpoint) as client:
        server.hold_after = 2
        stream = client.stream(**ASK)
        next(stream)
        server.stop()
        server.hold_after = None
        server.start()
        assert [token.text for token in stream] == WORDS[1:]


@pytest.mark.security
def test_keys_open_a_server_that_wants_them_and_wrong_ones_do_not() -> None:
    server = FakeServer(free_tcp_endpoint())
    server_public, server.curve_secret = zmq.curve_keypair()
    public, secret = (key.decode() for key in zmq.curve_keypair())
    with server:
        keys = Keys(server_key=server_public.decode(), public_key=public, secret_key=secret)
        with Client(server.endpoint, keys=keys) as client:
            assert client.run(**ASK).text == "".join(WORDS)
        wrong = Keys(server_key=public, public_key=public, secret_key=secret)
        for bad, why in ((wrong, "is the server's key the right one"), (None, "does the server want a key")):
            with Client(server.endpoint, keys=bad, connect_timeout_s=0.3) as client, pytest.raises(NoServer, match=why):
                client.version()
    with pytest.raises(BadEndpoint, match="cannot connect"):
        Client(server.endpoint, keys=Keys(server_key="short", public_key=public, secret_key=secret))
    assert secret not in repr(keys)


def test_progress_is_told_once_each(client: Client, server: FakeServer) -> None:
    server.hold_after = 0
    server.progress = [{"phase": "queued", "queue_position": 2}, {"phase": "prefill", "queue_position": 0}]
    told: list[Progress] = []

    def tell(progress: Progress) -> None:
        told.append(progress)
        if len(told) == 2:
            server.release()

    assert [token.text for token in client.stream(**ASK, on_progress=tell)] == WORDS
    assert [(progress.phase, progress.queue_position) for progress in told] == [("queued", 2), ("prefill", 0)]
