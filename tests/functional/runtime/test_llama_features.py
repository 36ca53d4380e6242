"""The CPU runtime beyond plain generation: tensors, embeddings, templates, tools, caches, adapters, refusals."""

from __future__ import annotations

import ctypes
import math
import random
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.adapter import write_adapter
from harness.llama import ANSWER, QUESTION, runtime_or_skip, start
from harness.rkllm_f5 import (
    ERROR,
    FINISH,
    HIDDEN,
    LOGITS,
    MULTIMODAL,
    NORMAL,
    EmbedCallback,
    Infer,
    Input,
    Lora,
    Run,
    Runtime,
    TokenizerCallback,
    load,
)

pytestmark = [pytest.mark.llama, pytest.mark.api]

WIDTH, VOCABULARY = 576, 49152
IDS = [504, 3575, 282, 4649, 314]  # "The capital of France is"


def best(row: list[float]) -> int:
    return max(range(len(row)), key=row.__getitem__)


def test_logits_come_for_every_token_and_the_best_of_the_last_is_what_greedy_takes(runtime: Runtime) -> None:
    run = runtime.run(tokens=IDS, mode=LOGITS)
    assert (run.status, run.states, run.shape) == (0, [NORMAL, FINISH], (len(IDS), VOCABULARY))
    assert best(run.logits[-VOCABULARY:]) == runtime.run(tokens=IDS, max_new_tokens=1).ids[0]


def test_hidden_states_come_for_every_token_and_change_with_it(runtime: Runtime) -> None:
    run = runtime.run(tokens=IDS, mode=HIDDEN)
    assert (run.states, run.shape) == ([NORMAL, FINISH], (len(IDS), WIDTH))
    assert all(map(math.isfinite, run.hidden))
    other = runtime.run(tokens=[*IDS[:-1], IDS[0]], mode=HIDDEN).hidden
    assert other[: WIDTH * 4] == pytest.approx(run.hidden[: WIDTH * 4], abs=0.05)
    assert other[-WIDTH:] != pytest.approx(run.hidden[-WIDTH:], abs=0.05)
    assert runtime.run(QUESTION).text == ANSWER, "a generation after it is an ordinary one"


def test_tensors_of_more_tokens_than_a_batch_are_whole(runtime: Runtime) -> None:
    run = runtime.run(tokens=IDS * 30, mode=HIDDEN)
    assert run.shape == (150, WIDTH)
    assert len(run.hidden) == 150 * WIDTH
    assert run.hidden[: WIDTH * 5] == pytest.approx(runtime.run(tokens=IDS, mode=HIDDEN).hidden, abs=0.05)


def test_embeddings_go_in_and_leave_nothing_behind_for_the_next_run(runtime: Runtime) -> None:
    draw = random.Random(3)
    rows = [draw.gauss(0, 0.1) for _ in range(4 * WIDTH)]
    first = runtime.run(embed=rows, n_embed=4, max_new_tokens=6)
    assert (first.status, first.states[-1], len(first.ids)) == (0, FINISH, 6)
    assert runtime.run(embed=rows, n_embed=4, max_new_tokens=6).ids == first.ids
    runtime.run(embed=[math.nan] * (200 * WIDTH), n_embed=200, max_new_tokens=1)
    assert runtime.run(QUESTION).text == ANSWER


def test_the_programs_own_tokenizer_and_embeddings_are_used() -> None:
    seen: list[bytes] = []
    asked: list[int] = []

    def tokenize(_: int | None, text: bytes, size: int, ids: ctypes._Pointer, most: int) -> int:
        seen.append(text[:size])
        assert most >= len(IDS)
        for at, token in enumerate(IDS):
            ids[at] = token
        return len(IDS)

    def embed(_: int | None, ids: ctypes._Pointer, count: int, rows: ctypes._Pointer, size: int) -> int:
        assert size == count * WIDTH * 4
        asked.extend(ids[:count])
        for at in range(count * WIDTH):
            rows[at] = 0.01 * (at % 7)
        return 0

    with start(tokenizer=TokenizerCallback(tokenize)) as own:
        assert own.run("anything", max_new_tokens=1).text == " Paris"
    assert seen
    assert b"anything" in seen[0]
    with start(embed=EmbedCallback(embed)) as own:
        run = own.run(tokens=IDS, max_new_tokens=3)
        assert asked == IDS + run.ids[:2]


def test_the_programs_own_tokenizer_is_not_told_where_a_text_stands_so_the_model_begins_the_context(
    tmp_path: Path,
) -> None:
    """As it does for its own tokenizer: a model that was trained with a BOS is lost without."""

    def tokenize(_: int | None, text: bytes, size: int, ids: ctypes._Pointer, most: int) -> int:
        for at, token in enumerate(IDS):
            ids[at] = token
        return len(IDS)

    library, model = runtime_or_skip()
    wants, key = tmp_path / "bos.gguf", b"tokenizer.ggml.add_bos_token"
    shutil.copyfile(model, wants)
    with wants.open("r+b") as file:
        place = file.read(65_536).index(key) + len(key) + 4  # behind its type
        file.seek(place)
        file.write(b"\1")
    read = []
    for path in (model, wants):
        with Runtime(
            load(library), path, max_context_len=256, enabled_cpus_num=1, tokenizer=TokenizerCallback(tokenize)
        ) as own:
            read.append(own.run("x", max_new_tokens=1).perf["prefill_tokens"])
    assert read == [len(IDS), len(IDS) + 1]


def test_a_chat_template_of_ones_own_replaces_the_models(runtime: Runtime) -> None:
    assert runtime.chat_template("", "", "") == 0
    assert runtime.run("The capital of France is", max_new_tokens=2).text == " Paris."
    assert runtime.chat_template("", "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n") == 0
    assert runtime.run(QUESTION).text == ANSWER
    assert runtime.chat_template(None, None, None) == 0, "back to the model's own"
    assert runtime.run(QUESTION).text == ANSWER


def test_a_system_prompt_stays_when_the_cache_is_cleared_around_it(runtime: Runtime) -> None:
    system = "<|im_start|>system\nYou are a pirate.<|im_end|>\n"
    assert runtime.chat_template(system, "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n") == 0
    first = runtime.run(QUESTION, keep_history=1)
    assert runtime.clear(keep_system_prompt=1) == 0
    kept = runtime.cache_size()
    assert 5 < kept < first.perf["prefill_tokens"]
    second = runtime.run(QUESTION, keep_history=1)
    assert second.perf["prefill_tokens"] == first.perf["prefill_tokens"] - kept
    assert runtime.clear() == 0
    assert runtime.cache_size() == 0


def test_tools_are_told_to_the_model_and_their_replies_are_read() -> None:
    with start() as runtime:
        plain = runtime.run(QUESTION).perf["prefill_tokens"]
        tool = '[{"name": "weather", "parameters": {"city": {"type": "string"}}}]'
        assert runtime.tools("You are a helpful assistant.", tool, "tool_response") == 0
        told = runtime.run("Weather in Rome?", keep_history=1, max_new_tokens=8)
        assert told.perf["prefill_tokens"] > plain + 40
        reply = runtime.run('{"weather": "rain"}', role="tool", keep_history=1, max_new_tokens=8)
        assert (reply.status, reply.states[-1]) == (0, FINISH)
        assert runtime.library.rkllm_set_function_tools(runtime.handle, None, None, None) == -1


def test_a_saved_prompt_is_not_computed_again(runtime: Runtime, tmp_path: Path) -> None:
    path = tmp_path / "prompt.cache"
    whole = runtime.run(QUESTION, save_cache=path)
    assert path.is_file()
    assert list(tmp_path.iterdir()) == [path], "no draft is left"
    with start() as other:
        assert other.load_cache(path) == 0
        assert other.load_cache(path) == -1, "one must be released before the next"
        again = other.run(QUESTION)
        assert (again.text, again.perf["prefill_tokens"]) == (ANSWER, 1)
        assert other.run("What is the capital of Italy?").perf["prefill_tokens"] < whole.perf["prefill_tokens"]
        assert other.run(QUESTION).perf["prefill_tokens"] == 1
        assert other.release_cache() == 0
        assert other.run(QUESTION).perf["prefill_tokens"] == whole.perf["prefill_tokens"]


def test_a_prompt_cache_that_is_none_is_refused(runtime: Runtime, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    runtime.run(QUESTION, save_cache=broken)
    whole = broken.read_bytes()
    damage = {"short": whole[:-1000], "head": whole[:20], "long": whole + b"x", "text": b"no cache", "empty": b""}
    damage["flipped"] = whole[:-5000] + bytes([whole[-5000] ^ 1]) + whole[-4999:]
    damage["foreign"] = whole[:8] + bytes([whole[8] ^ 1]) + whole[9:]
    for name, content in damage.items():
        (tmp_path / name).write_bytes(content)
    for path in (tmp_path / "missing", tmp_path, *(tmp_path / name for name in damage)):
        assert runtime.load_cache(path) == -1
    assert runtime.run(QUESTION).text == ANSWER
    nowhere = runtime.run(QUESTION, save_cache=tmp_path / "no" / "such" / "folder")
    assert (nowhere.status, nowhere.states[-1]) == (-1, ERROR)


def test_an_adapter_works_in_the_runs_that_name_it_and_in_no_other(runtime: Runtime, tmp_path: Path) -> None:
    write_adapter(tmp_path / "lora.gguf")
    plain = runtime.run(tokens=IDS, mode=LOGITS).logits
    assert runtime.load_lora(tmp_path / "lora.gguf", "odd", 0.5) == 0
    assert runtime.run(tokens=IDS, mode=LOGITS).logits == plain
    assert runtime.run(tokens=IDS, mode=LOGITS, lora="odd").logits != plain
    assert runtime.run(tokens=IDS, mode=LOGITS).logits == plain
    assert runtime.load_lora(tmp_path / "lora.gguf", "odd") == -1, "the name is taken"
    assert runtime.load_lora(tmp_path / "missing.gguf", "other") == -1
    unknown = runtime.run(QUESTION, lora="other")
    assert (unknown.status, unknown.states) == (-1, [ERROR])
    assert runtime.run(QUESTION).text == ANSWER


def test_what_this_runtime_cannot_do_is_refused_in_words(runtime: Runtime, capfd: pytest.CaptureFixture[str]) -> None:
    assert runtime.library.rkllm_set_cross_attn_params(runtime.handle, None) == -1
    assert "E rkllm: cross attention is not supported" in capfd.readouterr().err
    given, infer = Input(input_type=MULTIMODAL), Infer()
    assert runtime.library.rkllm_run(runtime.handle, ctypes.byref(given), ctypes.byref(infer), None) == -1
    assert "E rkllm: multimodal input is not supported" in capfd.readouterr().err


@pytest.mark.validation
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_context_len": 100}, "multiple of 32"),
        ({"max_context_len": 0}, "multiple of 32"),
        ({"max_context_len": 16384 + 32}, "must be less than"),
        ({"max_context_len": 8192 + 32}, "must be less than or equal to the model's 8192"),
        ({"n_keep": 1024}, "The n_keep must be less than"),
        ({"enabled_cpus_num": 4, "enabled_cpus_mask": 3}, "Mismatch between enabled CPUs mask"),
        ({"enabled_cpus_num": -1}, "must not be negative"),
        ({"n_batch": 2}, "n_batch[2] must be 1"),
        ({"use_cross_attn": 1}, "cross attention is not supported"),
        ({"temperature": math.nan}, "temperature must be a finite number"),
        ({"mirostat": 3}, "mirostat[3] must be 0, 1 or 2"),
        ({"model_path": None}, "model_path must not be NULL"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    settings: dict[str, object], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    refused = start(**settings)
    assert refused.status == -1
    assert not refused.handle
    assert f"E rkllm: {words}" in (error := capfd.readouterr().err) or words in error
    assert error.startswith(("E rkllm:", "W rkllm:"))


@pytest.mark.validation
def test_files_that_are_no_model_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    library, model = runtime_or_skip()
    files = {"missing": "cannot open", "text": "invalid magic characters", "empty": "invalid magic characters"}
    files |= {"folder": "cannot read", "truncated": "cannot load model file", "head": "cannot load model file"}
    (tmp_path / "text").write_text("no model")
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "head").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1 << 40, 1 << 40))
    with model.open("rb") as whole:
        (tmp_path / "truncated").write_bytes(whole.read(5_000_000))
    for name, words in files.items():
        refused = Runtime(load(library), tmp_path / name)
        assert refused.status == -1
        assert words in capfd.readouterr().err


@pytest.mark.validation
def test_null_pointers_are_refused_everywhere(runtime: Runtime, capfd: pytest.CaptureFixture[str]) -> None:
    library, handle, infer = runtime.library, runtime.handle, ctypes.byref(Infer())
    prompt = ctypes.byref(Input(input_type=0))
    statuses = [
        library.rkllm_init(None, None, None), library.rkllm_destroy(None), library.rkllm_abort(None),
        library.rkllm_is_running(None), library.rkllm_run(None, prompt, infer, None),
        library.rkllm_run(handle, None, infer, None), library.rkllm_run(handle, prompt, None, None),
        library.rkllm_run(handle, prompt, infer, None), library.rkllm_run_async(handle, prompt, infer, None),
        library.rkllm_load_lora(handle, None), library.rkllm_load_lora(handle, ctypes.byref(Lora())),
        library.rkllm_load_prompt_cache(handle, None), library.rkllm_release_prompt_cache(None),
        library.rkllm_clear_kv_cache(None, 0, None, None),
        library.rkllm_clear_kv_cache(handle, 0, ctypes.byref(ctypes.c_int(0)), None),
        library.rkllm_get_kv_cache_size(handle, None), library.rkllm_set_chat_template(None, None, None, None),
        library.rkllm_set_function_tools(None, None, None, None), library.rkvisor_force_tokens(None, None, 0),
        library.rkvisor_force_tokens(handle, None, ctypes.c_size_t(1)),
    ]  # fmt: skip
    assert statuses == [-1] * len(statuses)
    assert capfd.readouterr().err.count("E rkllm: ") == len(statuses)


@pytest.mark.validation
def test_inputs_that_cannot_be_are_refused_and_the_next_run_works(runtime: Runtime) -> None:
    def statuses() -> Iterator[Run]:
        yield runtime.run(tokens=[VOCABULARY])
        yield runtime.run(tokens=[-1])
        yield runtime.run(tokens=[])
        yield runtime.run(tokens=IDS, mode=7)
        yield runtime.run(QUESTION, sampling={"temperature": math.inf})

    assert [run.status for run in statuses()] == [-1] * 5
    assert runtime.force([VOCABULARY]) == -1
    assert runtime.force([-5]) == -1
    assert runtime.run(QUESTION).text == ANSWER
    assert runtime.run(b"broken \xff\xfe utf-8 \xc3", max_new_tokens=3).status == 0
