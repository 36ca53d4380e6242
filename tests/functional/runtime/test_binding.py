"""How a library of each family is loaded, called and refused, seen by the recorder."""

import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.recorder import Recorded
from rkvisor.cython_ext._rkllm import CONSTANTS, LibraryError, NotSupported, RkllmError, Runtime
from rkvisor.cython_ext.inputs import Infer, Input

pytest_plugins = ("harness.recorded",)
pytestmark = pytest.mark.api

PROMPT = Input(kind="prompt", prompt="héllo")
ROWS = array.array("f", range(12))


def number(family: str) -> int:
    return int(family[1])


def test_default_parameters_are_those_fields_that_the_family_has(recorded: Recorded) -> None:
    param = recorded.runtime.default_param()
    assert (param["max_context_len"], param["top_p"], param["mirostat_eta"], param["model_path"]) == (
        512,
        0.9,
        0.1,
        None,
    )
    family = number(recorded.family)
    assert ("n_keep" in param) == ("enabled_cpus_num" in param) == (family >= 2)
    assert ("n_batch" in param) == (family >= 4)
    assert ("ignore_eos_token" in param) == (family == 5)
    assert ("img_start" in param) == (family < 5)


def test_the_functions_of_the_family_are_listed(recorded: Recorded) -> None:
    functions = recorded.runtime.functions
    assert len(functions) == {1: 10, 2: 12, 3: 12, 4: 15, 5: 15}[number(recorded.family)]
    assert "rkllm_run" in functions
    assert not recorded.runtime.can_force_tokens


def test_init_changes_the_named_fields_and_keeps_the_librarys_other_bytes(recorded: Recorded) -> None:
    recorded.init("/mödel", max_context_len=1024, mirostat_tau=2.5, skip_special_token=True, base_domain_id=3)
    assert recorded.lines()[0] == "init path=/mödel context=1024 tau=2.50 skip=1 reserved=77 domain=3"


def test_init_hands_over_what_only_some_families_have(load_recorder: Callable[[str], Recorded]) -> None:
    f3, f5 = load_recorder("F3"), load_recorder("F5")
    f3.init(n_keep=5, enabled_cpus_num=2, enabled_cpus_mask=0x30, img_start="<s>", img_content="<c>")
    assert f3.lines()[1:] == ["init n_keep=5 cpus=2 mask=30", "init img=<s> NULL <c>"]
    f5.init(n_keep=6, ignore_eos_token=True)
    assert f5.lines()[1:] == ["init n_keep=6 cpus=4 mask=f0", "init ignore_eos=1"]


@pytest.mark.parametrize(
    ("family", "param"),
    [("F1", {"n_keep": 1}), ("F3", {"n_batch": 2}), ("F4", {"ignore_eos_token": True}), ("F5", {"img_start": "<"})],
)
def test_a_field_that_the_family_lacks_is_refused(
    load_recorder: Callable[[str], Recorded], family: str, param: dict[str, Any]
) -> None:
    with pytest.raises(NotSupported) as caught:
        load_recorder(family).init(**param)
    assert (caught.value.function, caught.value.family) == (next(iter(param)), family)


def test_a_field_that_the_family_lacks_may_be_set_to_what_it_does_anyway(
    load_recorder: Callable[[str], Recorded],
) -> None:
    load_recorder("F1").init(n_keep=0, n_batch=1, ignore_eos_token=False, enabled_cpus_num=4)
    load_recorder("F5").init(img_start=None)


@pytest.mark.parametrize(
    ("param", "error"),
    [
        ({"max_contxt_len": 1}, TypeError),
        ({"max_context_len": 2**31}, ValueError),
        ({"max_context_len": "8"}, TypeError),
        ({"top_p": float("nan")}, ValueError),
        ({"top_p": "0.9"}, TypeError),
        ({"n_batch": 101}, ValueError),
        ({"skip_special_token": 2}, ValueError),
        ({"model_path": "a\0b"}, ValueError),
    ],
)
def test_a_wrong_field_is_refused_by_name(recorded_f5: Recorded, param: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(param))):
        recorded_f5.runtime.init(param, recorded_f5.on_result)
    recorded_f5.init()  # and the Runtime is as before


def test_a_failed_init_raises_its_status_and_may_be_tried_again(recorded: Recorded) -> None:
    with pytest.raises(RkllmError) as caught:
        recorded.init("/bad-init")
    assert (caught.value.function, caught.value.status) == ("rkllm_init", -1)
    recorded.init()
    assert recorded.runtime.run(PROMPT, Infer()) == 0


def test_the_other_calls_reach_the_library(recorded_f5: Recorded) -> None:
    recorded_f5.init()
    recorded_f5.lines()
    runtime = recorded_f5.runtime
    runtime.load_lora("/lora", "poet", 0.5)
    runtime.load_prompt_cache(Path("/cache"))
    runtime.release_prompt_cache()
    runtime.clear_kv_cache(True)
    runtime.clear_kv_cache(False, [3], [4])
    runtime.set_chat_template("sys", "pre", "post")
    runtime.set_function_tools("sys", "[]", None)
    runtime.set_cross_attn_params(ROWS, ROWS, ROWS, [0, 1, 2], 3)
    assert recorded_f5.lines() == [
        "lora /lora poet 0.50",
        "cache /cache",
        "release",
        "clear 1 -1 -1",
        "clear 0 3 4",
        "template sys pre post",
        "tools sys [] NULL",
        "cross 1 1 1 1 3",
    ]
    assert runtime.is_running() == 1
    with pytest.raises(ValueError, match="2 positions"):
        runtime.clear_kv_cache(False, [1, 2], [3, 4])


def test_a_function_that_the_family_lacks_is_refused(load_recorder: Callable[[str], Recorded]) -> None:
    f1, f3 = load_recorder("F1"), load_recorder("F3")
    for recorded in (f1, f3):
        recorded.init()
    calls: list[tuple[str, Callable[[], object]]] = [
        ("rkllm_clear_kv_cache", lambda: f1.runtime.clear_kv_cache(False)),
        ("rkllm_set_chat_template", lambda: f1.runtime.set_chat_template("", "", "")),
        ("rkllm_get_kv_cache_size", f3.runtime.get_kv_cache_size),
        ("rkllm_set_function_tools", lambda: f3.runtime.set_function_tools("", "", "")),
        ("rkllm_set_cross_attn_params", lambda: f3.runtime.set_cross_attn_params(ROWS, ROWS, ROWS, [1], 1)),
        ("rkllm_clear_kv_cache with start and end", lambda: f3.runtime.clear_kv_cache(False, [1], [2])),
        ("rkvisor_force_tokens", lambda: f3.runtime.force_tokens([1])),
    ]
    for function, call in calls:
        with pytest.raises(NotSupported) as caught:
            call()
        assert caught.value.function == function
    f3.runtime.clear_kv_cache(True)
    assert f3.lines()[-1] == "clear 1"


@pytest.mark.errors
def test_a_failed_call_raises_its_function_and_status(recorded_f5: Recorded) -> None:
    recorded_f5.init("/bad-lora")
    with pytest.raises(RkllmError, match="cannot complete rkllm_load_lora: the runtime returned status -5"):
        recorded_f5.runtime.load_lora("/lora", "poet", 1)


def test_f5_calls_its_tokenizer_and_embedder(recorded_f5: Recorded) -> None:
    asked: list[object] = []

    def tokenizer(text: bytes) -> list[int]:
        asked.append(text)
        return [4, 5]

    def embedder(ids: list[int]) -> bytes:
        asked.append(ids)
        return array.array("f", [1.5, 0, 0, 2.5]).tobytes()

    recorded_f5.runtime.init({"model_path": "/model"}, recorded_f5.on_result, tokenizer=tokenizer, embedder=embedder)
    assert asked == [b"hi", [7, 8]]
    assert recorded_f5.lines()[-2:] == ["tokenizer 2: 4 5", "embedder 0: 1.5 2.5"]


@pytest.mark.errors
def test_a_tokenizer_that_fails_fails_the_init(recorded_f5: Recorded, recorded_f4: Recorded) -> None:
    with pytest.raises(ZeroDivisionError):
        recorded_f5.runtime.init({}, recorded_f5.on_result, tokenizer=lambda text: [1 // 0])
    assert recorded_f5.lines()[-1] == "tokenizer -1: 0 0"
    with pytest.raises(NotSupported, match="tokenizer"):
        recorded_f4.runtime.init({}, recorded_f4.on_result, tokenizer=lambda text: [1])


def test_the_constants_are_those_of_f5() -> None:
    assert CONSTANTS["LLMCallState"]["RKLLM_RUN_ERROR"] == 3
    assert CONSTANTS["RKLLMInputType"]["RKLLM_INPUT_MULTIMODAL"] == 3
    assert CONSTANTS["RKLLMInferMode"]["RKLLM_INFER_GET_LOGITS"] == 2


@pytest.mark.errors
def test_what_is_no_runtime_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match="cannot load"):
        Runtime(str(tmp_path / "nothing.so"), "F5")
    with pytest.raises(LibraryError, match="it does not export rkllm_createDefaultParam, rkllm_init") as caught:
        Runtime("libc.so.6", "F5")
    assert caught.value.path == "libc.so.6"
    with pytest.raises(ValueError, match="F0"):
        Runtime("libc.so.6", "F0")
