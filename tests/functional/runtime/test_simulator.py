"""The simulator through its C ABI: what a program written for the vendor's runtime sees."""

import ctypes
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from harness.abi_ctypes import LIBRARIES, Family
from harness.sim_driver import ERROR, FINISH, NORMAL, WAITING, Event, Simulator
from harness.sim_vocabulary import PLAIN, TEXT_OF, detokenise, tokenise

pytestmark = pytest.mark.api

FAMILIES = ("f1", "f3", "f4", "f5")
VERSIONS = {"f1": "1.1.4", "f3": "1.2.1b1", "f4": "1.2.3", "f5": "1.3.0"}
PROMPT = "tell me a story about 東京, café and x"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests whose subject is time set the scale themselves."""
    monkeypatch.setenv("RKVISOR_SIM_TIME_SCALE", "0")


def test_a_split_character_is_one_of_the_things_the_prompt_generates() -> None:
    with Simulator(max_new_tokens=80) as sim:
        assert WAITING in sim.run(PROMPT).states, "PROMPT must exercise split characters; choose another"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_library_exports_the_functions_of_its_family_and_one_more(family: str) -> None:
    listing = subprocess.run(
        ["nm", "-D", "--defined-only", LIBRARIES / f"librkllmrt_sim_{family}.so"],
        capture_output=True,
        text=True,
        check=True,
    )
    exported = {line.split()[-1] for line in listing.stdout.splitlines()}
    assert exported == set(Family(family.upper()).facts["functions"]) | {"rkvisor_force_tokens"}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_scan_of_the_file_finds_the_version_of_its_family(family: str) -> None:
    content = (LIBRARIES / f"librkllmrt_sim_{family}.so").read_bytes()
    assert f"RKLLM SDK (version: {VERSIONS[family]} | sim)".encode() in content


@pytest.mark.parametrize("family", FAMILIES)
def test_default_parameters_are_the_vendors_and_written_to_the_last_byte(family: str) -> None:
    abi = Family(family.upper())
    library = abi.load(LIBRARIES / f"librkllmrt_sim_{family}.so")
    param = library.rkllm_createDefaultParam()
    assert (param.max_context_len, param.max_new_tokens, param.top_k) == (512, 512, 40)
    assert [round(value, 3) for value in (param.top_p, param.temperature, param.repeat_penalty)] == [0.9, 0.8, 1.1]
    assert [round(value, 3) for value in (param.mirostat, param.mirostat_tau, param.mirostat_eta)] == [0, 5.0, 0.1]
    size = ctypes.sizeof(abi.RKLLMParam)
    for poison in (0x00, 0xFF):
        # A struct this large is returned through a hidden first argument, so the buffer can be poisoned beforehand.
        buffer = (ctypes.c_ubyte * (size + 64))(*([poison] * (size + 64)))
        raw = ctypes.CDLL(str(LIBRARIES / f"librkllmrt_sim_{family}.so")).rkllm_createDefaultParam
        raw.restype, raw.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
        if raw(buffer) != ctypes.addressof(buffer):
            pytest.skip("structs are returned in another way on this processor")
        assert bytes(buffer[size:]) == bytes([poison] * 64)
        assert bytes(buffer[:size]) == bytes(param)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_streams_max_new_tokens_tokens_and_finishes(family: str) -> None:
    with Simulator(family, max_new_tokens=80) as sim:
        outcome = sim.run(PROMPT)
    assert outcome.status == 0
    assert len(outcome.steps) == 80
    assert outcome.states[-1] == FINISH
    assert outcome.events[-1].texts == (None,)
    assert outcome.text == detokenise(outcome.ids)
    outcome.text.decode()


def test_all_families_tell_the_same_story_and_tell_it_again() -> None:
    texts = []
    for family in (*FAMILIES, "f5"):
        with Simulator(family, max_new_tokens=60) as sim:
            texts.append(sim.run(PROMPT).text)
    assert len(set(texts)) == 1


def test_another_prompt_gives_another_text() -> None:
    texts = []
    for prompt in ("a", "b", "a ", ""):
        with Simulator(max_new_tokens=10) as sim:
            texts.append(sim.run(prompt).text)
    assert len(set(texts)) == 4


def test_a_waiting_token_has_no_text_and_the_next_one_carries_the_whole_character() -> None:
    with Simulator(max_new_tokens=300) as sim:
        events = sim.run("a").steps
    cuts = [i for i, event in enumerate(events) if event.state == WAITING]
    assert cuts
    for cut in cuts:
        assert not events[cut].texts[0]
        whole = events[cut + 1].texts[0]
        assert events[cut + 1].state == NORMAL
        assert whole == TEXT_OF[events[cut].ids[0]] + TEXT_OF[events[cut + 1].ids[0]]
        assert len(whole.decode()) == 1


def test_about_one_word_in_eight_holds_characters_of_several_bytes() -> None:
    with Simulator(max_new_tokens=480, hooks={}) as sim:
        ids = sim.run("a").ids
    wide = sum(1 for i in ids if len(TEXT_OF[i]) > len(TEXT_OF[i].decode(errors="ignore")) > 0)
    assert 0.06 < wide / len(ids) < 0.25


@pytest.mark.parametrize("family", FAMILIES)
def test_token_input_of_the_prompts_tokens_gives_the_same_text(family: str) -> None:
    with Simulator(family, max_new_tokens=40) as sim:
        first = sim.run(PROMPT).text
    with Simulator(family, max_new_tokens=40) as sim:
        assert sim.run(tokenise(PROMPT)).text == first


@pytest.mark.resilience
def test_token_input_cut_anywhere_goes_on_with_the_same_text() -> None:
    with Simulator(max_new_tokens=64) as sim:
        whole = sim.run(PROMPT)
        for cut in range(64):
            sim.clear()
            rest = sim.run(tokenise(PROMPT) + whole.ids[:cut], max_new_tokens=64 - cut)
            assert rest.ids == whole.ids[cut:]
            assert b"".join(e.texts[0] or b"" for e in whole.steps[:cut]) + rest.text == whole.text


@pytest.mark.resilience
@pytest.mark.parametrize("family", FAMILIES)
def test_forced_tokens_cut_anywhere_are_silent_counted_and_followed_by_the_same_text(family: str) -> None:
    with Simulator(family, max_new_tokens=48) as sim:
        whole = sim.run(PROMPT)
    for cut in range(49):
        with Simulator(family, max_new_tokens=48) as sim:
            assert sim.force(whole.ids[:cut]) == 0
            rest = sim.run(PROMPT)
            assert rest.ids == whole.ids[cut:]
            assert b"".join(e.texts[0] or b"" for e in whole.steps[:cut]) + rest.text == whole.text
            assert rest.states[-1] == FINISH


def test_forced_tokens_serve_one_run_only_and_bad_ones_are_refused() -> None:
    with Simulator(max_new_tokens=8) as sim:
        plain = sim.run("a").ids
        sim.clear()
        sim.force([PLAIN, PLAIN + 1])
        assert len(sim.run("a").ids) == 6
        sim.clear()
        assert sim.run("a").ids == plain
        assert sim.force([5]) == 0
        assert sim.force([]) == 0
        sim.clear()
        assert sim.run("a").ids == plain
        assert sim.force([-1]) == -1
        assert sim.force([1024]) == -1
        assert sim.force([1] * 513) == -1
        assert sim.library.rkvisor_force_tokens(sim.handle, None, 1) == -1


def test_perf_counts_prompt_and_generated_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RKVISOR_SIM_TIME_SCALE", "1")
    with Simulator(max_new_tokens=20) as sim:
        sim.force([PLAIN] * 5)
        perf = sim.run(PROMPT).events[-1].perf
    assert perf is not None
    prefill_ms, prefill_tokens, generate_ms, generated, memory_mb = perf
    assert prefill_tokens == len(tokenise(PROMPT))
    assert generated == 20
    assert prefill_ms >= 0
    assert generate_ms >= 15
    assert memory_mb > 1


@pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="reads freed memory on purpose")
def test_the_text_of_a_callback_is_destroyed_when_it_returns() -> None:
    with Simulator(max_new_tokens=1) as sim:
        step = sim.run("a").steps[0]
        assert step.address
        assert step.texts[0]
        assert ctypes.string_at(step.address, 1) != step.texts[0][:1]
        assert ctypes.string_at(step.address + 16, 32) == b"\xfe" * 32, "beyond what free() itself overwrites"


@pytest.mark.parametrize("family", FAMILIES)
def test_abort_from_another_thread_ends_a_run_that_would_go_on(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RKVISOR_SIM_TIME_SCALE", "1")
    started = threading.Event()

    def answer(_event: Event) -> int:
        started.set()
        return 0

    with Simulator(family, answer=answer, max_new_tokens=100_000, max_context_len=16384) as sim:

        def abort() -> None:
            started.wait()
            statuses.append(sim.library.rkllm_abort(sim.handle))

        statuses: list[int] = []
        thread = threading.Thread(target=abort)
        thread.start()
        outcome = sim.run("a")
        thread.join()
        assert statuses == [0]
        assert outcome.status == 0
        assert outcome.states[-1] == FINISH
        assert len(outcome.steps) < 16000
        assert sim.library.rkllm_abort(sim.handle) == -1


def test_abort_interrupts_waiting_for_a_token_but_not_prefill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RKVISOR_SIM_TIME_SCALE", "1")
    model = tmp_path / "slow.toml"
    model.write_text("prefill_ms = 300\ntoken_ms = 60000\n")
    with Simulator(model=str(model)) as sim:
        threading.Timer(0.05, lambda: sim.library.rkllm_abort(sim.handle)).start()
        begun = time.monotonic()
        outcome = sim.run("a")
        assert 0.29 <= time.monotonic() - begun < 30
        assert outcome.states == [FINISH]


@pytest.mark.parametrize(("family", "busy"), [("f1", 0), ("f3", 0), ("f4", 0), ("f5", 1)])
def test_is_running_turned_its_meaning_round_in_f5(family: str, busy: int) -> None:
    seen: list[int] = []

    def answer(event: Event) -> int:
        if event.state == NORMAL:
            seen.append(sim.library.rkllm_is_running(sim.handle))
        return 0

    with Simulator(family, answer=answer, max_new_tokens=2) as sim:
        idle = sim.library.rkllm_is_running(sim.handle)
        sim.run("a")
    assert set(seen) == {busy}
    assert idle == 1 - busy


def test_a_run_inside_a_callback_or_beside_a_run_is_refused() -> None:
    statuses: list[int] = []

    def answer(event: Event) -> int:
        if event.state == NORMAL:
            inputs, infer = sim.make_input("b"), sim.make_infer()
            statuses.append(sim.library.rkllm_run(sim.handle, ctypes.byref(inputs), ctypes.byref(infer), None))
        return 0

    with Simulator(answer=answer, max_new_tokens=2) as sim:
        assert sim.run("a").status == 0
    assert statuses == [-1, -1]


def test_run_async_calls_back_on_a_thread_of_its_own_with_the_input_long_gone() -> None:
    threads: set[int] = set()
    done = threading.Event()

    def answer(event: Event) -> int:
        threads.add(threading.get_native_id())
        if event.state == FINISH:
            done.set()
        return 0

    with Simulator(answer=answer, max_new_tokens=10) as sim:
        expected = sim.run("a").text
        sim.clear()
        sim.current = type(sim.current)(0)
        threads.clear()
        done.clear()
        text = ctypes.create_string_buffer(b"a")
        given = sim.abi.RKLLMInput(input_type=sim.abi.RKLLM_INPUT_PROMPT)
        given.prompt_input = ctypes.cast(text, ctypes.c_char_p).value
        infer = sim.make_infer()
        assert sim.library.rkllm_run_async(sim.handle, ctypes.byref(given), ctypes.byref(infer), None) == 0
        text[0] = b"z"
        assert done.wait(20)
        assert sim.current.text == expected
    assert threads
    assert threading.get_native_id() not in threads


def test_userdata_of_the_run_wins_over_that_of_the_callback_struct() -> None:
    with Simulator(max_new_tokens=1, hooks={"result_userdata": 7}) as sim:
        assert {event.userdata for event in sim.run("a", userdata=9).events} == {9}
        assert {event.userdata for event in sim.run("a").events} == {7}


def test_handles_do_not_disturb_each_other() -> None:
    with Simulator(max_new_tokens=30) as lonely:
        expected = lonely.run("a").text
    with Simulator(max_new_tokens=30) as one, Simulator(max_new_tokens=30) as two:
        thread = threading.Thread(target=lambda: two.run("b"))
        thread.start()
        assert one.run("a").text == expected
        thread.join()
        assert two.current.text != expected


def test_max_new_tokens_of_the_run_wins_on_f5() -> None:
    with Simulator(max_new_tokens=20) as sim:
        assert len(sim.run("a", max_new_tokens=5).ids) == 5
        assert len(sim.run("a", max_new_tokens=0).ids) == 20


def test_generation_ends_when_the_context_is_full(capfd: pytest.CaptureFixture[str]) -> None:
    with Simulator(max_new_tokens=500, max_context_len=64) as sim:
        outcome = sim.run("a" * 40)
        assert sim.cached() == [64]
    assert len(outcome.ids) == 24
    assert outcome.states[-1] == FINISH
    assert "W rkllm: the context is not enough!" in capfd.readouterr().err


def test_a_prompt_longer_than_the_context_fails_before_any_callback(capfd: pytest.CaptureFixture[str]) -> None:
    with Simulator(max_context_len=32) as sim:
        outcome = sim.run("a" * 33)
    assert (outcome.status, outcome.events) == (-1, [])
    assert "E rkllm: the length of prompt is greater than max context" in capfd.readouterr().err


def test_an_end_of_text_is_drawn_from_the_tokens_and_can_be_ignored(tmp_path: Path) -> None:
    model = tmp_path / "ends.toml"
    model.write_text("eos_after = 20\n")
    with Simulator(model=str(model), max_new_tokens=400) as sim:
        outcome = sim.run("a")
    assert 0 < len(outcome.ids) < 400
    assert outcome.states[-1] == FINISH
    assert 2 not in outcome.ids
    with Simulator(model=str(model), max_new_tokens=400, ignore_eos_token=True) as sim:
        endless = sim.run("a")
    assert endless.ids[: len(outcome.ids)] == outcome.ids
    assert len(endless.ids) == 400


def test_time_lost_in_a_callback_is_not_caught_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RKVISOR_SIM_TIME_SCALE", "1")
    with Simulator(
        answer=lambda event: time.sleep(0.03 * (len(sim.current.steps) == 1)) or 0, max_new_tokens=20
    ) as sim:
        perf = sim.run("a").events[-1].perf
    assert perf is not None
    assert perf[2] >= 30 + 18


def test_an_error_state_exists_in_no_undisturbed_run() -> None:
    with Simulator(max_new_tokens=50) as sim:
        assert ERROR not in sim.run(PROMPT).states
