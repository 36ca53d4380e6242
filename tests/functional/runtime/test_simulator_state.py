"""What the simulator's text depends on: history, caches, templates, adapters, tensors, batches."""

import ctypes
from pathlib import Path
from typing import Any

import pytest

from harness.child import GIVING_BACK, tell
from harness.held import RUNS
from harness.sim_driver import FINISH, NORMAL, Event, Simulator
from harness.sim_vocabulary import detokenise, tokenise

pytestmark = pytest.mark.api


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RKVISOR_SIM_TIME_SCALE", "0")


def fresh(value: Any, family: str = "f5", **options: Any) -> bytes:
    """The text of one run on a new handle."""
    with Simulator(family, max_new_tokens=20) as sim:
        return sim.run(value, **options).text


def test_history_goes_on_where_the_last_run_ended() -> None:
    with Simulator(max_new_tokens=20) as sim:
        first = sim.run("a", keep_history=1)
        assert sim.cached() == [21]
        second = sim.run("b", keep_history=1)
        assert sim.cached() == [42]
    assert second.text == fresh(tokenise("a") + first.ids + tokenise("b"))


def test_without_history_an_uncleared_cache_still_shows_in_the_text() -> None:
    with Simulator(max_new_tokens=20) as sim:
        first = sim.run("a").text
        assert sim.run("a").text != first
        assert sim.clear() == 0
        assert sim.cached() == [0]
        assert sim.run("a").text == first


def test_the_oldest_family_starts_every_run_clean() -> None:
    with Simulator("f1", max_new_tokens=20) as sim:
        assert sim.run("a").text == sim.run("a").text


def test_a_chat_template_surrounds_prompts_but_not_tokens() -> None:
    for family in ("f3", "f4", "f5"):
        with Simulator(family, max_new_tokens=20) as sim:
            assert sim.library.rkllm_set_chat_template(sim.handle, b"be good", b"<", b">") == 0
            assert sim.run("a").text == fresh(tokenise("be good") + tokenise("<a>"))
            sim.clear()
            assert sim.run(tokenise("a")).text == fresh("a")


def test_the_system_prompt_comes_once_and_can_be_kept_when_the_cache_is_cleared() -> None:
    with Simulator(max_new_tokens=20) as sim:
        sim.library.rkllm_set_chat_template(sim.handle, b"be good", b"<", b">")
        first = sim.run("a", keep_history=1).text
        sim.clear(keep_system=1)
        assert sim.cached() == [len(tokenise("be good"))]
        assert sim.run("a").text == first
        assert sim.cached() == [len(tokenise("be good")) + 3 + 20]


def test_the_models_own_template_yields_to_a_set_one_and_takes_thinking_with_it(tmp_path: Path) -> None:
    model = tmp_path / "chatty.toml"
    model.write_text('prompt_prefix = "<"\nprompt_postfix = ">"\nsystem_prompt = "s"\nthinking_prefix = "t"\n')
    with Simulator(model=str(model), max_new_tokens=20) as sim:
        assert sim.run("a").text == fresh("s<a>")
        sim.clear()
        assert sim.run("a", thinking=True).text == fresh("s<a>t")
        sim.library.rkllm_set_chat_template(sim.handle, b"", b"", b"")
        sim.clear()
        assert sim.run("a", thinking=True).text == fresh("a")


def test_tools_come_first_and_tool_replies_are_marked() -> None:
    for family in ("f4", "f5"):
        with Simulator(family, max_new_tokens=20) as sim:
            assert sim.library.rkllm_set_function_tools(sim.handle, b"sys", b"[tools]", b"reply:") == 0
            assert sim.run("a").text == fresh(tokenise("sys") + tokenise("[tools]") + tokenise("a"))
            sim.clear()
            assert sim.run("a", role="tool").text == fresh(tokenise("sys") + tokenise("[tools]") + tokenise("reply:a"))
            sim.clear()
            assert sim.run("a", role="user").text == fresh(tokenise("sys") + tokenise("[tools]") + tokenise("a"))


def test_a_lora_adapter_changes_the_text_by_name_and_scale_when_it_is_selected(tmp_path: Path) -> None:
    weights = tmp_path / "lora.bin"
    weights.touch()
    texts = []
    for name, scale in (("one", 1.0), ("two", 1.0), ("one", 0.5)):
        with Simulator(max_new_tokens=20) as sim:
            adapter = sim.abi.RKLLMLoraAdapter(str(weights).encode(), name.encode(), scale)
            assert sim.library.rkllm_load_lora(sim.handle, ctypes.byref(adapter)) == 0
            assert sim.run("a").text == fresh("a")
            sim.clear()
            texts.append(sim.run("a", lora=name).text)
            assert sim.run("a", lora="unknown").status == -1
            adapter.lora_adapter_path = str(tmp_path / "absent").encode()
            assert sim.library.rkllm_load_lora(sim.handle, ctypes.byref(adapter)) == -1
    assert len({*texts, fresh("a")}) == 4


@pytest.mark.parametrize("family", ["f1", "f3", "f4", "f5"])
def test_a_prompt_cache_restores_the_tokens_it_was_saved_with(family: str, tmp_path: Path) -> None:
    cache = tmp_path / "prompt.cache"
    with Simulator(family, max_new_tokens=5) as sim:
        sim.run("be brief", save=cache)
    with Simulator(family, max_new_tokens=20) as sim:
        assert sim.library.rkllm_load_prompt_cache(sim.handle, str(cache).encode()) == 0
        assert sim.library.rkllm_load_prompt_cache(sim.handle, str(cache).encode()) == -1
        if family in ("f4", "f5"):
            assert sim.cached() == [len(tokenise("be brief"))]
        assert sim.run("a").text == fresh("be briefa")
        assert sim.library.rkllm_release_prompt_cache(sim.handle) == 0
        assert sim.run("a").text == fresh("a")
        assert sim.library.rkllm_release_prompt_cache(sim.handle) == -1


def test_a_prompt_cache_that_is_none_or_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    junk = tmp_path / "junk"
    junk.write_bytes(b"x" * 100)
    with Simulator(max_new_tokens=2) as sim:
        assert sim.library.rkllm_load_prompt_cache(sim.handle, str(junk).encode()) == -1
        assert sim.library.rkllm_load_prompt_cache(sim.handle, str(tmp_path / "absent").encode()) == -1
        assert sim.run("a", save=tmp_path / "absent" / "cache").status == -1
        sim.clear()
        assert sim.run("a").status == 0


@pytest.mark.security
def test_a_damaged_prompt_cache_is_refused(tmp_path: Path) -> None:
    cache = tmp_path / "prompt.cache"
    with Simulator(max_new_tokens=1) as sim:
        sim.run("abc", save=cache)
        whole = bytearray(cache.read_bytes())
        for offset, value in ((0, b"X"), (16, b"\xff" * 8), (24, b"\4"), (32, b"\0\0\1"), (39, b"\xff")):
            damaged = bytes(whole[:offset]) + value + bytes(whole[offset + len(value) :])
            cache.write_bytes(damaged)
            assert sim.library.rkllm_load_prompt_cache(sim.handle, str(cache).encode()) == -1, offset
        cache.write_bytes(whole[:-1])
        assert sim.library.rkllm_load_prompt_cache(sim.handle, str(cache).encode()) == -1
        cache.write_bytes(whole)
        assert sim.library.rkllm_load_prompt_cache(sim.handle, str(cache).encode()) == 0


@pytest.mark.parametrize(("family", "answer", "grows"), [("f5", 0, True), ("f5", 2, False), ("f4", 0, False)])
def test_f5_keeps_tensors_until_the_callback_releases_them(family: str, answer: int, grows: bool) -> None:
    kept_kb = RUNS * 500 * 4 // 1024  # had it kept one float a token; the logits of a token are 501
    assert (int(tell("harness.held", family, str(answer), **GIVING_BACK)) > 500 * kept_kb) is grows


def test_a_callback_may_ask_how_full_the_cache_is() -> None:
    seen: list[list[int]] = []

    def answer(_event: Event) -> int:
        seen.append(sim.cached())
        return 0

    with Simulator(answer=answer, max_new_tokens=2) as sim:
        sim.run("abc")
    assert seen == [[4], [5], [5]]


def test_hidden_states_have_one_row_per_prompt_token_and_depend_on_the_tokens_before() -> None:
    for family in ("f1", "f3", "f4", "f5"):
        with Simulator(family, answer=lambda _event: 2) as sim:
            outcome = sim.run("abc", mode=1)
            rows = outcome.tensors[0]
            assert outcome.states == [4 if family == "f1" else NORMAL, FINISH]
            assert [len(row) for row in rows] == [64, 64, 64]
            if family != "f1":
                sim.clear()
            assert sim.run("abd", mode=1).tensors[0][:2] == rows[:2]
            assert sim.current.tensors[0][2] != rows[2]


def test_the_argmax_of_the_logits_is_the_next_token() -> None:
    for family in ("f3", "f4", "f5"):
        with Simulator(family, max_new_tokens=1, answer=lambda _event: 2) as sim:
            rows = sim.run("tell me a story", mode=2).tensors[0]
            assert all(len(row) == 1024 for row in rows)
        ids = tokenise("tell me a story")
        for n, row in enumerate(rows, 1):
            with Simulator(family, max_new_tokens=1) as sim:
                assert sim.run(ids[:n]).ids == [max(range(1024), key=row.__getitem__)]


def test_the_oldest_family_knows_no_logits() -> None:
    with Simulator("f1") as sim:
        assert sim.run("a", mode=2).status == -1


def test_a_model_may_leave_out_finish_after_tensors(tmp_path: Path) -> None:
    model = tmp_path / "mute.toml"
    model.write_text("tensor_finish = false\n")
    with Simulator(model=str(model)) as sim:
        outcome = sim.run("a", mode=2)
    assert (outcome.status, outcome.states) == (0, [NORMAL])


def embed_input(sim: Simulator, rows: list[list[float]]) -> Any:
    given = sim.abi.RKLLMInput(input_type=sim.abi.RKLLM_INPUT_EMBED)
    data = (ctypes.c_float * (64 * len(rows)))(*(x for row in rows for x in row))
    sim.keep.append(data)
    given.embed_input.embed = data
    given.embed_input.n_tokens = len(rows)
    return given


def test_embeddings_are_read_to_the_last_number() -> None:
    texts = set()
    for value in (0.0, 1.0):
        with Simulator(max_new_tokens=20) as sim:
            outcome = sim.run(embed_input(sim, [[0.5] * 64, [0.25] * 63 + [value]]))
            assert outcome.status == 0
            assert sim.cached() == [22]
            texts.add(outcome.text)
    assert len(texts) == 2


def test_batches_run_each_item_as_if_alone_and_mark_the_finished(tmp_path: Path) -> None:
    model = tmp_path / "ends.toml"
    model.write_text("eos_after = 12\n")
    prompts = ["a", "b", "c"]
    for family in ("f4", "f5"):
        alone = []
        for prompt in prompts:
            with Simulator(family, model=str(model), max_new_tokens=40) as sim:
                alone.append(sim.run(prompt).ids)
        with Simulator(family, model=str(model), max_new_tokens=40, n_batch=3) as sim:
            outcome = sim.run(*prompts)
            assert sim.cached() == [1 + len(ids) for ids in alone]
            assert sim.force([5]) == -1
        assert len({len(ids) for ids in alone}) > 1, "the items must end at different steps"
        for item, ids in enumerate(alone):
            steps = [event.ids[item] for event in outcome.steps]
            assert steps == ids + [-1] * (len(steps) - len(ids))
            text = b"".join(event.texts[item] or b"" for event in outcome.steps)
            assert detokenise(ids).startswith(text)
        assert outcome.states[-1] == FINISH


def test_a_callback_can_pause_a_run_and_the_next_one_resumes_it() -> None:
    whole = fresh("a")
    pause_at = {5, 9}

    def answer(event: Event) -> int:
        return int(event.state != FINISH and len(seen.append(event) or seen) in pause_at)

    for family in ("f4", "f5"):
        seen: list[Event] = []
        with Simulator(family, answer=answer, max_new_tokens=20) as sim:
            outcomes = [sim.run("a"), sim.run(""), sim.run("")]
            assert sim.cached() == [21]
        assert [len(outcome.ids) for outcome in outcomes] == [5, 4, 11]
        assert [FINISH in outcome.states for outcome in outcomes] == [False, False, True]
        assert b"".join(outcome.text for outcome in outcomes) == whole


def test_a_range_of_the_cache_can_be_cleared_only_during_a_pause() -> None:
    with Simulator(answer=lambda event: int(event.state != FINISH), max_new_tokens=20) as sim:
        clear, ints = sim.library.rkllm_clear_kv_cache, ctypes.c_int * 1
        assert clear(sim.handle, 0, ints(0), ints(1)) == -1
        first = sim.run("abc").ids
        assert clear(sim.handle, 0, ints(0), None) == -1
        assert clear(sim.handle, 0, ints(2), ints(9)) == -1
        assert clear(sim.handle, 0, ints(1), ints(3)) == 0
        assert sim.cached() == [2]
        sim.answer = lambda _event: 0
        rest = sim.run("").text
    with Simulator(max_new_tokens=19) as sim:
        assert sim.run(tokenise("a") + first).text == rest


def test_abort_gives_up_a_paused_run() -> None:
    with Simulator(answer=lambda event: int(event.state != FINISH), max_new_tokens=20) as sim:
        sim.run("a")
        assert sim.library.rkllm_abort(sim.handle) == 0
        assert sim.clear() == 0
        sim.answer = lambda _event: 0
        assert sim.run("a").text == fresh("a")


def test_cross_attention_enters_the_text() -> None:
    texts = {fresh("a")}
    for value in (0.5, 0.75):
        with Simulator(max_new_tokens=20, use_cross_attn=1) as sim:
            floats, ints = (ctypes.c_float * 4)(0, 0, 0, value), (ctypes.c_int32 * 4)()
            params = sim.abi.RKLLMCrossAttnParam(floats, floats, floats, ints, 4)
            assert sim.library.rkllm_set_cross_attn_params(sim.handle, ctypes.byref(params)) == 0
            texts.add(sim.run("a").text)
            params.num_tokens = 0
            assert sim.library.rkllm_set_cross_attn_params(sim.handle, ctypes.byref(params)) == -1
    assert len(texts) == 3
