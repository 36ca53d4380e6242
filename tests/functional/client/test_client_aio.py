"""``AsyncClient`` over a real socket against a scripted server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.fake_server import FakeServer, reply_to
from rkvisor.client import AsyncClient, CallTimeout, ConnectionLost, NoServer, Progress
from rkvisor.protocol.errors import QueueFull

PROMPT = "tell me a story"
WORDS = reply_to(PROMPT)
ASK = {"model": "demo", "prompt": PROMPT}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FakeServer]:
    with FakeServer(f"ipc://{tmp_path}/s") as running:
        yield running


async def received(server: FakeServer, method: str, times: int = 1) -> None:
    """Wait until the server received *method*, without standing in the loop's way."""
    await asyncio.to_thread(server.wait_for, method, times)


def test_the_calls_give_typed_results(server: FakeServer) -> None:
    async def main() -> None:
        async with AsyncClient(server.endpoint) as client:
            assert (await client.version()).epoch == server.epoch
            assert (await client.status()).node == "n"
            assert [model.name for model in await client.models()] == ["demo"]
            assert await client.call("some.method", {"a": 1}) == {"method": "some.method"}
            assert (await client.run(**ASK)).text == "".join(WORDS)

    asyncio.run(main())


def test_a_stream_gives_its_tokens_and_then_its_result(server: FakeServer) -> None:
    async def main() -> None:
        async with AsyncClient(server.endpoint) as client:
            stream = client.stream(**ASK)
            with pytest.raises(RuntimeError, match="before the stream has ended"):
                _ = stream.result
            assert [token.text async for token in stream] == WORDS
            assert stream.result.finish_reason == "length"
            assert [token async for token in stream] == []

    asyncio.run(main())


def test_many_requests_run_at_a_time_without_mixing(server: FakeServer) -> None:
    async def ask(client: AsyncClient, number: int) -> list[str]:
        return [token.text async for token in client.stream(model="demo", prompt=f"p{number} q{number}")]

    async def main() -> None:
        async with AsyncClient(server.endpoint) as client:
            answers = await asyncio.gather(*(ask(client, number) for number in range(100)))
            assert answers == [reply_to(f"p{number} q{number}") for number in range(100)]

    asyncio.run(main())


@pytest.mark.resilience
@pytest.mark.parametrize("is_restart", [False, True])
def test_all_streams_survive_a_lost_connection(server: FakeServer, is_restart: bool) -> None:
    server.hold_after = 3

    async def ask(client: AsyncClient, number: int) -> list[str]:
        return [token.text async for token in client.stream(model="demo", prompt=f"p{number} q{number}")]

    async def main() -> None:
        async with AsyncClient(server.endpoint) as client:
            tasks = [asyncio.create_task(ask(client, number)) for number in range(20)]
            await received(server, "rkllm.run", 20)
            if is_restart:
                server.stop()
                server.hold_after = None
                server.start()
            else:
                server.drop()
                server.release()
            assert await asyncio.gather(*tasks) == [reply_to(f"p{number} q{number}") for number in range(20)]

    asyncio.run(main())


@pytest.mark.resilience
def test_a_keyless_call_is_lost_with_the_connection_while_a_run_goes_on(server: FakeServer) -> None:
    server.deaf = {"some.method", "rkllm.run"}

    async def main() -> None:
        async with AsyncClient(server.endpoint) as client:
            call = asyncio.create_task(client.call("some.method"))
            run = asyncio.create_task(client.run(**ASK))
            await received(server, "some.method")
            await received(server, "rkllm.run")
            server.deaf = set()
            server.stop()
            server.start()
            with pytest.raises(ConnectionLost):
                await call
            assert (await run).text == "".join(WORDS)

    asyncio.run(main())


def test_an_error_of_the_server_is_raised_as_its_class(server: FakeServer) -> None:
    server.errors["rkllm.run"] = {"code": -32004, "message": "cannot queue", "data": {"name": "QUEUE_FULL"}}

    async def main() -> None:
        async with AsyncClient(server.endpoint) as client:
            with pytest.raises(QueueFull):
                await client.run(**ASK)
            with pytest.raises(QueueFull):
                await anext(client.stream(**ASK))

    asyncio.run(main())


def test_a_server_that_does_not_answer_raises_a_timeout_and_gets_an_abort(server: FakeServer) -> None:
    server.deaf = {"rkllm.run"}

    async def main() -> None:
        async with AsyncClient(server.endpoint) as client:
            with pytest.raises(CallTimeout):
                await client.run(**ASK, timeout_s=0.05)
            with pytest.raises(TimeoutError):
                await anext(client.stream(**ASK, timeout_s=0.05))
            await received(server, "rkllm.abort", 2)

    asyncio.run(main())


def test_cancelling_a_call_aborts_its_request(server: FakeServer) -> None:
    server.hold_after = 1

    async def main() -> None:
        async with AsyncClient(server.endpoint) as client:
            task = asyncio.create_task(client.run(**ASK))
            await received(server, "rkllm.run")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await received(server, "rkllm.abort")
            stream = client.stream(**ASK)
            await anext(stream)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await anext(stream)
            await received(server, "rkllm.abort", 2)

    asyncio.run(main())


@pytest.mark.parametrize("way", ["break", "close", "with", "forget"])
def test_leaving_a_stream_early_aborts_its_request(server: FakeServer, way: str) -> None:
    server.hold_after = 2

    async def main() -> None:
        async with AsyncClient(server.endpoint) as client:
            stream = client.stream(**ASK)
            if way == "break":
                async for _ in stream:
                    break
            else:
                await anext(stream)
            if way == "close":
                stream.close()
            elif way == "with":
                async with stream:
                    pass
            elif way == "forget":
                del stream
            await received(server, "rkllm.abort")
            assert (await client.version()).epoch == server.epoch
            assert server.count("rkllm.abort") == 1

    asyncio.run(main())


def test_abort_ends_a_stream_with_what_came_so_far(server: FakeServer) -> None:
    server.hold_after = 2

    async def main() -> None:
        async with AsyncClient(server.endpoint) as client:
            stream = client.stream(**ASK)
            await anext(stream)
            stream.abort()
            assert [token.text async for token in stream] == WORDS[1:2]
            assert stream.result.finish_reason == "abort"
            assert await client.abort("nothing") is False

    asyncio.run(main())


def test_closing_the_client_ends_what_waits(server: FakeServer) -> None:
    server.hold_after = 1

    async def main() -> None:
        client = AsyncClient(server.endpoint)
        task = asyncio.create_task(client.run(**ASK))
        await received(server, "rkllm.run")
        client.close()
        client.close()
        with pytest.raises(ConnectionLost, match="closed"):
            await task
        with pytest.raises(ConnectionLost, match="closed"):
            await client.version()

    asyncio.run(main())


def test_no_server_is_told_after_the_connect_timeout(tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncClient(f"ipc://{tmp_path}/none", connect_timeout_s=0.05) as client:
            with pytest.raises(NoServer, match="no such file or directory"):
                await client.run(**ASK)
            with pytest.raises(NoServer):  # and again, with a patience of its own
                await client.run(**ASK)

    asyncio.run(main())


def test_progress_is_told(server: FakeServer) -> None:
    server.hold_after = 0
    server.progress = [{"phase": "queued", "queue_position": 2}]
    told: list[Progress] = []

    def tell(progress: Progress) -> None:
        told.append(progress)
        server.release()

    async def main() -> None:
        async with AsyncClient(server.endpoint) as client:
            assert [token.text async for token in client.stream(**ASK, on_progress=tell)] == WORDS

    asyncio.run(main())
    assert [progress.phase for progress in told] == ["queued"]
