"""The RKLLM API over JSON-RPC with a real model: SmolLM2 in the CPU runtime."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.api import Api, floats, ref
from harness.llama import ANSWER, QUESTION, runtime_or_skip
from harness.rkvisord import Rkvisord, RpcError

pytestmark = [pytest.mark.llama, pytest.mark.api]

WIDTH, VOCABULARY = 576, 49_152  # of SmolLM2-135M
#: SmolLM2's own chat format, without a system prompt.
CHAT = {
    "system_prompt": "",
    "prompt_prefix": "<|im_start|>user\n",
    "prompt_postfix": "<|im_end|>\n<|im_start|>assistant\n",
}
MODEL = """
[models.demo]
runtime = "llama"
path = "{path}"
spares = 0
prompt_cache_dir = "."
param = {{ temperature = 0.0, max_new_tokens = 16, max_context_len = 512, enabled_cpus_num = 1 }}
"""


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with Rkvisord(MODEL.format(path=runtime_or_skip()[1]), supervisor="fault_window_s = 0") as server:
        connection = Api(server, "f5")
        connection.call("rkllm.set_chat_template", {"model": "demo", **CHAT})
        yield connection
        connection.close()


def test_a_question_is_answered_on_a_new_worker_too(api: Api) -> None:
    first = api.run(prompt=QUESTION)
    assert first["text"].startswith(ANSWER)
    api.replace("demo")
    assert api.run(prompt=QUESTION)["token_ids"] == first["token_ids"]


def test_the_likeliest_token_of_the_last_logits_is_the_next_token(api: Api) -> None:
    found = api.run(prompt=QUESTION, mode="logits")
    last = found.rows("logits")[-1]
    assert len(last) == VOCABULARY
    assert last.index(max(last)) == api.run(prompt=QUESTION)["token_ids"][0]


def test_hidden_states_are_as_wide_as_the_model(api: Api) -> None:
    rows = api.run(tokens=[1, 2, 3], mode="hidden").rows("hidden_states")
    assert [len(row) for row in rows] in ([WIDTH] * 3, [WIDTH])
    assert rows[-1] != api.run(tokens=[3, 2, 1], mode="hidden").rows("hidden_states")[-1]


def test_embeddings_generate_and_those_of_another_width_are_refused(api: Api) -> None:
    pids = api.pids()
    assert api.run(floats(*[0.01] * 2 * WIDTH), embed=ref(0, 2, WIDTH))["finish_reason"] in ("length", "stop")
    for width in (64, WIDTH - 1, WIDTH * 2):
        with pytest.raises(RpcError) as caught:
            api.run(floats(*[0.01] * 2 * width), embed=ref(0, 2, width))
        assert caught.value.code == -32602
    assert api.pids() == pids


def test_tokens_outside_the_vocabulary_and_beyond_the_context_are_refused(api: Api) -> None:
    pids = api.pids()
    for tokens, names in (
        ([VOCABULARY], {"INVALID_PARAMS"}),
        ([5] * 513, {"RKLLM_CONTEXT_ERROR"}),
    ):
        with pytest.raises(RpcError) as caught:
            api.run(tokens=tokens)
        assert caught.value.name in names
    assert api.pids() == pids


def test_a_prompt_cache_is_saved_loaded_and_released(api: Api) -> None:
    plain = api.run(prompt=QUESTION, prompt_cache="question.cache")
    assert plain["perf"]["prefill_tokens"] > 5
    api.call("rkllm.load_prompt_cache", {"model": "demo", "path": "question.cache"})
    for _ in range(2):  # a prompt that begins as the cached one is not computed again, on a new worker neither
        found = api.run(prompt=QUESTION)
        assert (found["token_ids"], found["perf"]["prefill_tokens"]) == (plain["token_ids"], 1)
        api.replace("demo")
    api.call("rkllm.release_prompt_cache", {"model": "demo"})
    assert api.run(prompt=QUESTION)["perf"]["prefill_tokens"] == plain["perf"]["prefill_tokens"]


def test_the_kv_cache_is_counted(api: Api) -> None:
    perf = api.run(prompt=QUESTION)["perf"]
    sizes = api.call("rkllm.get_kv_cache_size", {"model": "demo"})["workers"]["demo:0"]
    assert sizes[0] >= perf["prefill_tokens"]
    api.call("rkllm.clear_kv_cache", {"model": "demo"})
    assert api.call("rkllm.get_kv_cache_size", {"model": "demo"})["workers"] == {"demo:0": [0]}
