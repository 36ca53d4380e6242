"""Calls that cannot be: bad paths, tensors that do not fit, names that nobody has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.api import Api, floats, ref
from harness.configured import CROSS, MASK, POS, K, V, error_of, lacks, loaded, same

pytestmark = pytest.mark.api

OUTSIDE = [
    "../rkvisor.toml",
    "/etc/passwd",
    "a.bin/../../rkvisor.toml",
    "link",
    "loop",
    "no",
    "sub",
    ".",
    "a\0b",
    "x" * 300,
]


@pytest.fixture
def traps(api: Api) -> Iterator[None]:
    for name in ("lora", "caches"):
        folder = api.server.folder / name
        (folder / "link").symlink_to("../rkvisor.toml")
        (folder / "loop").symlink_to("loop")
        (folder / "sub").mkdir()
    yield
    for name in ("lora", "caches"):
        folder = api.server.folder / name
        (folder / "link").unlink()
        (folder / "loop").unlink()
        (folder / "sub").rmdir()


@pytest.mark.security
def test_a_path_that_leads_out_or_nowhere_is_refused(api: Api, fresh: str, traps: None) -> None:
    pids = api.pids(fresh)
    for path in OUTSIDE:
        lora = error_of(api, "rkllm.load_lora", {"model": fresh, "path": path, "name": "x"})
        cache = error_of(api, "rkllm.load_prompt_cache", {"model": fresh, "path": path})
        assert (lora.code, cache.code) == (-32602, -32602), path
        if path != "no":  # a file that may be made
            save = error_of(api, "rkllm.run", {"model": fresh, "prompt": "a", "prompt_cache": path})
            assert save.code == -32602, path
    for params in ({"path": ""}, {"path": 5}, {"path": "a.bin", "scale": 1e9}, {"path": "a.bin", "name": ""}):
        assert error_of(api, "rkllm.load_lora", {"model": fresh, "name": "x", **params}).code == -32602, params
    assert api.pids(fresh) == pids
    assert "models" in (api.server.folder / "rkvisor.toml").read_text()


def test_without_a_configured_folder_no_path_is_taken(api: Api) -> None:
    for name in loaded(api, "bare"):
        error = error_of(api, "rkllm.load_lora", {"model": name, "path": "a.bin", "name": "x"})
        assert (error.code, "lora_dir" in str(error)) == (-32602, True)
        error = error_of(api, "rkllm.run", {"model": name, "prompt": "a", "prompt_cache": "x"})
        assert (error.code, "prompt_cache_dir" in str(error)) == (-32602, True)


BAD_CROSS = [
    ({"num_tokens": 3}, (K, V, MASK, POS)),
    ({"num_tokens": 0}, (K, V, MASK, POS)),
    ({"num_tokens": -1}, (K, V, MASK, POS)),
    ({"encoder_pos": ref(3, 2)}, (K, V, MASK, POS)),
    ({"encoder_mask": ref(2, 2, dtype="int32")}, (K, V, MASK, POS)),
    ({"encoder_mask": ref(2, 3)}, (K, V, MASK, POS)),
    ({"encoder_mask": [[1, 1], [1]]}, (K, V, POS)),
    ({"encoder_pos": [[0.5, 1]]}, (K, V, MASK)),
    ({"encoder_pos": [[0, 2**31]]}, (K, V, MASK)),
    ({"encoder_k_cache": ref(0, 4, 2)}, (K[:16], V, MASK, POS)),
    ({}, (floats(float("nan"), *range(7)), V, MASK, POS)),
    ({}, (K, V, MASK)),
    ({}, (K, V, MASK, POS, POS)),
]


@pytest.mark.validation
def test_cross_attention_that_does_not_fit_is_refused_before_the_library_sees_it(api: Api, fresh: str) -> None:
    if lacks(api, "rkllm.set_cross_attn_params", {"model": fresh, **CROSS}, K, V, MASK, POS):
        return
    pids, plain = api.pids(fresh), same(api, fresh)
    for params, frames in BAD_CROSS:
        error = error_of(api, "rkllm.set_cross_attn_params", {"model": fresh, **CROSS, **params}, *frames)
        assert error.code == -32602, (params, str(error))
    assert (api.pids(fresh), same(api, fresh)) == (pids, plain)


@pytest.mark.validation
def test_calls_of_an_unknown_model_or_with_a_nul_or_unused_attachments_are_refused(api: Api, fresh: str) -> None:
    assert error_of(api, "rkllm.load_lora", {"model": "nobody", "path": "a.bin", "name": "x"}).code == -32602
    assert error_of(api, "rkllm.load_lora", {"model": fresh, "path": "a.bin", "name": "a\0b"}).code == -32602
    assert error_of(api, "rkllm.set_chat_template", {"model": fresh, "system_prompt": "a\0"}).code == -32602
    assert error_of(api, "rkllm.release_prompt_cache", {"model": fresh}, K).code == -32602
    assert error_of(api, "model.info", {"model": fresh}, K).code == -32602
    for method in ("model.info", "model.load", "model.unload", "rkllm.createDefaultParam"):
        assert error_of(api, method, {"model": "nobody"}).code == -32602
