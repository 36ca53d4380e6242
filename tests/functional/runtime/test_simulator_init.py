"""rkllm_init of the simulator: parameters, model files, and what no program should pass."""

import ctypes
from pathlib import Path
from typing import Any

import pytest

from harness.abi_ctypes import LIBRARIES, ROOT, Family
from harness.child import GIVING_BACK, tell
from harness.sim_driver import Simulator

pytestmark = pytest.mark.validation
BUILTINS = sorted(path.stem for path in (ROOT / "etc" / "models").glob("*.toml"))


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RKVISOR_SIM_TIME_SCALE", "0")


@pytest.mark.parametrize("name", BUILTINS)
def test_every_builtin_loads_and_speaks(name: str) -> None:
    with Simulator(model=f"builtin:{name}", max_new_tokens=5) as sim:
        assert sim.run("a").text


def test_there_is_a_builtin_for_each_row_of_the_vendors_benchmark() -> None:
    rows = {"qwen3-0.6b", "tinyllama-1.1b", "qwen2.5-1.5b", "gemma4-e2b", "qwen3.5-4b", "chatglm3-6b"}
    assert rows | {"tiny", "qwen3-1.7b"} == set(BUILTINS)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"max_context_len": 100}, "max_context[100] must be a multiple of 32"),
        ({"max_context_len": 0}, "max_context[0] must be a multiple of 32"),
        ({"max_context_len": -32}, "max_context[-32] must be a multiple of 32"),
        ({"max_context_len": 16416}, "max_context[16416] must be less than 16384"),
        ({"n_keep": 512}, "The n_keep must be less than"),
        ({"enabled_cpus_num": 3}, "Mismatch between enabled CPUs mask"),
        ({"n_batch": 101}, "n_batch[101] must be from 1 to 100"),
        ({"base_domain_id": 16}, "base_domain_id[16] must be from 0 to 15"),
    ],
)
@pytest.mark.parametrize("family", ["f4", "f5"])
def test_a_bad_parameter_fails_init_with_the_vendors_words(
    family: str, params: dict[str, Any], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RuntimeError):
        Simulator(family, **params)
    assert f"E rkllm: {message}" in capfd.readouterr().err


def test_the_models_own_limit_bounds_the_context(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "short.toml"
    model.write_text("context = 256\n")
    with pytest.raises(RuntimeError):
        Simulator(model=str(model))
    assert "E rkllm: max_context[512] must be less than the model's limit 256" in capfd.readouterr().err
    Simulator(model=str(model), max_context_len=256).__exit__()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name = 'x'", 1),
        ("\ntoken_ms = fast", 2),
        ("token_ms = 1 2", 1),
        ("token_ms = -1", 1),
        ("token_ms = nan", 1),
        ("token_ms", 1),
        ("# fine\n\ncolour = 1", 3),
        ("seed = 1\nseed = 2", 2),
        ("vocab_size = 1.5", 1),
        ("vocab_size = 100", 1),
        ("tensor_finish = maybe", 1),
        ('name = "open', 1),
        ('name = "\\q"', 1),
        ("[section]", 1),
    ],
)
def test_a_bad_line_of_a_model_is_named(
    text: str, line: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "bad.toml"
    model.write_text(text)
    with pytest.raises(RuntimeError):
        Simulator(model=str(model))
    assert f"E rkllm: {model}:{line}: " in capfd.readouterr().err


def test_comments_escapes_and_every_kind_of_value_are_understood(tmp_path: Path) -> None:
    model = tmp_path / "good.toml"
    model.write_text('# c\n  name = "q\\"\\\\\\n\\t" # c\r\nseed=7\nload_ms = 1e-3\ntensor_finish = false # c')
    with Simulator(model=str(model), max_new_tokens=5) as sim:
        seven = sim.run("a").text
    with Simulator(max_new_tokens=5) as sim:
        assert sim.run("a").text != seven


def test_what_is_not_a_simulators_model_has_invalid_magic_characters(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model.rkllm"
    model.write_bytes(b"RKLLM\0\1\2" * 100)
    with pytest.raises(RuntimeError):
        Simulator(model=str(model))
    assert "E rkllm: invalid magic characters" in capfd.readouterr().err


@pytest.mark.parametrize("path", ["/nowhere/model.toml", "builtin:none", "builtin:../models/tiny", "builtin:", ""])
def test_a_model_that_does_not_exist_is_named(path: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError):
        Simulator(model=path)
    assert "E rkllm: failed to open model file" in capfd.readouterr().err


def test_a_model_can_refuse_to_load_in_words_of_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "refuses.toml"
    model.write_text('init_error = "driver version is too low"\n')
    with pytest.raises(RuntimeError):
        Simulator(model=str(model))
    assert "E rkllm: driver version is too low" in capfd.readouterr().err


def test_a_model_really_takes_its_resident_memory(tmp_path: Path) -> None:
    model = tmp_path / "big.toml"
    model.write_text("resident_mb = 48\n")
    loaded, left = map(int, tell("harness.resident", str(model), **GIVING_BACK).split())
    assert loaded > 40 * 1024
    assert left < 24 * 1024


@pytest.mark.parametrize("family", ["f1", "f3", "f4", "f5"])
def test_null_and_foreign_pointers_are_errors(family: str) -> None:
    abi = Family(family.upper())
    library = abi.load(LIBRARIES / f"librkllmrt_sim_{family}.so")
    handle, param = ctypes.c_void_p(), library.rkllm_createDefaultParam()
    param.model_path = b"builtin:tiny"
    callback = abi.RKLLMCallback() if family == "f5" else abi.LLMResultCallback()
    target = ctypes.byref(callback) if family == "f5" else callback
    assert library.rkllm_init(ctypes.byref(handle), ctypes.byref(param), target) == -1
    assert library.rkllm_init(ctypes.byref(handle), None, target) == -1
    with Simulator(family) as sim:
        assert library.rkllm_init(None, ctypes.byref(param), target) == -1
        library, given, infer = sim.library, sim.make_input("a"), sim.make_infer()
        for bad in (None, ctypes.c_void_p(64)):
            assert library.rkllm_run(bad, ctypes.byref(given), ctypes.byref(infer), None) == -1
            assert library.rkllm_abort(bad) == -1
            assert library.rkllm_is_running(bad) == -1
            assert library.rkllm_destroy(bad) == -1
        assert library.rkllm_run(sim.handle, None, ctypes.byref(infer), None) == -1
        assert library.rkllm_run(sim.handle, ctypes.byref(given), None, None) == -1
        assert library.rkllm_run_async(sim.handle, ctypes.byref(given), None, None) == -1
        assert library.rkllm_load_lora(sim.handle, None) == -1
        assert library.rkllm_load_prompt_cache(sim.handle, None) == -1
        given.prompt_input = None
        assert library.rkllm_run(sim.handle, ctypes.byref(given), ctypes.byref(infer), None) == -1
        if family in ("f4", "f5"):
            assert library.rkllm_get_kv_cache_size(sim.handle, None) == -1
            assert library.rkllm_set_function_tools(sim.handle, None, b"", b"") == -1
            assert library.rkllm_set_cross_attn_params(sim.handle, None) == -1
        if family != "f1":
            assert library.rkllm_set_chat_template(sim.handle, None, b"", b"") == -1


def test_tokens_outside_the_vocabulary_and_unknown_input_types_are_refused() -> None:
    with Simulator(max_new_tokens=1) as sim:
        assert sim.run([1023]).status == 0
        assert sim.run([1024]).status == -1
        assert sim.run([-1]).status == -1
        assert sim.run(sim.abi.RKLLMInput(input_type=9)).status == -1
        assert sim.run("a", mode=9).status == -1
        missing = sim.abi.RKLLMInput(input_type=sim.abi.RKLLM_INPUT_TOKEN)
        missing.token_input.n_tokens = 3
        assert sim.run(missing).status == -1


def test_a_destroyed_handle_is_no_handle() -> None:
    sim = Simulator()
    assert sim.library.rkllm_destroy(sim.handle) == 0
    assert sim.library.rkllm_destroy(sim.handle) == -1
    assert sim.run("a").status == -1


def test_prompts_are_printed_only_from_log_level_two(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for level, printed in (("1", False), ("2", True)):
        monkeypatch.setenv("RKLLM_LOG_LEVEL", level)
        with Simulator(max_new_tokens=1) as sim:
            sim.run("a secret")
        assert ("a secret" in capfd.readouterr().out) is printed
