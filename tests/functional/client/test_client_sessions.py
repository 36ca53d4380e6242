"""``client.session`` and ``rkvisor chat``, against a real rkvisord."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from harness.rkvisord import PATIENCE_S, Rkvisord
from harness.talk import kill_workers
from rkvisor.client import AsyncClient, Client, ConnectionLost
from rkvisor.protocol.errors import InvalidParams, SessionLost

pytestmark = pytest.mark.api

MODELS = """
[models.demo]
runtime = "sim"
path = "builtin:tiny"
workers = 1
faults = true
startretries = 100
param = { temperature = 0.0, max_new_tokens = 8 }
"""
CHAT = [sys.executable, "-P", "-m", "rkvisor.client.command", "chat", "-m", "demo"]


@pytest.fixture(scope="module")
def server() -> Iterator[Rkvisord]:
    with Rkvisord(MODELS, supervisor="fault_window_s = 0") as running:
        yield running


def sessions(server: Rkvisord) -> list[object]:
    return list(server.call("session.list")["sessions"])


def test_a_conversation_with_the_blocking_client(server: Rkvisord) -> None:
    with Client(server.endpoint) as client:
        alone = client.run(model="demo", prompt="go on").text
        with client.session(model="demo", max_turns=9) as session:
            first = session.run("tell me", max_new_tokens=5)
            stream = session.stream("go on")
            text = "".join(token.text for token in stream)
            assert text == stream.result.text != alone
            assert (first.session_restored, stream.result.session_restored) == (False, False)
            history = session.history(token_ids=True)
            assert [(turn.prompt, turn.text) for turn in history.turns] == [("tell me", first.text), ("go on", text)]
            assert history.turns[0].token_ids == first.token_ids
            kill_workers(server)
            assert session.run("and then?").session_restored is True
        assert sessions(server) == []
        with pytest.raises(ConnectionLost, match="not open"):
            session.run("too late")


def test_a_conversation_with_the_asyncio_client(server: Rkvisord) -> None:
    async def converse() -> None:
        async with AsyncClient(server.endpoint) as client:
            async with client.session(model="demo") as session:
                first = await session.run("tell me")
                texts = [token.text async for token in session.stream("go on")]
                history = await session.history()
                assert [turn.text for turn in history.turns] == [first.text, "".join(texts)]
            assert sessions(server) == []
            opened = await client.session(model="demo")
            assert len(sessions(server)) == 1
            await opened.close()
            await opened.close()
            assert sessions(server) == []

    asyncio.run(converse())


def test_an_error_inside_closes_the_session_and_is_seen(server: Rkvisord) -> None:
    with Client(server.endpoint) as client:
        with pytest.raises(InvalidParams), client.session(model="demo") as session:
            session.run("x", mode="hidden")
        assert sessions(server) == []
        with pytest.raises(InvalidParams):
            client.session(model="nobody")


def test_a_new_rkvisord_is_told_of_as_a_lost_session() -> None:
    with Rkvisord(MODELS) as server, Client(server.endpoint) as client, client.session(model="demo") as session:
        session.run("tell me")
        server.kill()
        server.start()
        with pytest.raises(SessionLost) as caught:
            session.run("go on")
        assert caught.value.data["reason"] == "restarted"


def test_a_chat_is_one_conversation_and_leaves_none_behind(server: Rkvisord) -> None:
    with Client(server.endpoint) as client, client.session(model="demo") as session:
        said = [session.run(line).text for line in ("tell me", "go on")]
    done = subprocess.run(
        [*CHAT, "-s", server.endpoint], input="tell me\ngo on\n", capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.stdout == "".join(f"{text}\n" for text in said)
    assert done.returncode == 0
    assert sessions(server) == []


def test_a_chat_says_when_its_conversation_was_restored_or_lost(server: Rkvisord) -> None:
    process = subprocess.Popen(
        [*CHAT, "-s", server.endpoint], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), True)
    process.stdin.write("tell me\n")
    process.stdin.flush()
    server.wait_until(lambda: [one["turns"] for one in server.call("session.list")["sessions"]] == [1], "a turn")
    kill_workers(server)
    process.stdin.write("go on\n")
    process.stdin.flush()
    server.wait_until(lambda: [one["turns"] for one in server.call("session.list")["sessions"]] == [2], "a turn")
    (session,) = server.call("session.list")["sessions"]
    server.call("session.close", {"session": session["session"]})
    _, notes = process.communicate("why?\n", timeout=PATIENCE_S)
    assert process.returncode == 0
    assert "(the server had to bring the conversation back to a worker)" in notes
    assert "it was closed" in notes
    assert "(this is a new conversation" in notes
