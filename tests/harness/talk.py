"""Conversations in sessions, and what disturbs them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

from harness.rkvisord import Client, Rkvisord

Disturb = Callable[[int], str]
PROMPTS = ("tell me", "go on", "and then?", "why?")


def open_session(client: Client, model: str = "demo", **params: Any) -> str:
    """The id of a new session."""
    return str(client.call("session.open", {"model": model, **params})["session"])


def turn(client: Client, session: str, prompt: str, model: str = "demo", **params: Any) -> Any:
    """The result of one turn."""
    return client.call("rkllm.run", {"model": model, "session": session, "prompt": prompt, **params})


def talk(
    client: Client,
    disturb: Disturb | None = None,
    prompts: Sequence[str] = PROMPTS,
    opened: dict[str, Any] | None = None,
    **params: Any,
) -> list[Any]:
    """The results of a whole conversation.  disturb: called before each turn; gives what to put before its prompt."""
    session = open_session(client, **(opened or {}))
    results = []
    for number, prompt in enumerate(prompts):
        marker = disturb(number) if disturb is not None else ""
        results.append(turn(client, session, marker + prompt, **params))
    client.call("session.close", {"session": session})
    return results


def said(results: Sequence[Any]) -> list[tuple[str, list[int], str]]:
    """What a disturbed conversation must have in common with a calm one."""
    return [(one["text"], one["token_ids"], one["finish_reason"]) for one in results]


def kill_workers(server: Rkvisord, model: str = "demo") -> None:
    """SIGKILL to every worker of *model*; returns when others run in their places."""
    old = [one["pid"] for one in server.workers() if one["name"].startswith(f"{model}:")]
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    server.wait_until(lambda: _is_replaced(server, model, old), "new workers")


def _is_replaced(server: Rkvisord, model: str, old: Sequence[int]) -> bool:
    workers = [one for one in server.workers() if one["name"].startswith(f"{model}:")]
    return all(one["state"] == "RUNNING" and one["pid"] not in old for one in workers)
