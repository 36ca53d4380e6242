"""The fifteen functions of RKLLM 1.3.0, each called by a plain ZeroMQ client, each by its effect (S1.1–S1.18).

The model is a real one, SmolLM2 in the CPU runtime; cross attention, which it cannot do, runs on the simulator.  The
client is pyzmq and json: nothing of rkvisor's.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from harness.adapter import write_adapter
from harness.llama import ANSWER, QUESTION, runtime_or_skip
from harness.rkvisord import PATIENCE_S, Rkvisord

pytestmark = [pytest.mark.llama, pytest.mark.api]

FUNCTIONS = {
    "rkllm_createDefaultParam", "rkllm_init", "rkllm_destroy", "rkllm_run", "rkllm_run_async", "rkllm_abort",
    "rkllm_is_running", "rkllm_load_lora", "rkllm_load_prompt_cache", "rkllm_release_prompt_cache",
    "rkllm_clear_kv_cache", "rkllm_get_kv_cache_size", "rkllm_set_chat_template", "rkllm_set_function_tools",
    "rkllm_set_cross_attn_params",
}  # fmt: skip
MODELS = """
[models.real]
runtime = "llama"
path = "{path}"
spares = 0
lora_dir = "."
prompt_cache_dir = "."
param = {{ temperature = 0.0, max_new_tokens = 16, max_context_len = 512, enabled_cpus_num = 1 }}
[models.crossed]
runtime = "sim"
path = "builtin:tiny"
library = "f5"
spares = 0
param = {{ use_cross_attn = 1, max_new_tokens = 8 }}
"""
#: SmolLM2's own chat format, without a system prompt.
CHAT = {"prompt_prefix": "<|im_start|>user\n", "prompt_postfix": "<|im_end|>\n<|im_start|>assistant\n"}
STORY = "Tell me a very long story about a fox."


class Peer:
    """A DEALER that speaks JSON-RPC 2.0, as any language's binding would."""

    def __init__(self, endpoint: str):
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.set(zmq.LINGER, 0)
        self.socket.connect(endpoint)
        self.count = 0

    def send(self, method: str, *attachments: bytes, **params: Any) -> int:
        self.count += 1
        body = {"jsonrpc": "2.0", "id": self.count, "method": method, "params": params}
        self.socket.send_multipart([json.dumps(body).encode(), *attachments])
        return self.count

    def receive(self) -> dict[str, Any]:
        assert self.socket.poll(int(PATIENCE_S * 1000)), "no message came"
        message: dict[str, Any] = json.loads(self.socket.recv_multipart()[0])
        return message

    def answer(self, identifier: int) -> dict[str, Any]:
        while (message := self.receive()).get("id") != identifier:
            pass
        return message

    def call(self, method: str, *attachments: bytes, **params: Any) -> Any:
        answer = self.answer(self.send(method, *attachments, **params))
        assert "result" in answer, answer
        return answer["result"]

    def run(self, prompt: str = QUESTION, **params: Any) -> Any:
        return self.call("rkllm.run", model="real", prompt=prompt, **params)

    def worker(self, model: str = "real") -> dict[str, Any]:
        models = self.call("system.status")["models"]
        (found,) = [one for one in models if one["name"] == model]
        worker: dict[str, Any] = found["workers"][0]
        return worker


@pytest.fixture(scope="module")
def server() -> Iterator[Rkvisord]:
    path = runtime_or_skip()[1]
    folder = Path(tempfile.mkdtemp(prefix="rkvf"))  # sockets need a short path
    write_adapter(folder / "fox.gguf")
    with Rkvisord(MODELS.format(path=path), folder=folder) as one:
        yield one
    shutil.rmtree(folder)


@pytest.fixture
def peer(server: Rkvisord) -> Iterator[Peer]:
    one = Peer(server.endpoint)
    one.call("rkllm.set_chat_template", model="real", **CHAT)
    yield one
    one.socket.close()


def test_both_runtimes_have_all_fifteen(peer: Peer) -> None:
    for model in ("real", "crossed"):
        assert set(peer.call("model.info", model=model)["functions"]) == FUNCTIONS


def test_create_default_param(peer: Peer) -> None:
    found = peer.call("rkllm.createDefaultParam", model="real")
    expected = {"max_context_len": 512, "max_new_tokens": 512, "top_k": 40, "mirostat": 0, "n_batch": 1, "n_keep": 0}
    assert {name: found[name] for name in expected} == expected
    assert found["top_p"] == pytest.approx(0.9)
    assert found["temperature"] == pytest.approx(0.8), "the library's default, not what this model is configured with"


def mapped(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()


def test_init_and_destroy(peer: Peer) -> None:
    """``model.load`` and ``model.unload``: the library and the weights are in a process, and then there is none."""
    before = peer.worker()["pid"]
    assert "librkllmrt_llama.so" in mapped(before)
    assert ".gguf" in mapped(before)
    assert peer.call("model.unload", model="real")["state"] == "STOPPED"
    assert not Path(f"/proc/{before}").exists()
    refused = peer.answer(peer.send("rkllm.run", model="real", prompt=QUESTION))
    assert refused["error"]["data"]["name"] == "MODEL_UNAVAILABLE"
    assert peer.call("model.load", model="real")["state"] == "RUNNING"
    after = peer.worker()["pid"]
    assert after != before
    assert ".gguf" in mapped(after)
    assert peer.run()["text"].startswith(ANSWER)


def test_run(peer: Peer) -> None:
    found = peer.run()
    assert found["text"].startswith(ANSWER)
    assert found["finish_reason"] in ("stop", "length")
    perf = found["perf"]
    assert perf["prefill_tokens"] > 5
    assert perf["generate_tokens"] >= 7
    assert min(perf["prefill_time_ms"], perf["generate_time_ms"], perf["memory_usage_mb"]) > 0


def test_run_async(peer: Peer) -> None:
    """A stream is a run that does not wait: its tokens come one by one, and the connection serves other calls."""
    running = peer.send("rkllm.run", model="real", prompt=QUESTION, stream=True)
    asked = peer.send("system.version")
    seen: list[Any] = []
    while True:
        message = peer.receive()
        if message.get("method") == "rkllm.token":
            assert message["params"]["request"] == running
            seen.append(message["params"]["text"])
        elif "id" in message:
            seen.append(message["id"])
            if message["id"] == running:
                break
    texts = [one for one in seen if isinstance(one, str)]
    assert seen.index(asked) < seen.index(running)
    assert len(texts) > 5
    assert "".join(texts) == message["result"]["text"]
    assert message["result"]["text"].startswith(ANSWER)


def test_abort_and_is_running(peer: Peer) -> None:
    assert peer.call("rkllm.is_running", model="real") == {"is_running": False}
    running = peer.send("rkllm.run", model="real", prompt=STORY, stream=True, max_new_tokens=400)
    while peer.receive().get("method") != "rkllm.token":
        pass
    assert peer.call("rkllm.is_running", request=running) == {"is_running": True}
    assert peer.call("rkllm.is_running", model="real") == {"is_running": True}
    assert peer.call("rkllm.abort", request=running) == {"aborted": True}
    result = peer.answer(running)["result"]
    assert result["finish_reason"] == "abort"
    assert 1 <= len(result["token_ids"]) < 400
    assert peer.call("rkllm.is_running", model="real") == {"is_running": False}
    assert peer.run()["text"].startswith(ANSWER)


def test_load_lora(peer: Peer) -> None:
    peer.call("rkllm.load_lora", model="real", path="fox.gguf", name="fox", scale=50.0)
    plain, styled = peer.run(), peer.run(lora="fox")
    assert plain["text"].startswith(ANSWER)
    assert styled["token_ids"] != plain["token_ids"]
    assert peer.run()["token_ids"] == plain["token_ids"]


def test_load_and_release_prompt_cache(peer: Peer, server: Rkvisord) -> None:
    plain = peer.run(prompt_cache="question.cache")
    assert (server.folder / "question.cache").stat().st_size > 1000
    peer.call("rkllm.load_prompt_cache", model="real", path="question.cache")
    cached = peer.run()
    assert cached["token_ids"] == plain["token_ids"]
    assert cached["perf"]["prefill_tokens"] == 1 < plain["perf"]["prefill_tokens"], "the rest was read from the file"
    peer.call("rkllm.release_prompt_cache", model="real")
    assert peer.run()["perf"]["prefill_tokens"] == plain["perf"]["prefill_tokens"]


def test_get_and_clear_kv_cache(peer: Peer) -> None:
    perf = peer.run()["perf"]
    (size,) = peer.call("rkllm.get_kv_cache_size", model="real")["workers"]["real:0"]
    assert perf["prefill_tokens"] <= size <= perf["prefill_tokens"] + perf["generate_tokens"]
    peer.call("rkllm.clear_kv_cache", model="real")
    assert peer.call("rkllm.get_kv_cache_size", model="real")["workers"]["real:0"] == [0]


def test_set_chat_template(peer: Peer) -> None:
    plain = peer.run()
    peer.call("rkllm.set_chat_template", model="real", system_prompt="", prompt_prefix="", prompt_postfix="")
    bare = peer.run()
    assert bare["perf"]["prefill_tokens"] < plain["perf"]["prefill_tokens"], "the prompt alone"
    peer.call("rkllm.set_chat_template", model="real", prompt_prefix="Say only: blue. ", prompt_postfix="")
    assert peer.run()["perf"]["prefill_tokens"] > bare["perf"]["prefill_tokens"]
    peer.call("rkllm.set_chat_template", model="real", **CHAT)
    assert peer.run()["token_ids"] == plain["token_ids"]


TOOLS = [{"type": "function", "function": {"name": "temperature_of", "parameters": {"city": {"type": "string"}}}}]


def test_set_function_tools(peer: Peer) -> None:
    """The tools stand in the prompt, and a tool's reply goes in with the role "tool"."""
    plain = peer.run()
    tools = {"system_prompt": "Use the tools.", "tools": json.dumps(TOOLS), "tool_response": "<tool_response>"}
    peer.call("rkllm.set_function_tools", model="real", **tools)
    found = peer.run()
    assert found["perf"]["prefill_tokens"] > plain["perf"]["prefill_tokens"] + 20, "the tools were read, too"
    assert found["token_ids"] != plain["token_ids"]
    said = peer.run('{"celsius": 21}', role="tool")
    asked = peer.run('{"celsius": 21}', role="user")
    assert said["token_ids"] != asked["token_ids"] or said["perf"]["prefill_tokens"] != asked["perf"]["prefill_tokens"]
    peer.call("rkllm.set_function_tools", model="real", system_prompt="", tools="[]", tool_response="")


def set_cross_attention(peer: Peer, model: str, first: float) -> dict[str, Any]:
    rows = array("f", [first, *range(7)]).tobytes()
    mask, positions = array("f", [1, 1]).tobytes(), array("i", [0, 1]).tobytes()
    tensors = {
        "encoder_k_cache": {"attachment": 0, "shape": [2, 4]},
        "encoder_v_cache": {"attachment": 0, "shape": [2, 4]},
        "encoder_mask": {"attachment": 1, "shape": [2]},
        "encoder_pos": {"attachment": 2, "shape": [2], "dtype": "int32"},
    }
    method = "rkllm.set_cross_attn_params"
    return peer.answer(peer.send(method, rows, mask, positions, model=model, num_tokens=2, **tensors))


def test_set_cross_attn_params(peer: Peer) -> None:
    """Its numbers take part in the answer; what a text model cannot do with them, it says."""

    def crossed(first: float) -> str:
        assert set_cross_attention(peer, "crossed", first)["result"] == {"workers": ["crossed:0"]}
        return str(peer.call("rkllm.run", model="crossed", prompt="tell me", temperature=0.0)["text"])

    once, again, other = crossed(1.0), crossed(1.0), crossed(2.0)
    assert once == again != other
    error = set_cross_attention(peer, "real", 1.0)["error"]
    assert error["data"]["source"] == "RKLLM"
    assert re.search("cross attention is not supported", " ".join(error["data"]["log"]))
