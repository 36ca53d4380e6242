"""``rkllm.pause`` and ``rkllm.resume``: what the callback's value 1 does, reached by a client (S1.17)."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import processes
from harness.api import Answer, Api, model
from harness.llama import runtime_or_skip
from harness.rkvisord import Rkvisord, RpcError

pytestmark = pytest.mark.api

PROMPT = " tell me a story"
LONG = 50
SLOW = 'name = "slow"\nvocab_size = 1024\nembedding_size = 64\ntoken_ms = 10.0\n'
REAL = """
[models.demo]
runtime = "llama"
path = "{path}"
spares = 0
param = {{ temperature = 0.0, max_new_tokens = 40, max_context_len = 512, enabled_cpus_num = 1 }}
"""


def section(name: str, family: str, more: str = "workers = 1") -> str:
    slow = model(name, family, more).replace("builtin:tiny", "slow.toml")
    return slow.replace("max_new_tokens = 8", f"max_new_tokens = {LONG}")


def simulated(family: str) -> str:
    """Several models, each with what the tests of a death and of a limit need."""
    return (
        section("demo", family)
        + section("brief", family, "workers = 1\npause_timeout_s = 0.5")
        + section("quick", family, "workers = 1\ntoken_timeout_s = 1.0\nfirst_token_timeout_s = 2.0")
        + section("bare", family, "workers = 2\nforce_tokens = false")
    )


@pytest.fixture(scope="module", params=["f4", "f5", pytest.param("real", marks=pytest.mark.llama)])
def running(request: pytest.FixtureRequest) -> Iterator[tuple[Rkvisord, str]]:
    family: str = request.param
    text = REAL.format(path=runtime_or_skip()[1]) if family == "real" else simulated(family)
    folder = Path(tempfile.mkdtemp(prefix="rkvp"))
    (folder / "slow.toml").write_text(SLOW)
    with Rkvisord(text, folder=folder, supervisor="fault_window_s = 0") as server:
        yield server, family
    shutil.rmtree(folder)


@pytest.fixture
def api(running: tuple[Rkvisord, str]) -> Iterator[Api]:
    server, family = running
    connection = Api(server, "f5" if family == "real" else family)
    yield connection
    connection.close()


@pytest.fixture
def sim(running: tuple[Rkvisord, str], api: Api) -> Api:
    if running[1] == "real":
        pytest.skip("the simulator shows it")
    return api


class Stream:
    """A streaming request and what came of it so far.  heard: the params of progress notes."""

    def __init__(self, api: Api, **params: Any):
        self.api = api
        self.texts: list[str] = []
        self.heard: list[Any] = []
        self.ended: Any = None
        self.id = api.send("rkllm.run", {"model": "demo", "prompt": PROMPT, "stream": True, **params})

    def until(self, identifier: int) -> Answer:
        """The answer to *identifier*; the tokens before it are kept.  Raises RpcError."""
        while True:
            message, attachments = self.api.receive() if identifier != self.id or not self.ended else (self.ended, [])
            if message.get("method"):
                self.hear(message)
            elif message.get("id") == identifier:
                if "error" in message:
                    raise RpcError(message["error"])
                return Answer(message["result"], attachments)
            elif message.get("id") == self.id:
                self.ended = message

    def tokens(self, count: int) -> None:
        """Back when there were so many tokens."""
        while len(self.texts) < count:
            self.hear(self.api.receive()[0])

    def hear(self, message: Any) -> None:
        """Take a notification of this request."""
        assert message["params"].pop("request") == self.id
        if message["method"] == "rkllm.token":
            self.texts.append(message["params"]["text"])
        else:
            assert message["method"] == "rkvisor.progress"
            self.heard.append(message["params"])

    def phases(self) -> list[str]:
        """What it heard, but for what is told every ten seconds."""
        assert all(one["queue_position"] == 0 for one in self.heard)
        return [phase for phase, _ in itertools.groupby(one["phase"] for one in self.heard)]

    def pause(self) -> bool:
        return bool(self.until(self.api.send("rkllm.pause", {"request": self.id}))["paused"])

    def resume(self, **params: Any) -> bool:
        return bool(self.until(self.api.send("rkllm.resume", {"request": self.id, **params}))["resumed"])

    def end(self) -> Answer:
        return self.until(self.id)


def paused(api: Api, **params: Any) -> Stream:
    """A request that streamed some tokens and is paused."""
    stream = Stream(api, **params)
    stream.tokens(3)
    assert stream.pause()
    return stream


def sizes(api: Api, name: str = "demo") -> list[list[int]]:
    return list(api.call("rkllm.get_kv_cache_size", {"model": name})["workers"].values())


def test_a_paused_request_stands_still_and_then_ends_as_if_nothing_had_been(api: Api) -> None:
    plain = api.run(prompt=PROMPT)
    stream = paused(api)
    assert stream.pause(), "a second pause finds it paused"
    assert stream.phases() == ["paused"]
    assert 0 < stream.heard[0]["timeout_in_s"] <= 300
    held = sizes(api)
    assert held == sizes(api)
    assert api.call("rkllm.is_running", {"request": stream.id})["is_running"] is True
    seen = len(stream.texts)
    assert stream.resume()
    end = stream.end()
    assert seen < len(stream.texts)
    assert stream.phases() == ["paused", "resumed"]
    assert end["text"] == "".join(stream.texts) == plain["text"]
    assert (end["token_ids"], end["finish_reason"], end["resumed"]) == (plain["token_ids"], plain["finish_reason"], 0)


def test_it_can_be_paused_again_and_again(api: Api) -> None:
    plain = api.run(prompt=PROMPT)
    stream = Stream(api)
    for count in (1, 4, 8, 12):
        stream.tokens(count)
        assert stream.pause()
        assert stream.resume()
    assert stream.end()["token_ids"] == plain["token_ids"]


def test_a_paused_request_can_be_aborted_and_the_next_one_starts_afresh(api: Api) -> None:
    plain = api.run(prompt=PROMPT)
    stream = paused(api)
    assert stream.until(api.send("rkllm.abort", {"request": stream.id}))["aborted"] is True
    end = stream.end()
    assert end["finish_reason"] == "abort"
    assert end["text"] == "".join(stream.texts)
    assert plain["text"].startswith(end["text"])
    assert api.run(prompt=PROMPT)["token_ids"] == plain["token_ids"]


def test_a_range_of_the_cache_is_cleared_in_the_paused_request_and_it_goes_on_without(api: Api) -> None:
    plain = api.run(prompt=PROMPT)
    stream = paused(api)
    (size,) = sizes(api)[0]
    params = {"model": "demo", "start": [size - 2], "end": [size]}
    with pytest.raises(RpcError, match="not paused"):
        api.call("rkllm.clear_kv_cache", {**params, "request": 999_999})
    assert api.call("rkllm.clear_kv_cache", {**params, "request": stream.id})["workers"] == ["demo:0"]
    assert sizes(api) == [[size - 2]]
    assert api.call("rkllm.clear_kv_cache", {"model": "demo", "start": [1], "end": [2]})["workers"] == ["demo:0"]
    assert sizes(api) == [[size - 3]]
    assert stream.resume()
    end = stream.end()
    assert end["token_ids"] != plain["token_ids"], "it goes on from what was left"
    assert len(end["token_ids"]) > 4
    with pytest.raises(RpcError):
        api.call("rkllm.clear_kv_cache", params)
    assert api.run(prompt=PROMPT)["token_ids"] == plain["token_ids"]


def test_it_can_go_on_behind_other_text(api: Api) -> None:
    plain = api.run(prompt=PROMPT)
    stream = paused(api)
    before = len(stream.texts)
    assert stream.resume(prompt=" But then the dragon said:")
    end = stream.end()
    assert len(end["token_ids"]) > before
    assert plain["text"][: len("".join(stream.texts[:before]))] == "".join(stream.texts[:before])
    assert end["token_ids"] != plain["token_ids"]
    with pytest.raises(RpcError) as caught:
        api.call("rkllm.resume", {"request": stream.id, "prompt": "a\0b"})
    assert caught.value.code == -32602


def test_what_is_not_paused_is_not_resumed_and_what_is_over_is_not_paused(api: Api) -> None:
    assert api.call("rkllm.pause", {"request": 999_999})["paused"] is False
    assert api.call("rkllm.resume", {"request": 999_999})["resumed"] is False
    stream = Stream(api, max_new_tokens=4)
    stream.tokens(1)
    assert not stream.resume()
    stream.end()
    assert api.call("rkllm.pause", {"request": stream.id})["paused"] is False
    for params in ({}, {"request": 1, "request_key": "a"}):
        for method in ("rkllm.pause", "rkllm.resume"):
            with pytest.raises(RpcError) as caught:
                api.call(method, params)
            assert caught.value.code == -32602


def test_a_request_without_a_stream_is_paused_by_its_key(sim: Api) -> None:
    plain = sim.run(prompt=PROMPT)
    asked = sim.send("rkllm.run", {"model": "demo", "prompt": PROMPT, "request_key": "night"})
    other = Api(sim.server, sim.family)
    assert other.call("rkllm.pause", {"request_key": "night"})["paused"] is True
    assert other.call("rkllm.is_running", {"model": "demo"})["is_running"] is True
    assert other.call("rkllm.resume", {"request_key": "night"})["resumed"] is True
    assert sim.answer(asked)["text"] == plain["text"]
    other.close()


def test_a_pause_that_was_asked_for_while_it_waited_holds_at_its_first_token(sim: Api) -> None:
    plain = sim.run(prompt=PROMPT)
    first = Stream(sim)
    first.tokens(1)
    other = Api(sim.server, sim.family)
    waiting = Stream(other)
    asked = other.send("rkllm.pause", {"request": waiting.id})
    first.end()
    assert waiting.until(asked)["paused"] is True
    assert len(waiting.texts) == 1
    assert waiting.resume()
    assert waiting.end()["text"] == plain["text"]
    other.close()


def test_a_pause_is_no_hang(sim: Api) -> None:
    """The watchdog's budgets, 1 s a token here, do not run while a request is paused."""
    stream = paused(sim, model="quick")
    pid = sim.pids("quick")
    sim.server.wait_until(clock_runs(2.5), "some seconds")
    assert stream.resume()
    assert stream.end()["finish_reason"] == "length"
    assert sim.pids("quick") == pid


def clock_runs(seconds: float) -> Any:
    import time

    until = time.monotonic() + seconds
    return lambda: time.monotonic() > until


def test_a_pause_has_a_limit_and_then_the_request_ends_as_aborted(sim: Api) -> None:
    stream = paused(sim, model="brief")
    end = stream.end()
    assert (end["finish_reason"], end["text"]) == ("abort", "".join(stream.texts))
    assert stream.phases() == ["paused", "pause_timeout"]
    assert sim.run(model="brief", prompt=PROMPT)["finish_reason"] == "length"


@pytest.mark.parametrize("name", ["demo", "bare"])
def test_one_whose_process_died_waits_on_and_resumes_exactly(sim: Api, name: str) -> None:
    plain = sim.run(model=name, prompt=PROMPT)
    stream = paused(sim, model=name)
    busy = busy_pid(sim, name)
    os.kill(busy, signal.SIGKILL)
    sim.server.wait_until(lambda: busy not in sim.pids(name) and 0 not in sim.pids(name), "another process")
    assert stream.pause(), "it is paused, though no process has it"
    assert sim.run(model=name, prompt=PROMPT)["text"] == plain["text"], "the worker serves others meanwhile"
    with pytest.raises(RpcError) as caught:
        stream.resume(prompt=" more")
    assert caught.value.name == "NOT_SUPPORTED"
    assert stream.resume()
    end = stream.end()
    assert stream.phases()[:2] == ["paused", "resumed"]
    assert end["text"] == "".join(stream.texts) == plain["text"]
    assert (end["resumed"], end["resume"]) == (1, "exact")


def busy_pid(api: Api, name: str) -> int:
    """The process of *name* that has a KV cache that stands still: by its title."""
    for pid in api.pids(name):
        if "[paused]" in processes.title(pid):
            return pid
    raise AssertionError("no process is paused")


def test_one_without_a_process_can_be_aborted(sim: Api) -> None:
    stream = paused(sim)
    os.kill(busy_pid(sim, "demo"), signal.SIGKILL)
    sim.server.wait_until(lambda: sim.server.workers()[0]["state"] == "RUNNING" and 0 not in sim.pids(), "a process")
    assert stream.until(sim.send("rkllm.abort", {"request": stream.id}))["aborted"] is True
    assert stream.end()["finish_reason"] == "abort"


def test_one_that_was_edited_cannot_be_had_again_when_its_process_dies(sim: Api) -> None:
    stream = paused(sim)
    sim.call("rkllm.clear_kv_cache", {"model": "demo", "start": [0], "end": [1]})
    os.kill(busy_pid(sim, "demo"), signal.SIGKILL)
    with pytest.raises(RpcError, match="edited while it was paused") as caught:
        stream.end()
    assert caught.value.name == "WORKER_CRASHED"
    assert caught.value.error["data"]["text"] == "".join(stream.texts)
    sim.server.wait_until(lambda: all(sim.pids()), "another process")


def test_another_principals_paused_run_or_none_is_not_touched(sim: Api) -> None:
    with pytest.raises(RpcError):
        sim.call("rkllm.clear_kv_cache", {"model": "demo", "start": [0], "end": [1]})


def test_a_client_that_vanishes_takes_its_paused_request_with_it(sim: Api) -> None:
    stream = paused(Api(sim.server, sim.family))
    stream.api.close()
    assert sim.run(prompt=PROMPT)["finish_reason"] == "length"


def test_what_rkllm_cannot_pause_is_not_supported(sim: Api) -> None:
    """Here it waits behind another, so that it is not over when the pause is asked for."""
    first = Stream(sim)
    first.tokens(1)
    other = Api(sim.server, sim.family)
    for params in ({"mode": "hidden", "prompt": PROMPT}, {"mode": "logits", "prompt": PROMPT}):
        waiting = other.send("rkllm.run", {"model": "demo", **params})
        with pytest.raises(RpcError, match="cannot pause") as caught:
            other.call("rkllm.pause", {"request": waiting})
        assert caught.value.name == "NOT_SUPPORTED"
    first.end()
    other.close()


def test_the_families_before_f4_say_that_they_cannot(tmp_path: Path) -> None:
    (tmp_path / "slow.toml").write_text(SLOW)
    with Rkvisord(section("demo", "f3"), folder=tmp_path) as server:
        api = Api(server, "f3")
        stream = Stream(api)
        stream.tokens(2)
        with pytest.raises(RpcError, match="F3") as caught:
            stream.pause()
        assert caught.value.name == "NOT_SUPPORTED"
        assert stream.end()["finish_reason"] == "length"
        api.close()
