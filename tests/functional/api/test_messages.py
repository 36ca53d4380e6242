"""Conversations, exact lengths and token resumes of models that name a tokenizer, on the simulator (design §2, §6)."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.api import FAMILIES, Api
from harness.rkvisord import Rkvisord, RpcError
from harness.sim_vocabulary import BYTE, tokenise, tokenizer_json

pytest.importorskip("tokenizers")
pytest.importorskip("jinja2")
pytestmark = pytest.mark.api

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "
SLOW_MODEL = 'name = "slow"\nvocab_size = 1024\nembedding_size = 64\ncontext = 16384\ntoken_ms = 5.0\n'
TALK = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "tell me a story"}]
RENDERED = "system: be brief\nuser: tell me a story\nassistant: "

MODELS = """
[models.demo]
runtime = "sim"
path = "builtin:tiny"
library = "{family}"
spares = 0
workers = 2
faults = true
force_tokens = false
tokenizer = "tokenizer.json"
chat_template = "chat.jinja"
param = {{ max_context_len = 512, max_new_tokens = 60 }}

[models.untold]
runtime = "sim"
path = "untold/slow.toml"
library = "{family}"
spares = 0
workers = 2
faults = true
force_tokens = false
tokenizer = "untold/tokenizer.json"
param = {{ max_context_len = 512, max_new_tokens = 60 }}

[models.bare]
runtime = "sim"
path = "builtin:tiny"
library = "{family}"
spares = 0
faults = true
force_tokens = false
param = {{ max_context_len = 512, max_new_tokens = 20 }}
"""


def put_files(folder: Path) -> None:
    """The files that ``MODELS`` names."""
    (folder / "untold").mkdir()
    for path in (folder / "tokenizer.json", folder / "untold" / "tokenizer.json"):
        path.write_text(tokenizer_json())
    (folder / "chat.jinja").write_text(TEMPLATE)
    (folder / "untold" / "slow.toml").write_text(SLOW_MODEL)


@pytest.fixture(scope="module", params=FAMILIES)
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp(f"m{request.param}")
    put_files(folder)
    models = MODELS.format(family=request.param)
    with Rkvisord(models, folder=folder, supervisor="fault_window_s = 0\npoison_ttl_s = 0") as server:
        connection = Api(server, request.param)
        yield connection
        connection.close()


def refused(api: Api, **params: Any) -> RpcError:
    with pytest.raises(RpcError) as caught:
        api.run(**params)
    return caught.value


# Messages.


def test_messages_are_the_models_template_as_tokens(api: Api) -> None:
    found = api.run(messages=TALK, max_new_tokens=8)
    assert found["token_ids"] == api.run(tokens=tokenise(RENDERED), max_new_tokens=8)["token_ids"]
    assert (found["prompt_tokens"], found["prompt_tokens_estimated"]) == (len(tokenise(RENDERED)), False)
    if found["perf"] is not None:
        assert found["perf"]["prefill_tokens"] == len(tokenise(RENDERED)), "no second template, no other tokens"


def test_a_conversation_that_ends_otherwise_is_answered_otherwise(api: Api) -> None:
    more = [*TALK, {"role": "assistant", "content": "no"}, {"role": "user", "content": "please"}]
    assert (
        api.run(messages=more, max_new_tokens=8)["token_ids"] != api.run(messages=TALK, max_new_tokens=8)["token_ids"]
    )


def test_tools_of_the_model_are_told_to_the_template(api: Api) -> None:
    if api.family in ("f1", "f3"):
        return  # they have no rkllm_set_function_tools
    before = api.run(messages=TALK[1:], max_new_tokens=8)
    api.call("rkllm.set_function_tools", {"model": "demo", "system_prompt": "be brief", "tools": "[]"})
    assert (
        api.run(messages=TALK[1:], max_new_tokens=8)["token_ids"]
        == api.run(messages=TALK, max_new_tokens=8)["token_ids"]
    )
    api.call("rkllm.set_function_tools", {"model": "demo"})
    assert api.run(messages=TALK[1:], max_new_tokens=8)["token_ids"] == before["token_ids"]


def test_without_tokenizer_or_template_the_key_is_named(api: Api) -> None:
    for model, key in (("bare", "tokenizer ="), ("untold", "chat_template =")):
        error = refused(api, model=model, messages=TALK)
        assert error.name == "NOT_SUPPORTED"
        assert key in str(error)


@pytest.mark.validation
@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "user"}],
        [{"role": "", "content": "x"}],
        [{"role": "r" * 65, "content": "x"}],
        [{"role": "user", "content": "a\0b"}],
        [{"role": "user", "content": 5}],
        [{"role": "user", "content": "x", "colour": "red"}],
        [{"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]}],
        [{"role": "user", "content": "x"}] * 1001,
    ],
)
def test_messages_of_another_form_are_refused_and_the_workers_live(messages: Any, api: Api) -> None:
    pids = api.pids()
    assert refused(api, messages=messages).code == -32602
    assert api.pids() == pids


def test_model_info_tells_where_tokenizer_and_template_come_from(api: Api) -> None:
    folder = str(api.server.folder)
    known = {name: api.call("model.info", {"model": name}).result for name in ("demo", "untold", "bare")}
    assert (known["demo"]["tokenizer"], known["demo"]["chat_template"]) == (
        f"{folder}/tokenizer.json",
        f"{folder}/chat.jinja",
    )
    assert (known["untold"]["tokenizer"], known["untold"]["chat_template"]) == (f"{folder}/untold/tokenizer.json", None)
    assert (known["bare"]["tokenizer"], known["bare"]["chat_template"]) == (None, None)


# Lengths.


def test_a_prompt_that_cannot_fit_is_refused_before_the_runtime_sees_it(api: Api) -> None:
    pids = api.pids()
    fits, too_long = "x" * 512, "x" * 513
    for params in (
        {"prompt": too_long},
        {"tokens": [BYTE + 120] * 513},
        {"messages": [{"role": "user", "content": too_long}]},
    ):
        error = refused(api, **params)
        assert error.name == "RKLLM_CONTEXT_ERROR"
        data = error.error["data"]
        assert data["prompt_tokens"] > 512
        assert (data["limit"], data["is_estimate"], data["log"]) == (512, False, [])
    assert api.run(prompt=fits, max_new_tokens=1)["prompt_tokens"] == 512
    assert api.pids() == pids


def test_an_estimate_refuses_nothing_and_says_what_it_is(api: Api) -> None:
    text = " the" * 500  # 500 tokens for the simulator, 667 by the rule of thumb
    found = api.run(model="bare", prompt=text, max_new_tokens=2)
    assert (found["prompt_tokens"], found["prompt_tokens_estimated"]) == (667, True)
    assert len(found["token_ids"]) == 2
    assert api.run(model="demo", prompt=text, max_new_tokens=2)["prompt_tokens"] == 500


# RKLLM's tokenizer callback.


def test_the_runtime_of_f5_is_served_by_the_same_file(tmp_path: Path) -> None:
    """A tokenizer that knows no words: the runtime then counts bytes, if it asks it."""
    described = json.loads(tokenizer_json())
    described["model"]["vocab"] = {word: i for word, i in described["model"]["vocab"].items() if i < BYTE + 256}
    (tmp_path / "bytes.json").write_text(json.dumps(described))
    section = '[models.{name}]\nruntime = "sim"\npath = "builtin:tiny"\nlibrary = "{family}"\n{more}\n'
    models = section.format(name="f5", family="f5", more='tokenizer = "bytes.json"')
    models += section.format(name="f4", family="f4", more='tokenizer = "bytes.json"')
    models += section.format(name="bare", family="f5", more="")
    with Rkvisord(models, folder=tmp_path) as server, server.client() as client:
        read = {
            name: client.call("rkllm.run", {"model": name, "prompt": " tell me", "max_new_tokens": 1})
            for name in ("f5", "f4", "bare")
        }
    assert {name: one["perf"]["prefill_tokens"] for name, one in read.items()} == {
        "f5": len(" tell me"),
        "f4": len(tokenise(" tell me")),
        "bare": len(tokenise(" tell me")),
    }


# Going on after a death.


def stream(api: Api, model: str, **params: Any) -> tuple[list[dict[str, Any]], Any]:
    with api.server.client() as client:
        return client.stream(model=model, **params)


@pytest.mark.resilience
@pytest.mark.parametrize("cut", [1, 20, 39])
def test_a_sampled_answer_goes_on_behind_its_tokens(cut: int, api: Api) -> None:
    """The simulator ignores temperature, so what is continued right is what the undisturbed run says."""
    _, calm = stream(api, "untold", prompt="tell me more", max_new_tokens=40)
    marked = f"[[sim:segv after={cut} times=1 key=c{cut}]]tell me more"
    tokens, stormy = stream(api, "untold", prompt=marked, max_new_tokens=40)
    assert stormy["token_ids"] == calm["token_ids"]
    assert stormy["text"] == calm["text"] == "".join(token["text"] for token in tokens)
    assert [token["seq"] for token in tokens] == list(range(len(tokens)))
    assert (stormy["resumed"], stormy["finish_reason"]) == (1, "length")
    assert stormy["resume"] == "continued" or cut == 1, "the very first token may die with the process that made it"
    assert stormy["prompt_tokens"] == calm["prompt_tokens"] == len(tokenise("tell me more"))


@pytest.mark.resilience
def test_token_input_needs_no_tokenizer_to_go_on(api: Api) -> None:
    marked = tokenise("[[sim:segv after=5 times=1 key=raw]]tell me")
    _, calm = stream(api, "bare", tokens=tokenise("tell me"), max_new_tokens=20)
    _, stormy = stream(api, "bare", tokens=marked, max_new_tokens=20)
    assert (stormy["token_ids"], stormy["resume"]) == (calm["token_ids"], "continued")


@pytest.mark.resilience
def test_a_prompt_without_a_tokenizer_still_ends_with_what_came(api: Api) -> None:
    with pytest.raises(RpcError) as caught:
        stream(api, "bare", prompt="[[sim:segv after=5 times=1 key=end]]tell me", max_new_tokens=20)
    assert caught.value.name == "WORKER_CRASHED"
    assert caught.value.error["data"]["text"]


@pytest.mark.resilience
def test_a_stop_string_counts_from_the_whole_answer(api: Api) -> None:
    _, calm = stream(api, "untold", prompt="tell me more", max_new_tokens=40)
    word = calm["text"].split()[12]
    _, short = stream(api, "untold", prompt="tell me more", max_new_tokens=40, stop=[word])
    marked = "[[sim:segv after=4 times=1 key=stop]]tell me more"
    _, stormy = stream(api, "untold", prompt=marked, max_new_tokens=40, stop=[word])
    assert (stormy["text"], stormy["finish_reason"]) == (short["text"], "stop")


@pytest.mark.resilience
def test_a_request_that_kills_its_continuation_too_is_poison(api: Api) -> None:
    with pytest.raises(RpcError) as caught:
        stream(api, "untold", prompt="[[sim:segv after=6]]tell me", max_new_tokens=40)
    assert caught.value.name == "POISON_REQUEST"


SLOW = """
[models.slow]
runtime = "sim"
path = "slow.toml"
workers = 2
tokenizer = "tokenizer.json"
chat_template = "chat.jinja"
force_tokens = {force}
param = {{ temperature = {temperature} }}
"""


@pytest.mark.resilience
@pytest.mark.parametrize(
    ("force", "temperature", "how"),
    [("true", 0.0, "exact"), ("false", 0.0, "exact"), ("false", 0.8, "continued"), ("true", 0.8, "continued")],
    ids=["forced", "muted", "tokens", "forced-sampled"],
)
def test_a_conversation_survives_a_crash_as_a_prompt_does(
    force: str, temperature: float, how: str, tmp_path: Path
) -> None:
    put_files(tmp_path)
    (tmp_path / "slow.toml").write_text('name = "slow"\nvocab_size = 512\nembedding_size = 32\ntoken_ms = 20.0\n')
    models = SLOW.format(force=force, temperature=temperature)
    with Rkvisord(models, folder=tmp_path) as server, server.client() as client:
        _, calm = client.stream(model="slow", messages=TALK, max_new_tokens=60)

        def kill(seen: int) -> None:
            if seen == 5:  # 55 tokens of 20 ms are still to come: the signal is in time
                for worker in server.workers():
                    os.kill(worker["pid"], signal.SIGSEGV)

        tokens, stormy = client.stream(kill, model="slow", messages=TALK, max_new_tokens=60)
        assert stormy["token_ids"] == calm["token_ids"]
        assert "".join(token["text"] for token in tokens) == stormy["text"]
        assert stormy["resumed"] >= 1
        assert stormy["resume"] == how
        assert stormy["prompt_tokens"] == calm["prompt_tokens"]


# Files that are not there, or broken.


@pytest.mark.errors
@pytest.mark.parametrize(
    ("name", "content", "said"),
    [("tokenizer.json", "{}", "is no tokenizer.json"), ("chat.jinja", "{% if", "no chat template that can be read")],
)
def test_a_broken_file_is_told_by_the_worker_and_by_who_asks(
    name: str, content: str, said: str, tmp_path: Path
) -> None:
    put_files(tmp_path)
    (tmp_path / name).write_text(content)
    with Rkvisord(MODELS.format(family="f5"), folder=tmp_path) as server, server.client() as client:
        assert {worker["state"] for worker in server.workers() if worker["name"].startswith("demo")} == {"FATAL"}
        with pytest.raises(RpcError, match=said):
            client.call("rkllm.run", {"model": "demo", "prompt": "hi"})
        assert client.call("rkllm.run", {"model": "bare", "prompt": "hi", "max_new_tokens": 2})["text"]
