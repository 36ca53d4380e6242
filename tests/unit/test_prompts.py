"""What a model makes of the inputs of its runs: tokens, lengths, and where a resumed run goes on (design §2, §6)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.gguf_vocabulary import vocabulary, write
from harness.sim_vocabulary import tokenise, tokenizer_json
from rkvisor.protocol.errors import InvalidParams, NotSupported, RkllmFailure
from rkvisor.protocol.link import Load, Run
from rkvisor.protocol.params import decode_params
from rkvisor.protocol.run import RunParams
from rkvisor.worker.prompts import Length, Prompts, check_context
from rkvisor.worker.tokenizer import CannotTokenize, Tokenizer

pytest.importorskip("tokenizers")
pytest.importorskip("jinja2")

TEMPLATE = (
    "{% if tools %}{{ tools | length }} tools {% endif %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if enable_thinking %}think {% endif %}{{ strftime_now('%Y') if 'when' in messages[-1].content }}"
)
FIRST = Run(worker="demo:0")
TALK = [{"role": "user", "content": "tell me"}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tokenizer.json").write_text(tokenizer_json())
    (tmp_path / "chat.jinja").write_text(TEMPLATE)
    (tmp_path / "empty.jinja").write_text("")
    return tmp_path


def prompts(folder: Path, template: str | None = "chat.jinja", **more: Any) -> Prompts:
    """Those of a simulated model with a tokenizer."""
    chosen = str(folder / template) if template is not None else None
    load: dict[str, Any] = {"runtime": "sim", "path": "tiny.toml", "tokenizer": str(folder / "tokenizer.json")}
    return Prompts(Load(**({"worker": "demo:0", "chat_template": chosen} | load | more)))


def run(**members: Any) -> RunParams:
    return RunParams(**({"model": "demo"} | members))


def asked(**members: Any) -> RunParams:
    """Params as they come over the wire."""
    import msgspec

    params: RunParams = decode_params(RunParams, msgspec.json.encode({"model": "demo"} | members))
    return params


# Conversations.


def test_messages_are_given_to_the_runtime_as_raw_tokens(folder: Path) -> None:
    """So that no second template is applied (design §2)."""
    found = prompts(folder).resolve(asked(messages=TALK), FIRST)
    assert found.messages is None
    assert found.tokens == tokenise("user: tell me\n")


def test_thinking_tools_and_system_prompt_reach_the_template(folder: Path) -> None:
    model = prompts(folder)
    model.set_tools("be brief", '{"name": "f"}')
    found = model.resolve(asked(messages=TALK, enable_thinking=True), FIRST)
    assert found.tokens == tokenise("1 tools system: be brief\nuser: tell me\nthink ")
    own = [{"role": "system", "content": "mine"}, *TALK]
    assert model.resolve(asked(messages=own), FIRST).tokens == tokenise("1 tools system: mine\nuser: tell me\n")
    model.set_tools("", "no json")
    assert model.resolve(asked(messages=TALK), FIRST).tokens == tokenise("user: tell me\n")


def test_every_attempt_of_a_request_has_the_same_prompt(folder: Path) -> None:
    params = asked(messages=[{"role": "user", "content": "when"}])
    run_1971 = Run(worker="demo:0", time_s=86_400.0 * 400)
    assert prompts(folder).resolve(params, run_1971).tokens == tokenise("user: when\n1971")


def test_messages_that_become_nothing_are_refused(folder: Path) -> None:
    with pytest.raises(InvalidParams, match="makes no text of them"):
        prompts(folder, "empty.jinja").resolve(asked(messages=TALK), FIRST)


@pytest.mark.parametrize(
    ("more", "key"),
    [({"tokenizer": None}, 'tokenizer = "tokenizer.json"'), ({"chat_template": None}, 'chat_template = "FILE"')],
)
def test_what_is_missing_is_named_by_its_key(more: dict[str, Any], key: str, folder: Path) -> None:
    with pytest.raises(NotSupported, match=key):
        prompts(folder, **more).resolve(asked(messages=TALK), FIRST)


def test_other_inputs_stay_as_they_are(folder: Path) -> None:
    for params in (run(prompt="hi"), run(tokens=[5]), run(prompts=["a", "b"])):
        assert prompts(folder).resolve(params, FIRST) is params


# Going on.


def going_on(*ids: int, time_s: float = 0.0) -> Run:
    return Run(worker="demo:1", resume="tokens", ids=list(ids), time_s=time_s)


def test_a_run_goes_on_behind_prompt_and_tokens_so_far(folder: Path) -> None:
    model = prompts(folder, None)
    found = model.resolve(run(prompt="tell me", prompt_cache="/x"), going_on(7, 8))
    assert (found.prompt, found.tokens) == (None, [*tokenise("tell me"), 7, 8])
    assert found.prompt_cache is None, "the first attempt wrote it; now it would hold the answer too"
    assert model.resolve(run(tokens=[3, 4]), going_on(7)).tokens == [3, 4, 7]


def test_a_prompt_goes_on_dressed_as_the_runtime_dressed_it(folder: Path) -> None:
    model = prompts(folder)
    params = run(prompt="hi", role="tool", enable_thinking=True)
    assert model.resolve(params, going_on(7)).tokens == [*tokenise("tool: hi\nthink "), 7]
    model.set_parts("S", "<", ">")
    assert model.resolve(params, going_on(7)).tokens == [*tokenise("S<hi>"), 7]


def test_a_conversation_goes_on_behind_the_same_prompt(folder: Path) -> None:
    model = prompts(folder)
    before = model.resolve(asked(messages=TALK), FIRST).tokens
    assert before
    assert model.resolve(asked(messages=TALK), going_on(7, 8)).tokens == [*before, 7, 8]


# Lengths.


def length(model: Prompts, params: RunParams, how: Run = FIRST) -> Length:
    return model.measure(params, model.resolve(params, how), how)


def test_lengths_are_exact_with_a_tokenizer_in_every_attempt(folder: Path) -> None:
    model = prompts(folder)
    for how in (FIRST, going_on(7, 8, 9)):
        assert length(model, run(prompt="tell me"), how) == Length(len(tokenise("tell me")))
        assert length(model, asked(messages=TALK), how) == Length(len(tokenise("user: tell me\n")))
        assert length(model, run(tokens=[1, 2]), how) == Length(2)
    assert length(model, run(prompts=["a", "abc"])) == Length(3)


def test_without_a_tokenizer_they_are_estimates_of_a_third_of_the_bytes(folder: Path) -> None:
    model = prompts(folder, None, tokenizer=None)
    assert length(model, run(prompt="é" * 5)) == Length(4, is_estimate=True)
    assert length(model, run(prompts=["a", "a" * 9])) == Length(3, is_estimate=True)
    assert length(model, run(prompt="")) == Length(0, is_estimate=True)
    assert length(model, run(tokens=[1, 2])) == Length(2), "ids need no tokenizer"


def test_rows_of_embeddings_are_counted_and_media_are_estimates(folder: Path) -> None:
    model = prompts(folder)
    rows = {"attachment": 0, "shape": [2, 3, 64]}
    assert length(model, asked(embed=rows)) == Length(6)
    assert length(model, asked(embed=[[1.0, 2.0]] * 4)) == Length(4)
    image = {"embed": rows, "n_image_tokens": 3, "n_image": 2}
    video = {"embed": rows, "n_frame_tokens": 5, "n_frame_per_video": 2, "n_video": 2}
    media = {"prompt": "abc", "image": image, "video": video}
    assert length(model, asked(multimodal=media)) == Length(3 + 6 + 20, is_estimate=True)


def test_a_fault_marker_does_not_count(folder: Path) -> None:
    marked = run(prompt="[[sim:segv after=3]]tell me")
    assert length(prompts(folder, faults=True), marked).tokens == len(tokenise("tell me"))
    assert length(prompts(folder), marked).tokens > len(tokenise("tell me"))


@pytest.mark.parametrize(("tokens", "is_estimate"), [(512, False), (10_000, True)])
def test_what_may_fit_is_let_through(tokens: int, is_estimate: bool) -> None:
    check_context(Length(tokens, is_estimate), 512, "demo:0")


def test_what_cannot_fit_is_refused_with_the_numbers() -> None:
    with pytest.raises(RkllmFailure) as caught:
        check_context(Length(513), 512, "demo:0")
    error = caught.value.to_object(0.0)
    assert error["data"]["name"] == "RKLLM_CONTEXT_ERROR"
    assert {"prompt_tokens": 513, "is_estimate": False, "limit": 512}.items() <= error["data"].items()
    assert not error["data"]["retryable"]


@pytest.mark.parametrize("how", ["messages", "prompt", "multimodal"])
def test_an_endless_text_is_refused_by_its_beginning(how: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it would take a gigabyte and the time in which a worker counts as hung."""
    model = prompts(folder)
    model.max_context = 512
    text = "x" * 4_000_000
    image = {"embed": {"attachment": 0, "shape": [1, 64]}, "n_image_tokens": 1}
    given = {
        "messages": [{"role": "user", "content": text}],
        "prompt": text,
        "multimodal": {"prompt": text, "image": image},
    }
    read: list[int] = []
    encode = Tokenizer.encode
    monkeypatch.setattr(Tokenizer, "encode", lambda self, text: (read.append(len(text)), encode(self, text))[1])
    with pytest.raises(RkllmFailure, match="at least") as caught:
        length(model, asked(**{how: given[how]}))
    assert sum(read) < 20_000
    assert caught.value.data["prompt_tokens"] > 512
    assert caught.value.data["is_estimate"], "it is a lower bound"


def test_a_long_text_of_few_tokens_is_read_to_its_end(folder: Path) -> None:
    described = json.loads(tokenizer_json())
    described["model"]["vocab"]["y" * 100] = 600
    (folder / "tokenizer.json").write_text(json.dumps(described))
    model = prompts(folder)
    model.max_context = 512
    text = ("y" * 100 + ".") * 200
    assert length(model, run(prompt=text)) == Length(400)
    assert length(model, run(prompt=text * 3)) == Length(1200), "too long, but not so that its beginning tells"


# What a GGUF file carries.


def carried(tmp_path: Path, *, runtime: str = "llama", template: str | None = "chat", **changes: Any) -> Prompts:
    entries = vocabulary(**changes)
    if template is not None:
        entries["tokenizer.chat_template"] = "{% for m in messages %}{{ m.content }}{% endfor %}"
    path = str(write(tmp_path / "model.gguf", entries))
    return Prompts(Load(worker="demo:0", runtime=runtime, path=path))


def test_a_gguf_file_brings_both_and_loads_them_when_they_are_needed(tmp_path: Path) -> None:
    model = carried(tmp_path)
    path = str(tmp_path / "model.gguf")
    assert (model.has_tokenizer, model.tokenizer_source, model.template_source) == (True, path, path)
    assert model.callback is None, "libllama has the vocabulary itself"
    assert length(model, run(prompt="abc")) == Length(1, is_estimate=True)
    assert model.resolve(asked(messages=[{"role": "user", "content": "abc"}]), FIRST).tokens == [8]
    assert length(model, run(prompt="abc")) == Length(1, is_estimate=True), "as before: not by what came meanwhile"


def test_a_gguf_file_that_has_gone_is_told_by_the_request_that_needs_it(tmp_path: Path) -> None:
    model = carried(tmp_path)
    (tmp_path / "model.gguf").unlink()
    with pytest.raises(NotSupported, match="cannot turn the input into tokens"):
        model.resolve(asked(messages=TALK), FIRST)


def test_an_unknown_vocabulary_leaves_estimates_and_says_so(tmp_path: Path) -> None:
    model = carried(tmp_path, model="llama")
    assert (model.has_tokenizer, model.template_source) == (False, None)
    with pytest.raises(NotSupported, match=r"of the type 'llama'.*tokenizer = "):
        model.resolve(asked(messages=TALK), FIRST)


def test_a_gguf_file_without_a_template_needs_the_key(tmp_path: Path) -> None:
    model = carried(tmp_path, template=None)
    assert (model.has_tokenizer, model.template_source) == (True, None)
    with pytest.raises(NotSupported, match="chat_template = "):
        model.resolve(asked(messages=TALK), FIRST)


@pytest.mark.parametrize("file", ["tokenizer.json", "chat.jinja"])
def test_broken_files_are_seen_when_the_model_loads(file: str, folder: Path) -> None:
    (folder / file).write_text("{% broken")
    with pytest.raises(CannotTokenize, match=file):
        prompts(folder)
