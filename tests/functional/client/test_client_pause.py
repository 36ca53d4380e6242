"""``pause`` and ``resume`` of both clients, against a real rkvisord (S1.17)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from harness.rkvisord import Rkvisord
from rkvisor.client import AsyncClient, Client, Progress
from rkvisor.client.aio import AsyncStream
from rkvisor.client.blocking import Stream
from rkvisor.protocol.errors import NotSupported

PROMPT = " tell me a story"
SLOW = 'name = "slow"\nvocab_size = 1024\nembedding_size = 64\ntoken_ms = 20.0\n'
MODEL = """
[models.{name}]
runtime = "sim"
path = "slow.toml"
workers = 1
spares = 0
param = {{ temperature = 0.0, max_context_len = 512, max_new_tokens = 60 }}
"""
MODELS = MODEL.format(name="demo") + MODEL.format(name="brief") + "pause_timeout_s = 0.5\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rkvisord]:
    folder = tmp_path_factory.mktemp("p")
    (folder / "slow.toml").write_text(SLOW)
    with Rkvisord(MODELS, folder=folder) as running:
        yield running


@pytest.fixture
def client(server: Rkvisord) -> Iterator[Client]:
    with Client(server.endpoint) as connected:
        yield connected


def begin(client: Client, tokens: int = 3) -> tuple[Stream, list[str]]:
    """A stream, and the texts that were read of it."""
    stream = client.stream(model="demo", prompt=PROMPT)
    return stream, [next(stream).text for _ in range(tokens)]


def test_a_paused_stream_stands_still_and_then_gives_the_same_text(client: Client) -> None:
    calm = client.run(model="demo", prompt=PROMPT).text
    stream, texts = begin(client)
    assert stream.pause() is True
    assert stream.pause() is True
    held = client.call("rkllm.get_kv_cache_size", {"model": "demo"})
    assert client.call("rkllm.get_kv_cache_size", {"model": "demo"}) == held
    assert stream.resume() is True
    assert stream.resume() is False
    texts += [token.text for token in stream]
    assert "".join(texts) == stream.result.text == calm
    assert stream.pause() is False
    assert stream.resume() is False


def test_another_client_pauses_by_the_key_and_lets_it_go_on_behind_other_text(client: Client, server: Rkvisord) -> None:
    calm = client.run(model="demo", prompt=PROMPT).text
    with Client(server.endpoint) as other:
        other.version()
        stream, _ = begin(client)
        assert other.pause(stream.request_key) is True
        assert other.resume(stream.request_key, prompt=" But then the dragon said:") is True
        assert other.pause("no such key") is False
        assert other.resume("no such key") is False
    list(stream)
    assert stream.result.text != calm


def test_a_stream_is_told_that_it_is_paused_by_whomever_and_that_it_goes_on(client: Client, server: Rkvisord) -> None:
    told: list[Progress] = []
    with Client(server.endpoint) as other:
        other.version()
        stream = client.stream(model="demo", prompt=PROMPT, on_progress=told.append)
        next(stream)
        assert other.pause(stream.request_key)
        assert other.resume(stream.request_key)
        assert other.pause(stream.request_key)
        assert other.resume(stream.request_key)
    list(stream)
    assert [one.phase for one in told] == ["paused", "resumed", "paused", "resumed"]
    assert all(0 < (one.timeout_in_s or 0) <= 300 for one in told[::2])
    assert stream.result.finish_reason == "length"


def test_a_stream_that_nobody_resumes_is_told_so_and_ends_as_aborted(client: Client) -> None:
    told: list[Progress] = []
    stream = client.stream(model="brief", prompt=PROMPT, on_progress=told.append)
    texts = [next(stream).text]
    assert stream.pause()
    texts += [token.text for token in stream]
    assert [one.phase for one in told] == ["paused", "pause_timeout"]
    assert (stream.result.finish_reason, stream.result.text) == ("abort", "".join(texts))


def test_what_cannot_be_paused_is_the_servers_error(client: Client) -> None:
    with client.session(model="demo") as session:
        stream = session.stream(PROMPT)
        next(stream)
        with pytest.raises(NotSupported, match="in a session"):
            stream.pause()
        stream.close()


def test_the_asyncio_client_pauses_a_stream_and_a_call_by_its_key(server: Rkvisord) -> None:
    async def main() -> None:
        async with AsyncClient(server.endpoint) as client:
            calm = (await client.run(model="demo", prompt=PROMPT)).text
            told: list[Progress] = []
            stream = client.stream(model="demo", prompt=PROMPT, on_progress=told.append)
            texts = [(await anext(stream)).text for _ in range(3)]
            assert await stream.pause() is True
            assert await stream.resume() is True
            texts += [token.text async for token in stream]
            assert "".join(texts) == calm
            assert [one.phase for one in told] == ["paused", "resumed"]
            assert await stream.pause() is False

            run = asyncio.create_task(client.run(model="demo", prompt=PROMPT, request_key="night"))
            await asyncio.sleep(0)
            assert await client.pause("night") is True
            assert await client.resume("night") is True
            assert (await run).text == calm
            assert await client.resume("night") is False

            stream = client.stream(model="demo", prompt=PROMPT)
            await anext(stream)
            assert await stream.pause()
            assert await stream.resume(prompt=" But then the dragon said:")
            assert await rest(stream) != calm

    asyncio.run(main())


async def rest(stream: AsyncStream) -> str:
    """Its text, read to the end."""
    async for _ in stream:
        pass
    return stream.result.text
