"""The CPU runtime generates: real answers, callbacks, limits, and exact continuation of a cut text."""

from __future__ import annotations

import random
import re
import subprocess

import pytest

from harness.llama import ANSWER, QUESTION, runtime_or_skip, start
from harness.rkllm_f5 import ERROR, FINISH, LOGITS, NORMAL, WAITING, Runtime

pytestmark = [pytest.mark.llama, pytest.mark.api]

# Answers long enough to be cut anywhere; those of the last have characters of several tokens.
PROMPTS = ["Tell me a story about a dragon.", "Count from one to twenty in words.", "Write three emojis."]


def test_it_answers_as_the_model_does_without_a_system_prompt(runtime: Runtime) -> None:
    run = runtime.run(QUESTION)
    assert (run.status, run.text) == (0, ANSWER)
    assert run.states == [NORMAL] * len(run.ids) + [FINISH]
    assert run.calls[-1].text is None


def test_the_end_reports_what_the_run_cost(runtime: Runtime) -> None:
    run = runtime.run(QUESTION)
    assert run.perf["prefill_tokens"] == 16
    assert run.perf["generate_tokens"] == len(run.ids)
    assert run.perf["prefill_ms"] > 0
    assert run.perf["generate_ms"] > 0
    assert run.perf["memory_mb"] > 50


def test_tokens_go_in_raw_without_template_or_bos(runtime: Runtime) -> None:
    assert runtime.run(tokens=[504, 3575, 282, 4649, 314], mode=LOGITS).shape[0] == 5
    assert runtime.run(tokens=[504, 3575, 282, 4649, 314], max_new_tokens=2).text == " Paris."


@pytest.mark.resilience
@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_greedy_text_cut_anywhere_goes_on_identically(runtime: Runtime, prompt: str) -> None:
    whole = runtime.run(prompt)
    with start() as fresh:
        for cut in random.Random(prompt).sample(range(len(whole.ids) + 1), 4):
            rest = fresh.run(prompt, forced=whole.ids[:cut])
            assert rest.ids == whole.ids[cut:], f"cut at {cut}"
            assert rest.states[-1] == FINISH
            assert rest.perf["generate_tokens"] == whole.perf["generate_tokens"]


@pytest.mark.resilience
def test_a_cut_survives_penalties_and_a_character_split_over_it(runtime: Runtime) -> None:
    sampling = {"temperature": 0.0, "repeat_penalty": 1.3, "frequency_penalty": 0.2, "presence_penalty": 0.1}
    whole = runtime.run(PROMPTS[2], sampling=sampling)
    inside = whole.states.index(WAITING) + 1
    rest = runtime.run(PROMPTS[2], sampling=sampling, forced=whole.ids[:inside])
    assert rest.ids == whole.ids[inside:]
    assert whole.text.endswith(rest.text)
    assert "�" not in rest.text


@pytest.mark.resilience
def test_forced_tokens_hold_for_one_run_only_and_zero_of_them_clear(runtime: Runtime) -> None:
    whole = runtime.run(QUESTION)
    assert runtime.run(QUESTION, forced=whole.ids[:3]).ids == whole.ids[3:]
    assert runtime.run(QUESTION).ids == whole.ids
    assert runtime.force(whole.ids[:3]) == 0
    assert runtime.run(QUESTION, forced=[]).ids == whole.ids


@pytest.mark.resilience
def test_a_forced_list_that_fills_the_limit_or_ends_the_text_generates_nothing(runtime: Runtime) -> None:
    whole = runtime.run(QUESTION)
    end = whole.calls[-1].id
    filled = runtime.run(QUESTION, forced=whole.ids[:4], max_new_tokens=4)
    assert (filled.ids, filled.states, filled.perf["generate_tokens"]) == ([], [FINISH], 4)
    ended = runtime.run(QUESTION, forced=[*whole.ids, end])
    assert (ended.ids, ended.states, ended.calls[-1].id) == ([], [FINISH], end)


@pytest.mark.resilience
def test_a_sampled_run_continues_behind_forced_tokens_up_to_its_limit(runtime: Runtime) -> None:
    sampling = {"temperature": 0.7, "top_k": 40, "top_p": 0.9}
    whole = runtime.run(PROMPTS[0], sampling=sampling, max_new_tokens=20)
    rest = runtime.run(PROMPTS[0], sampling=sampling, max_new_tokens=20, forced=whole.ids[:12])
    assert rest.states == [NORMAL] * 8 + [FINISH]


@pytest.mark.parametrize("cpus", [2, 8])
def test_the_text_does_not_depend_on_the_number_of_threads(runtime: Runtime, cpus: int) -> None:
    with start(enabled_cpus_num=cpus) as other:
        assert other.run(PROMPTS[0]).ids == runtime.run(PROMPTS[0]).ids


def test_a_character_of_several_tokens_waits_and_then_comes_whole(runtime: Runtime) -> None:
    run = runtime.run(PROMPTS[2])
    assert WAITING in run.states
    for call in run.calls[:-1]:
        text = (call.text or b"").decode()
        assert text == "" if call.state == WAITING else "�" not in text


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 0.9, "top_k": 40, "top_p": 0.95, "repeat_penalty": 1.1},
        {"temperature": 1.0, "mirostat": 1},
        {"temperature": 1.0, "mirostat": 2},
    ],
)
def test_sampled_runs_differ_and_greedy_ones_do_not(runtime: Runtime, sampling: dict[str, float]) -> None:
    assert len({tuple(runtime.run(PROMPTS[0], sampling=sampling, max_new_tokens=12).ids) for _ in range(3)}) > 1
    greedy = [{**sampling, "temperature": 0.0}, {**sampling, "top_k": 1}]
    assert len({tuple(runtime.run(PROMPTS[0], sampling=one, max_new_tokens=12).ids) for one in greedy}) == 1


def test_a_run_s_own_limit_and_sampling_win_over_those_of_init(runtime: Runtime) -> None:
    assert len(runtime.run(PROMPTS[0]).ids) == 24
    assert len(runtime.run(PROMPTS[0], max_new_tokens=7).ids) == 7
    with start(temperature=1.5, top_p=1.0, top_k=0, max_new_tokens=12) as hot:
        assert len({tuple(hot.run(PROMPTS[0]).ids) for _ in range(3)}) > 1
        assert hot.run(QUESTION, sampling={"temperature": 0.0}).text == ANSWER


def test_penalties_change_a_repetitive_text(runtime: Runtime) -> None:
    plain = runtime.run(PROMPTS[0])
    for penalty in ({"repeat_penalty": 1.5}, {"frequency_penalty": 1.0}, {"presence_penalty": 2.0}):
        assert runtime.run(PROMPTS[0], sampling={"temperature": 0.0, **penalty}).ids != plain.ids


def test_special_tokens_show_only_when_asked_for_and_the_end_can_be_ignored(runtime: Runtime) -> None:
    with start(skip_special_token=False) as open_hearted:
        assert open_hearted.run(QUESTION).text == ANSWER + "<|im_end|>"
    with start(ignore_eos_token=True, max_new_tokens=15) as endless:
        run = endless.run(QUESTION)
        assert run.text.startswith(ANSWER[:-1])
        assert len(run.ids) == 15


def test_a_prompt_longer_than_the_context_is_an_error_and_the_next_run_works(
    runtime: Runtime, capfd: pytest.CaptureFixture[str]
) -> None:
    for given in ({"prompt": "word " * 2000}, {"tokens": [504] * 5000}, {"embed": [0.5] * 576 * 1030, "n_embed": 1030}):
        run = runtime.run(**given)  # type: ignore[arg-type]
        assert (run.status, run.states) == (-1, [ERROR])
        assert "E rkllm: the length of prompt is greater than max context" in capfd.readouterr().err
    assert runtime.run(QUESTION).text == ANSWER


def test_a_full_context_ends_the_generation(capfd: pytest.CaptureFixture[str]) -> None:
    with start(max_context_len=64, max_new_tokens=500, ignore_eos_token=True) as small:
        run = small.run(PROMPTS[0])
        assert (run.status, run.states[-1], small.cache_size()) == (0, FINISH, 64)
        assert run.perf["prefill_tokens"] + len(run.ids) == 65, "the last token is given out, but not read again"
    assert "the context is not enough!" in capfd.readouterr().err


def test_nothing_but_the_abi_is_exported() -> None:
    library, _ = runtime_or_skip()
    listing = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True).stdout
    names = {line.split()[-1] for line in listing.splitlines()}
    assert len(names) == 16
    assert {name for name in names if not name.startswith("rkllm_")} == {"rkvisor_force_tokens"}
    assert re.search(rb"RKLLM SDK \(version: 1\.3\.0 \| llama [\d.]+\)", library.read_bytes())
