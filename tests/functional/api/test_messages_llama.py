"""Tokens and conversations of a real model: SmolLM2, whose GGUF file brings vocabulary and template (design §2)."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.api import Api
from harness.child import tell
from harness.gguf_vocabulary import under_another_rule
from harness.llama import ANSWER, QUESTION, runtime_or_skip
from harness.rkvisord import Rkvisord
from rkvisor.worker.tokenizer import CUTS, load

pytest.importorskip("tokenizers")
pytest.importorskip("jinja2")
pytestmark = [pytest.mark.llama, pytest.mark.api]

TALK = [{"role": "user", "content": QUESTION}]
#: SmolLM2's own chat format without a system prompt, which its template would add.  Jinja drops the last newline.
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n\n"
)
PIECES = [
    *(
        "a",
        "B",
        "the",
        "don't",
        "I'M",
        "1",
        "23",
        "456",
        "x=1;",
        "return",
        "user",
        "_",
        "-",
        "..",
        "!!!",
        "{}",
        "'",
        "©",
    ),
    *("<|im_end|>", "<|im_start|>", "é", "ß", "a\u0301", "東京", "日本", "٣", "Ⅷ", "½", "\ufffd"),
    *("\U0001f600", "\U0001f469\u200d\U0001f469\u200d\U0001f467"),
]
SPACES = ["", " ", "  ", "\n", "\n\n", "\t", "\r\n", " \n ", "\u00a0", "\u2003", "\u200b"]


def texts(count: int = 1500) -> list[str]:
    """Words, scripts and spaces in all neighbourhoods; the same every time."""
    chance = random.Random(11)
    found = [
        "".join(chance.choice(PIECES) + chance.choice(SPACES) for _ in range(chance.randrange(1, 20)))
        for _ in range(count)
    ]
    characters = (chr(number) for number in (chance.randrange(1, 0x30000) for _ in range(count)))
    return found + [f"{one}{one} a{one}" for one in characters if one.isprintable()]


# The vocabulary.


@pytest.mark.parametrize("pre", sorted(CUTS))
def test_ids_are_those_of_libllama_under_every_rule_that_is_known(pre: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is not importable: nothing to compare with")
    path = under_another_rule(runtime_or_skip()[1], pre, tmp_path / "vocabulary.gguf")
    asked = texts()
    theirs = json.loads(tell("harness.libllama", str(path), text=json.dumps(asked)))
    ours = load(str(path))
    different = [text for text, ids in zip(asked, theirs, strict=True) if ours.encode(text) != ids]
    assert different == []


# A server.


MODELS = """
[models.demo]
runtime = "llama"
path = "{path}"
workers = 2
spares = 0
prompt_cache_dir = "."
chat_template = "chat.jinja"
param = {{ temperature = 0.0, max_new_tokens = 32, max_context_len = 512, enabled_cpus_num = 1 }}

[models.named]
runtime = "llama"
path = "{path}"
workers = 1
spares = 0
tokenizer = "{path}"
param = {{ temperature = 0.0, max_new_tokens = 16, max_context_len = 512, enabled_cpus_num = 1 }}
"""


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("ml")
    (folder / "chat.jinja").write_text(CHAT)
    with Rkvisord(MODELS.format(path=runtime_or_skip()[1]), folder=folder, supervisor="fault_window_s = 0") as server:
        connection = Api(server, "f5")
        yield connection
        connection.close()


def cached_ids(path: Path) -> list[int]:
    """The ids in a prompt cache file of the CPU runtime: a header of 40 bytes, their number its third, then int32."""
    data = path.read_bytes()
    count = struct.unpack_from("<Q", data, 16)[0]
    return list(struct.unpack_from(f"<{count}i", data, 40))


def test_a_conversation_is_given_as_the_tokens_that_the_runtime_makes_of_the_prompt(api: Api) -> None:
    by_prompt = api.run(prompt=QUESTION, prompt_cache="prompt.cache")
    by_messages = api.run(messages=TALK, prompt_cache="messages.cache")
    folder = api.server.folder
    ids = cached_ids(folder / "messages.cache")
    assert ids == cached_ids(folder / "prompt.cache")
    assert by_messages["prompt_tokens"] == len(ids) == by_messages["perf"]["prefill_tokens"]
    assert not by_messages["prompt_tokens_estimated"]
    assert by_prompt["prompt_tokens_estimated"]
    assert by_messages["token_ids"] == by_prompt["token_ids"]
    assert by_messages["text"].startswith(ANSWER)


def test_the_files_own_template_is_used_where_none_is_named(api: Api) -> None:
    """It puts a system prompt before the conversation, so the prompt is longer."""
    told = api.call("model.info", {"model": "named"}).result
    assert told["tokenizer"] == told["chat_template"] == str(runtime_or_skip()[1])
    plain = api.run(messages=TALK)["prompt_tokens"]
    assert api.run(model="named", messages=TALK)["prompt_tokens"] > plain
    system = [{"role": "system", "content": ""}, *TALK]
    assert api.run(model="named", messages=system)["prompt_tokens"] < plain + 10


def test_a_named_tokenizer_counts_prompts_and_serves_the_runtimes_callback(api: Api) -> None:
    found = api.run(model="named", prompt=QUESTION)
    assert (found["prompt_tokens"], found["prompt_tokens_estimated"]) == (7, False)
    assert found["text"].startswith(ANSWER), "the callback's ids are those of the vocabulary"
    assert found["perf"]["prefill_tokens"] == api.run(prompt=QUESTION)["perf"]["prefill_tokens"]


@pytest.mark.resilience
def test_a_conversation_goes_on_exactly_where_a_crash_cut_it(api: Api) -> None:
    params = {"model": "demo", "messages": [{"role": "user", "content": "Tell me a long story."}]}
    with api.server.client() as client:
        _, calm = client.stream(**params)

        def kill(seen: int) -> None:
            if seen == 4:  # the rest takes half a second: the signal is in time
                for pid in api.pids():
                    os.kill(pid, signal.SIGSEGV)

        tokens, stormy = client.stream(kill, **params)
    assert "".join(token["text"] for token in tokens) == stormy["text"]
    assert stormy["token_ids"] == calm["token_ids"]
    assert (stormy["resumed"] >= 1, stormy["resume"]) == (True, "exact")
