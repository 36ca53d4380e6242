"""A worker dies in mid-stream and the answer goes on (design §6)."""

import os
import random
import signal
from pathlib import Path

import pytest

from harness.rkvisord import Rkvisord

pytestmark = pytest.mark.resilience

MUTED = """
[models.demo]
runtime = "sim"
path = "builtin:tiny"
workers = 2
faults = true
force_tokens = false
param = { temperature = 0.0 }
"""
FORCED = MUTED.replace("force_tokens = false", "")


@pytest.mark.parametrize(("models", "kind"), [(FORCED, "forced"), (MUTED, "muted")], ids=["forced", "muted"])
def test_a_stream_goes_on_exactly_where_a_crash_cut_it(models: str, kind: str) -> None:
    chance = random.Random(2)
    ways: list[str | None] = []
    with Rkvisord(models, supervisor="fault_window_s = 0") as server, server.client() as client:
        for round_ in range(12):
            prompt = f"tell me story {round_}"
            _, calm = client.stream(model="demo", prompt=prompt, max_new_tokens=40)
            cut = chance.randrange(0, 40)
            marker = f"[[sim:segv after={cut} times=1 key=k{round_}]]"
            again, stormy = client.stream(model="demo", prompt=marker + prompt, max_new_tokens=40)
            assert [token["seq"] for token in again] == list(range(len(again)))
            assert "".join(token["text"] for token in again) == stormy["text"] == calm["text"]
            assert stormy["token_ids"] == calm["token_ids"]
            assert stormy["resumed"] == 1
            # The last tokens of a dying process may not arrive: with few of them nothing was streamed yet.
            assert stormy["resume"] in (("exact", None) if cut else (None,)), (cut, kind)
            ways.append(stormy["resume"])
        assert ways.count("exact") >= 6, "most of these cuts are far behind the first token"


def test_a_crash_before_the_first_token_runs_the_request_again() -> None:
    with Rkvisord() as server, server.client() as client:
        calm = client.call("rkllm.run", {"model": "demo", "prompt": "hi", "max_new_tokens": 5})
        stormy = client.call(
            "rkllm.run", {"model": "demo", "prompt": "[[sim:abrt at=prefill times=1]]hi", "max_new_tokens": 5}
        )
        assert (stormy["text"], stormy["resumed"], stormy["resume"]) == (calm["text"], 1, None)


SLOW = """
[models.slow]
runtime = "sim"
path = "slow.toml"
workers = 2
param = { temperature = 0.0 }
"""


def test_a_signal_from_outside_is_survived_too(tmp_path: Path) -> None:
    (tmp_path / "slow.toml").write_text('name = "slow"\nvocab_size = 512\nembedding_size = 32\ntoken_ms = 20.0\n')
    with Rkvisord(SLOW, folder=tmp_path) as server, server.client() as client:
        _, calm = client.stream(model="slow", prompt="hi", max_new_tokens=60)

        def kill(seen: int) -> None:
            if seen == 5:  # 55 tokens of 20 ms are still to come: the signal is in time
                for worker in server.workers():
                    os.kill(worker["pid"], signal.SIGSEGV)

        _, stormy = client.stream(kill, model="slow", prompt="hi", max_new_tokens=60)
        assert stormy["text"] == calm["text"]
        assert stormy["resumed"] >= 1
