"""The client library against a real rkvisord: its workers and rkvisord itself die in mid-stream."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from harness.fake_server import free_tcp_endpoint
from harness.rkvisord import DEMO, Rkvisord
from rkvisor.client import AsyncClient, Client, ConnectionLost
from rkvisor.protocol.errors import DeadlineExceeded, InvalidParams

SLOW = "[[sim:slow ms=5]]tell me a story"


@pytest.fixture
def server() -> Iterator[Rkvisord]:
    with Rkvisord(DEMO) as running:
        yield running


def undisturbed(client: Client, prompt: str, tokens: int) -> str:
    """What a greedy run gives when nobody dies."""
    return client.run(model="demo", prompt=prompt, max_new_tokens=tokens, temperature=0).text


def test_run_and_stream_agree(server: Rkvisord) -> None:
    with Client(server.endpoint) as client:
        whole = undisturbed(client, "tell me a story", 20)
        with client.stream(model="demo", prompt="tell me a story", max_new_tokens=20, temperature=0) as stream:
            assert "".join(token.text for token in stream) == whole
        assert len(stream.result.token_ids) == 20
        assert client.models()[0].name == "demo"
        assert client.status().epoch == client.version().epoch


def test_errors_are_those_of_the_catalogue(server: Rkvisord) -> None:
    with Client(server.endpoint) as client:
        with pytest.raises(InvalidParams, match="no such model"):
            client.run(model="nope", prompt="hi")
        with pytest.raises(InvalidParams, match="did you mean"):
            client.run(model="demo", prompt="hi", max_new_token=3)
        with pytest.raises(DeadlineExceeded):
            client.run(model="demo", prompt=SLOW, max_new_tokens=400, deadline_ms=50)


@pytest.mark.resilience
def test_a_stream_does_not_notice_that_its_worker_segfaults(server: Rkvisord) -> None:
    prompt = "[[sim:slow ms=30]][[sim:segv after=5 times=1 key=a]]tell me a story"
    with Client(server.endpoint) as client:
        calm = undisturbed(client, "tell me a story", 20)
        stream = client.stream(model="demo", prompt=prompt, max_new_tokens=20, temperature=0)
        assert "".join(token.text for token in stream) == calm
        assert stream.result.text == calm
        assert (stream.result.resumed, stream.result.resume) == (1, "exact")


@pytest.mark.resilience
def test_a_greedy_stream_goes_on_after_kill_9_of_rkvisord(server: Rkvisord) -> None:
    with Client(server.endpoint) as client:
        calm = undisturbed(client, "tell me a story", 40)
        stream = client.stream(model="demo", prompt=SLOW, max_new_tokens=40, temperature=0)
        texts = [next(stream).text for _ in range(5)]
        epoch = client.version().epoch
        server.kill()
        server.start(wait=False)
        texts += [token.text for token in stream]
        assert "".join(texts) == calm == stream.result.text
        assert client.version().epoch != epoch


@pytest.mark.resilience
def test_concurrent_calls_after_kill_9_are_answered_or_lost_by_their_key(server: Rkvisord) -> None:
    async def main() -> None:
        async with AsyncClient(server.endpoint) as client:
            params = {"model": "demo", "prompt": SLOW, "max_new_tokens": 40, "temperature": 0}
            runs = [asyncio.create_task(client.run(**params)) for _ in range(4)]
            keyless = asyncio.create_task(client.call("rkllm.run", params))
            await asyncio.to_thread(server.wait_until, lambda: _queued(server) >= 2)
            server.kill()
            server.start(wait=False)
            with pytest.raises(ConnectionLost):
                await keyless
            assert len({result.text for result in await asyncio.gather(*runs)}) == 1

    asyncio.run(main())


def _queued(server: Rkvisord) -> int:
    return int(server.call("system.status")["models"][0]["queue"])


def test_leaving_a_stream_frees_the_worker(server: Rkvisord) -> None:
    with Client(server.endpoint) as client:
        for token in client.stream(model="demo", prompt=SLOW, max_new_tokens=400):
            assert token.seq == 0
            break
        server.wait_until(lambda: not server.call("rkllm.is_running")["is_running"])


def test_a_client_that_vanishes_frees_the_worker(server: Rkvisord) -> None:
    with Client(server.endpoint) as client:
        next(client.stream(model="demo", prompt=SLOW, max_new_tokens=400))
    server.wait_until(lambda: not server.call("rkllm.is_running")["is_running"])


@pytest.mark.resilience
def test_a_stopped_rkvisord_makes_calls_time_out_and_continues_later(server: Rkvisord) -> None:
    with Client(server.endpoint) as client:
        client.version()
        os.kill(server.pid, signal.SIGSTOP)
        try:
            with pytest.raises(TimeoutError):
                client.status(timeout_s=0.2)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert client.status().models[0].name == "demo"


def test_tcp_serves_as_ipc_does() -> None:
    endpoint = free_tcp_endpoint()
    server = Rkvisord(DEMO, listen=f'clients = ["{endpoint}"]')
    server.endpoint = endpoint
    with server, Client(config=str(server.config)) as client:
        assert client.endpoint == endpoint
        assert len(client.run(model="demo", prompt="hi", max_new_tokens=5).token_ids) == 5
