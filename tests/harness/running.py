"""Runs as functional tests ask for them: short ones, refused ones, and some that go on until they are ended."""

from __future__ import annotations

from typing import Any

import pytest

from harness.rkvisord import Client, RpcError

#: Prompts that take long enough to be watched, until they are ended.
ENDLESS = {"model": "demo", "prompt": "[[sim:slow ms=4]]tell me", "max_new_tokens": 16384}


def run(client: Client, **params: Any) -> Any:
    return client.call("rkllm.run", {"model": "demo", "max_new_tokens": 12, **params})


def refusal(client: Client, **params: Any) -> RpcError:
    with pytest.raises(RpcError) as caught:
        run(client, **params)
    return caught.value


def start_stream(client: Client, identifier: Any = None, **params: Any) -> Any:
    """Send a streaming run and wait for its first token; its id.  One that waits long hears of its progress first."""
    identifier = client.send("rkllm.run", {**ENDLESS, **params, "stream": True}, identifier)
    while True:
        message = client.receive()
        if message.get("method") == "rkllm.token" and message["params"]["request"] == identifier:
            assert message["params"]["seq"] == 0
            return identifier


def abort(client: Client, identifier: Any) -> Any:
    """Abort the request *identifier* of *client*; its result.  The two answers may come in any order."""
    asked = client.send("rkllm.abort", {"request": identifier})
    answers: dict[Any, Any] = {}
    while len(answers) < 2:
        message = client.receive()
        if "method" not in message:
            answers[message["id"]] = message["result"]
    assert answers[asked] == {"aborted": True}
    return answers[identifier]
