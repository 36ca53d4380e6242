"""Calls that configure a model: their effect, on every worker, on those that start later too."""

from __future__ import annotations

import json

import pytest

from harness.api import Api, floats, ints, ref
from harness.configured import CROSS, MASK, POS, K, V, error_of, lacks, same
from harness.sim_vocabulary import tokenise

pytestmark = pytest.mark.api


# LoRA.


def test_a_lora_changes_the_text_of_the_runs_that_name_it_and_is_there_after_a_crash(api: Api, fresh: str) -> None:
    plain = same(api, fresh)
    assert error_of(api, "rkllm.run", {"model": fresh, "prompt": "a", "lora": "style"}).code == -32602
    answer = api.call("rkllm.load_lora", {"model": fresh, "path": "a.bin", "name": "style", "scale": 0.5})
    assert answer["workers"] == [f"{fresh}:0", f"{fresh}:1"]
    styled = same(api, fresh, lora="style")
    assert styled != plain == same(api, fresh)
    api.replace(fresh)
    assert same(api, fresh, lora="style") == styled
    assert same(api, fresh) == plain


def test_several_loras_are_kept_and_one_loaded_again_replaces_its_namesake(api: Api, fresh: str) -> None:
    for name, scale in (("one", 0.5), ("two", 0.5), ("one", 0.75)):
        api.call("rkllm.load_lora", {"model": fresh, "path": "a.bin", "name": name, "scale": scale})
    texts = [same(api, fresh, lora=name) for name in ("one", "two")]
    api.replace(fresh)
    assert [same(api, fresh, lora=name) for name in ("one", "two")] == texts
    api.call("rkllm.load_lora", {"model": fresh, "path": "a.bin", "name": "one", "scale": 0.5})
    assert same(api, fresh, lora="one") != texts[0]


# Prompt caches.


def test_a_saved_prompt_cache_stands_before_every_prompt_until_it_is_released(api: Api, fresh: str) -> None:
    plain = same(api, fresh)
    saved = api.run(model=fresh, prompt=" the story", prompt_cache="story")
    assert saved["text"] == same(api, fresh, prompt=" the story"), "saving changes nothing"
    assert (api.server.folder / "caches" / "story").is_file()
    api.call("rkllm.load_prompt_cache", {"model": fresh, "path": "story"})
    continued = api.run(model=fresh, tokens=tokenise(" tell"))["text"]
    assert same(api, fresh) == same(api, fresh) == continued != plain
    api.replace(fresh)
    assert same(api, fresh) == continued
    api.call("rkllm.release_prompt_cache", {"model": fresh})
    assert same(api, fresh) == plain
    assert api.run(model=fresh, tokens=tokenise(" the story tell"))["text"] == continued
    api.replace(fresh)
    assert same(api, fresh) == plain


def test_a_prompt_cache_takes_the_place_of_another_and_a_bad_one_takes_none(api: Api, fresh: str) -> None:
    for name, prompt in (("one", " the"), ("two", " map")):
        api.run(model=fresh, prompt=prompt, prompt_cache=name)
    texts = []
    for name in ("one", "two"):
        api.call("rkllm.load_prompt_cache", {"model": fresh, "path": name})
        texts.append(same(api, fresh))
    assert texts[0] != texts[1]
    (api.server.folder / "caches" / "bad").write_bytes(b"no cache at all")
    error = error_of(api, "rkllm.load_prompt_cache", {"model": fresh, "path": "bad"})
    assert error.error["data"]["source"] == "RKLLM"
    assert any("invalid magic" in line for line in error.error["data"]["log"])
    assert same(api, fresh) == texts[1]


def test_releasing_what_is_not_loaded_is_no_error(api: Api, fresh: str) -> None:
    assert len(api.call("rkllm.release_prompt_cache", {"model": fresh})["workers"]) == 2


# Templates, tools, cross attention.


def test_a_chat_template_dresses_every_prompt_on_new_workers_too(api: Api, fresh: str) -> None:
    params = {"model": fresh, "system_prompt": " good", "prompt_prefix": "<u>", "prompt_postfix": "<a>"}
    if lacks(api, "rkllm.set_chat_template", params):
        return
    api.call("rkllm.set_chat_template", params)
    dressed = api.run(model=fresh, tokens=tokenise(" good") + tokenise("<u> tell<a>"))["text"]
    assert same(api, fresh) == dressed
    api.replace(fresh)
    assert same(api, fresh) == dressed


def test_function_tools_and_their_replies_reach_the_prompt(api: Api, fresh: str) -> None:
    params = {"model": fresh, "system_prompt": " good", "tools": '[{"name":"f"}]', "tool_response": "<t>"}
    if lacks(api, "rkllm.set_function_tools", params):
        return
    api.call("rkllm.set_function_tools", params)
    system = tokenise(" good") + tokenise('[{"name":"f"}]')
    wanted = [api.run(model=fresh, tokens=system + tokenise(text))["text"] for text in (" tell", "<t> tell")]
    assert [same(api, fresh), same(api, fresh, role="tool")] == wanted
    api.replace(fresh)
    assert [same(api, fresh), same(api, fresh, role="tool")] == wanted


def test_new_workers_get_the_last_calls_in_the_order_in_which_they_were_made(api: Api, fresh: str) -> None:
    if api.family in ("f1", "f3"):
        pytest.skip("these have no function tools to mix with a template")
    api.call("rkllm.set_chat_template", {"model": fresh, "system_prompt": "first"})
    api.call("rkllm.set_function_tools", {"model": fresh, "system_prompt": "second", "tools": "[]"})
    api.call("rkllm.set_chat_template", {"model": fresh, "system_prompt": "third"})
    text = same(api, fresh)
    api.replace(fresh)
    assert same(api, fresh) == text


def test_cross_attention_takes_part_in_the_answer(api: Api, fresh: str) -> None:
    params = {"model": fresh, **CROSS}
    if lacks(api, "rkllm.set_cross_attn_params", params, K, V, MASK, POS):
        return
    plain = same(api, fresh)
    api.call("rkllm.set_cross_attn_params", params, K, V, MASK, POS)
    crossed = same(api, fresh)
    api.replace(fresh)
    assert same(api, fresh) == crossed != plain
    api.call("rkllm.set_cross_attn_params", params, K, V, MASK, ints(1, 2))
    assert same(api, fresh) not in (plain, crossed)
    listed = {"encoder_k_cache": [[0, 1, 2, 3], [4, 5, 6, 7]], "encoder_v_cache": [[8, 9, 10, 11], [12, 13, 14, 15]]}
    api.call("rkllm.set_cross_attn_params", {**params, **listed, "encoder_mask": [[1, 1]], "encoder_pos": [[0, 1]]})
    assert same(api, fresh) == crossed


# The KV cache.


def test_the_kv_cache_is_counted_and_cleared_on_every_worker(api: Api, fresh: str) -> None:
    if lacks(api, "rkllm.get_kv_cache_size", {"model": fresh}):
        return
    names = [f"{fresh}:0", f"{fresh}:1"]
    same(api, fresh, prompt=" the story")
    sizes = api.call("rkllm.get_kv_cache_size", {"model": fresh})["workers"]
    assert sizes == {name: [len(tokenise(" the story")) + 8] for name in names}
    assert api.call("rkllm.clear_kv_cache", {"model": fresh})["workers"] == names
    assert api.call("rkllm.get_kv_cache_size", {"model": fresh})["workers"] == {name: [0] for name in names}
    api.call("rkllm.set_chat_template", {"model": fresh, "system_prompt": " good"})
    same(api, fresh)
    api.call("rkllm.clear_kv_cache", {"model": fresh, "keep_system_prompt": True})
    assert set(map(tuple, api.call("rkllm.get_kv_cache_size", {"model": fresh})["workers"].values())) == {(1,)}


def test_clearing_is_for_the_families_that_can_and_ranges_for_a_paused_run(api: Api, fresh: str) -> None:
    if lacks(api, "rkllm.clear_kv_cache", {"model": fresh}):
        return
    same(api, fresh)
    assert len(api.call("rkllm.clear_kv_cache", {"model": fresh})["workers"]) == 2
    error = error_of(api, "rkllm.clear_kv_cache", {"model": fresh, "start": [0], "end": [1]})
    assert error.name == ("NOT_SUPPORTED" if api.family == "f3" else "INVALID_PARAMS")
    assert api.family == "f3" or "rkllm.pause" in str(error)
    for params in ({"start": [0]}, {"end": [0]}, {"start": [0, 0], "end": [1]}, {"start": [-1], "end": [1]}):
        assert error_of(api, "rkllm.clear_kv_cache", {"model": fresh, **params}).code == -32602, params


# Load and unload.


def test_a_model_is_unloaded_and_loaded_with_what_it_was_configured_with(api: Api, fresh: str) -> None:
    api.call("rkllm.load_lora", {"model": fresh, "path": "a.bin", "name": "style"})
    styled = same(api, fresh, lora="style")
    old = api.pids(fresh)
    assert api.call("model.unload", {"model": fresh}).result == {"name": fresh, "state": "STOPPED"}
    assert api.pids(fresh) == [0, 0]
    assert error_of(api, "rkllm.run", {"model": fresh, "prompt": "a"}).name == "MODEL_UNAVAILABLE"
    assert error_of(api, "rkllm.load_lora", {"model": fresh, "path": "a.bin", "name": "x"}).name == "MODEL_UNAVAILABLE"
    assert api.call("model.load", {"model": fresh}).result == {"name": fresh, "state": "RUNNING"}
    assert not set(api.pids(fresh)) & set(old)
    assert same(api, fresh, lora="style") == styled


def test_loading_what_is_loaded_and_unloading_what_is_not_changes_nothing(api: Api, fresh: str) -> None:
    pids = api.pids(fresh)
    assert api.call("model.load", {"model": fresh})["state"] == "RUNNING"
    assert api.pids(fresh) == pids
    for _ in range(2):
        assert api.call("model.unload", {"model": fresh})["state"] == "STOPPED"


def test_a_batch_array_may_configure_with_attachments_that_its_members_share(api: Api, fresh: str) -> None:
    if api.family in ("f1", "f3"):
        pytest.skip("these have no call that takes attachments")
    cross = {"jsonrpc": "2.0", "id": 1, "method": "rkllm.set_cross_attn_params", "params": {"model": fresh, **CROSS}}
    embed = {"model": fresh, "embed": ref(4, 1, 64)}
    run = {"jsonrpc": "2.0", "id": 2, "method": "rkllm.run", "params": embed}
    api.send_raw(json.dumps([cross, run]).encode(), K, V, MASK, POS, floats(*[0.5] * 64))
    answers, _ = api.receive()
    assert all("result" in one for one in answers), answers
