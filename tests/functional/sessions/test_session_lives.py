"""Sessions and the life of workers: replays take their time and are not taken for hangs; recycling loses nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.rkvisord import Rkvisord
from harness.talk import PROMPTS, kill_workers, open_session, said, talk, turn

pytestmark = pytest.mark.resilience

SLOW = """
[models.demo]
runtime = "sim"
path = "slow.toml"
workers = 1
force_tokens = {forces}
startretries = 100
first_token_timeout_s = 1.5
token_timeout_s = 1.5
param = {{ temperature = 0.0, max_new_tokens = 12 }}
"""
TIMES = """
name = "slow"
vocab_size = 512
embedding_size = 32
token_ms = {token_ms}
prefill_ms_per_token = {prefill_ms}
"""


@pytest.mark.parametrize(
    ("forces", "token_ms", "prefill_ms"),
    [("false", 100.0, 1.0), ("true", 100.0, 60.0)],
    ids=["generated again", "forced in silence"],
)
def test_a_replay_that_takes_longer_than_any_token_may_is_not_taken_for_a_hang(
    tmp_path: Path, forces: str, token_ms: float, prefill_ms: float
) -> None:
    """A history of 3.6 s, and of 2.2 s without a callback, where a token may take 1.5 s."""
    (tmp_path / "slow.toml").write_text(TIMES.format(token_ms=token_ms, prefill_ms=prefill_ms))
    with Rkvisord(SLOW.format(forces=forces), folder=tmp_path) as server, server.client() as client:
        session = open_session(client)
        for prompt in PROMPTS[:3]:
            turn(client, session, prompt)
        kill_workers(server)
        last = turn(client, session, PROMPTS[3])
        assert (last["session_restored"], last["resumed"]) == (True, 0)
        assert "makes no progress" not in server.log.read_text()


def test_an_abort_ends_a_replay_and_the_conversation_stays(tmp_path: Path) -> None:
    (tmp_path / "slow.toml").write_text(TIMES.format(token_ms=50.0, prefill_ms=1.0))
    with Rkvisord(SLOW.format(forces="false"), folder=tmp_path) as server, server.client() as client:
        session = open_session(client)
        for prompt in PROMPTS[:2]:
            turn(client, session, prompt)
        kill_workers(server)
        identifier = client.send("rkllm.run", {"model": "demo", "session": session, "prompt": "x", "stream": True})
        server.wait_until(lambda: server.call("session.list")["sessions"][0]["state"] == "running", "the replay")
        client.send("rkllm.abort", {"request": identifier})
        aborted = client.result(identifier)
        assert (aborted["finish_reason"], aborted["token_ids"]) == ("abort", [])
        stormy = turn(client, session, PROMPTS[2])
        assert stormy["session_restored"] is True
        calm = open_session(client)
        assert said([turn(client, calm, prompt) for prompt in PROMPTS[:3]])[2] == said([stormy])[0]


RECYCLED = """
[models.demo]
runtime = "sim"
path = "builtin:tiny"
workers = 1
{more}
param = {{ temperature = 0.0, max_new_tokens = 12 }}
"""


def test_a_recycled_worker_takes_no_conversation_with_it() -> None:
    with Rkvisord(RECYCLED.format(more="")) as server, server.client() as client:
        calm = said(talk(client))
    with Rkvisord(RECYCLED.format(more="max_requests = 1")) as server, server.client() as client:
        session = open_session(client)
        results: list[Any] = []
        pids = set()
        for prompt in PROMPTS:
            before = server.workers()[0]["pid"]
            pids.add(before)
            results.append(turn(client, session, prompt))
            server.wait_until(lambda: server.workers()[0]["pid"] not in (before, 0), "a new process")  # noqa: B023
        assert said(results) == calm
        assert [one["session_restored"] for one in results] == [False, True, True, True]
        assert len(pids) == 4
