"""A call of the runtime that is no run and never returns: its process is ended, the model serves on (design §5)."""

from __future__ import annotations

import os
import signal

import pytest

from harness.rkvisord import Rkvisord, RpcError

pytestmark = pytest.mark.resilience

MODEL = """
[models.demo]
runtime = "sim"
path = "builtin:tiny"
faults = true
workers = {workers}
standby = {standby}
control_timeout_s = 5.0
breaker_failures = 100
"""
#: A ping every half second, and half a second for a call.
QUICK = "budget_scale = 0.1"


def hang(times: int) -> dict[str, str]:
    system = f"[[sim:hang at=call times={times} key=hung]]be kind"
    return {"model": "demo", "system_prompt": system, "prompt_prefix": "<", "prompt_postfix": ">"}


def test_a_call_that_hangs_on_one_worker_is_done_by_the_others_and_by_its_successor() -> None:
    with Rkvisord(MODEL.format(workers=2, standby=0), supervisor=QUICK) as server, server.client() as client:
        before = client.call("rkllm.run", {"model": "demo", "prompt": "who?", "max_new_tokens": 5})["text"]
        pids = {worker["pid"] for worker in server.workers()}
        done = client.call("rkllm.set_chat_template", hang(times=1))["workers"]
        assert len(done) == 1
        server.wait_until(lambda: all(w["state"] == "RUNNING" for w in server.workers()))
        alive = {worker["pid"] for worker in server.workers()}
        assert len(alive & pids) == 1
        texts = [client.call("rkllm.run", {"model": "demo", "prompt": "who?", "max_new_tokens": 5}) for _ in range(4)]
        assert {one["worker"] for one in texts} == {"demo:0", "demo:1"}
        assert len({one["text"] for one in texts}) == 1, "both have the template"
        assert texts[0]["text"] != before
        crash = client.call("system.crashes", {})["crashes"][0]
        assert (crash["worker"] not in done, crash["signal"]) == (True, "SIGABRT"), (
            "SIGABRT, so that the stacks are told"
        )


def test_a_call_that_hangs_everywhere_is_an_error_and_not_kept() -> None:
    with Rkvisord(MODEL.format(workers=1, standby=1), supervisor=QUICK) as server, server.client() as client:
        plain = client.call("rkllm.run", {"model": "demo", "prompt": "who?", "max_new_tokens": 5})["text"]
        with pytest.raises(RpcError) as caught:
            client.call("rkllm.set_chat_template", hang(times=-1) | {"system_prompt": "[[sim:hang at=call]]x"})
        assert caught.value.error["data"]["name"] == "WORKER_CRASHED"
        again = client.call("rkllm.run", {"model": "demo", "prompt": "who?", "max_new_tokens": 5})
        assert again["text"] == plain


def test_a_call_that_ends_each_new_process_is_given_to_none_any_more() -> None:
    fatal = hang(times=2) | {"system_prompt": "[[sim:segv at=call times=2 key=late]]be kind"}
    model = MODEL.format(workers=2, standby=0) + "startretries = 10\n"  # one worker dies four times in a row below
    with Rkvisord(model, supervisor=QUICK) as server, server.client() as client:
        plain = client.call("rkllm.run", {"model": "demo", "prompt": "who?", "max_new_tokens": 5})["text"]
        with pytest.raises(RpcError):
            client.call("rkllm.set_chat_template", fatal)  # both die of it, and its faults are used up
        server.wait_until(lambda: all(w["state"] == "RUNNING" for w in server.workers()))
        assert len(client.call("rkllm.set_chat_template", fatal)["workers"]) == 2
        for counter in (server.folder / "state" / "sim").iterdir():
            counter.unlink()  # from now on it kills again
        before = {w["name"]: w["pid"] for w in server.workers()}
        os.kill(before["demo:0"], signal.SIGKILL)
        server.wait_until(lambda: "is given to no worker of model demo any more" in server.log.read_text())
        server.wait_until(lambda: all(w["state"] == "RUNNING" for w in server.workers()))
        asked = [client.call("rkllm.run", {"model": "demo", "prompt": "who?", "max_new_tokens": 5}) for _ in range(4)]
        assert {one["text"] for one in asked if one["worker"] == "demo:0"} == {plain}
        assert plain not in {one["text"] for one in asked if one["worker"] == "demo:1"}, "it did the call, and lives"


def test_the_size_of_a_cache_is_told_as_it_was_while_its_worker_is_busy() -> None:
    with Rkvisord(MODEL.format(workers=1, standby=0)) as server, server.client() as client:
        client.call("rkllm.run", {"model": "demo", "prompt": "who?", "max_new_tokens": 5})
        calm = client.call("rkllm.get_kv_cache_size", {"model": "demo"})
        assert calm["stale"] == []
        run = client.send("rkllm.run", {"model": "demo", "prompt": "[[sim:slow ms=100]]who?", "max_new_tokens": 200})
        with server.client() as other:
            assert other.call("rkllm.get_kv_cache_size", {"model": "demo"}) == calm | {"stale": ["demo:0"]}
            assert client.call("rkllm.abort", {"request": run})["aborted"]
            client.result(run)
            assert other.call("rkllm.get_kv_cache_size", {"model": "demo"})["stale"] == []


def test_a_run_that_obeyed_the_watchdog_s_abort_runs_again_on_the_same_process() -> None:
    model = '[models.demo]\nruntime = "sim"\npath = "builtin:tiny"\nfaults = true\ntoken_timeout_s = 0.4\n'
    model += "first_token_timeout_s = 0.4\nparam = { temperature = 0.0 }\n"
    with Rkvisord(model) as server, server.client() as client:
        calm = client.call("rkllm.run", {"model": "demo", "prompt": "who?", "max_new_tokens": 5})
        (before,) = server.workers()
        slow = "[[sim:slow at=prefill ms=1500 times=1 key=once]]who?"
        stormy = client.call("rkllm.run", {"model": "demo", "prompt": slow, "max_new_tokens": 5})
        assert (stormy["text"], stormy["finish_reason"]) == (calm["text"], calm["finish_reason"])
        assert (stormy["resumed"], server.workers()[0]["pid"]) == (1, before["pid"])
