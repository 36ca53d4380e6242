"""Every input and every mode of ``rkllm.run``, on every ABI family."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from typing import Any

import pytest

from harness.api import FAMILIES, VOCABULARY, WIDTH, Api, floats, model, ref
from harness.places import ROOT
from harness.rkvisord import Rkvisord, RpcError
from harness.sim_driver import Simulator
from harness.sim_vocabulary import TEXT_OF, tokenise

pytestmark = pytest.mark.api

PROMPT = " the story"
HALVES = floats(*([0.5] * 2 * WIDTH))
IMAGE = {"embed": ref(0, 2, WIDTH), "n_image_tokens": 2}
VIDEO = {"embed": ref(0, 2, WIDTH), "n_frame_tokens": 2, "n_frame_per_video": 1}


@pytest.fixture(scope="module", params=FAMILIES)
def api(request: pytest.FixtureRequest) -> Iterator[Api]:
    family: str = request.param
    models = model("demo", family, "workers = 1")
    if family in ("f4", "f5"):
        models += model("pair", family, "workers = 1", "n_batch = 2")
    with Rkvisord(models) as server:
        connection = Api(server, family)
        yield connection
        connection.close()


def refused(api: Api, *attachments: bytes, **params: Any) -> RpcError:
    """The error of a run that is refused before a process can be hurt by it."""
    before = api.pids()
    with pytest.raises(RpcError) as caught:
        api.run(*attachments, **params)
    assert api.pids() == before
    return caught.value


# Inputs.


def test_a_prompt_is_generated_from_as_the_library_does(api: Api) -> None:
    with Simulator(api.family, max_new_tokens=8) as simulator:
        wanted = simulator.run(PROMPT)
    found = api.run(prompt=PROMPT)
    assert found["token_ids"] == wanted.ids[: len(found["token_ids"])]
    assert found["text"].encode() == wanted.text[: len(found["text"].encode())]
    assert found["finish_reason"] == "length"


def test_tokens_are_the_prompt_that_they_spell(api: Api) -> None:
    assert api.run(tokens=tokenise(PROMPT))["token_ids"] == api.run(prompt=PROMPT)["token_ids"]


def test_the_text_is_what_the_ids_stand_for(api: Api) -> None:
    found = api.run(prompt=PROMPT)
    whole = b"".join(TEXT_OF[one] for one in found["token_ids"])
    assert found["text"] == whole.decode(errors="replace")


def test_embeddings_as_attachment_and_as_list_are_the_same(api: Api) -> None:
    attached = api.run(HALVES, embed=ref(0, 2, WIDTH))
    listed = api.run(embed=[[0.5] * WIDTH] * 2)
    assert attached["token_ids"] == listed["token_ids"]
    other = api.run(floats(*([0.5] * (2 * WIDTH - 1)), 0.25), embed=ref(0, 2, WIDTH))
    assert other["token_ids"] != attached["token_ids"], "the last number counts too"


def test_a_shape_of_more_dimensions_is_rows_of_its_last_one(api: Api) -> None:
    wanted = api.run(HALVES, embed=ref(0, 2, WIDTH))["token_ids"]
    assert api.run(HALVES, embed=ref(0, 1, 2, WIDTH))["token_ids"] == wanted


def test_an_image_takes_part_in_the_answer(api: Api) -> None:
    image = {"embed": ref(0, 2, WIDTH), "n_image_tokens": 2}
    seen = api.run(HALVES, multimodal={"prompt": "see <image>", "image": image})
    other = api.run(floats(*([0.25] * 2 * WIDTH)), multimodal={"prompt": "see <image>", "image": image})
    listed = api.run(multimodal={"prompt": "see <image>", "image": {**image, "embed": [[0.5] * WIDTH] * 2}})
    assert seen["token_ids"] == listed["token_ids"] != other["token_ids"]


def test_several_images_and_their_sizes_are_for_the_families_that_know_them(api: Api) -> None:
    image = {"embed": ref(0, 2, WIDTH), "n_image_tokens": 1, "n_image": 2, "width": 8, "height": 4}
    media = {"prompt": "<image> and <image>", "image": image}
    if api.family == "f1":
        assert refused(api, HALVES, multimodal=media).name == "NOT_SUPPORTED"
        one = {"embed": ref(0, 2, WIDTH), "n_image_tokens": 2, "width": 8}
        error = refused(api, HALVES, multimodal={"prompt": "<image>", "image": one})
        assert error.name == "NOT_SUPPORTED"
        assert "width" in str(error)
        return
    plain = {"prompt": "<image> and <image>", "image": {**image, "width": 9}}
    assert api.run(HALVES, multimodal=media)["token_ids"] != api.run(HALVES, multimodal=plain)["token_ids"]


def test_a_video_is_for_f5(api: Api) -> None:
    video = {"embed": ref(0, 4, WIDTH), "n_frame_tokens": 2, "n_frame_per_video": 2, "start": "[", "end": "]"}
    media = {"prompt": "watch <video>", "video": video}
    if api.family != "f5":
        assert refused(api, HALVES * 2, multimodal=media).name == "NOT_SUPPORTED"
        return
    found = api.run(HALVES * 2, multimodal=media)
    assert found["finish_reason"] == "length"
    assert found["token_ids"] != api.run(HALVES * 2, multimodal={**media, "prompt": "look <video>"})["token_ids"]


def test_image_and_video_go_together_on_f5(api: Api) -> None:
    image = {"embed": ref(1, 1, WIDTH), "n_image_tokens": 1}
    video = {"embed": ref(0, 2, WIDTH), "n_frame_tokens": 2, "n_frame_per_video": 1}
    media = {"prompt": "<image> <video>", "image": image, "video": video}
    if api.family != "f5":
        assert refused(api, HALVES, floats(*([1.0] * WIDTH)), multimodal=media).name == "NOT_SUPPORTED"
        return
    assert len(api.run(HALVES, floats(*([1.0] * WIDTH)), multimodal=media)["token_ids"]) == 8


def test_messages_need_a_tokenizer(api: Api) -> None:
    error = refused(api, messages=[{"role": "user", "content": "hi"}])
    assert error.name == "NOT_SUPPORTED"
    assert "tokenizer =" in str(error), "the key to configure"


# Modes.


def test_the_likeliest_token_of_the_last_logits_is_the_next_token(api: Api) -> None:
    if api.family == "f1":
        assert refused(api, prompt=PROMPT, mode="logits").name == "NOT_SUPPORTED"
        return
    found = api.run(prompt=PROMPT, mode="logits")
    rows = found.rows("logits")
    assert found["logits"]["dtype"] == "float32"
    assert found["logits"]["shape"] == [len(tokenise(PROMPT)), VOCABULARY]
    assert rows[-1].index(max(rows[-1])) == api.run(prompt=PROMPT)["token_ids"][0]
    assert (found["text"], found["token_ids"], found["finish_reason"]) == ("", [], "stop")


@pytest.mark.parametrize(("mode", "member", "number"), [("hidden", "hidden_states", 1), ("logits", "logits", 2)])
def test_tensors_are_the_librarys_own_to_the_last_number(api: Api, mode: str, member: str, number: int) -> None:
    if (api.family, mode) == ("f1", "logits"):
        pytest.skip("F1 has no logits")
    with Simulator(api.family, max_new_tokens=8) as simulator:
        wanted = simulator.run(PROMPT, mode=number).tensors[0]
    attached = api.run(prompt=PROMPT, mode=mode)
    assert "attachment" in attached[member]
    assert len(attached.attachments) == 1
    assert attached.rows(member) == wanted
    listed = api.run(prompt=PROMPT, mode=mode, tensor_format="list")
    assert not listed.attachments
    assert [array("f", row) for row in listed.rows(member)] == [array("f", row) for row in wanted]


def test_hidden_states_of_embeddings_have_a_row_for_each(api: Api) -> None:
    found = api.run(HALVES, embed=ref(0, 2, WIDTH), mode="hidden")
    assert found["hidden_states"]["shape"] == [2, WIDTH]


def test_a_tensor_too_large_for_a_list_is_refused_with_the_way_out(api: Api) -> None:
    mode = "hidden" if api.family == "f1" else "logits"
    tokens = [5] * (512 if mode == "logits" else 500)
    if mode == "hidden":
        assert len(api.run(tokens=tokens, mode=mode, tensor_format="list").rows("hidden_states")) == 500
        return
    error = refused(api, tokens=tokens, mode=mode, tensor_format="list")
    assert error.name == "INVALID_PARAMS"
    assert "attachment" in str(error)
    assert api.run(tokens=tokens, mode=mode)["logits"]["shape"] == [512, VOCABULARY]


@pytest.mark.parametrize("unfit", [{"stream": True}, {"stop": ["x"]}])
def test_tensors_cannot_be_streamed_or_stopped(api: Api, unfit: dict[str, Any]) -> None:
    assert refused(api, prompt=PROMPT, mode="hidden", **unfit).name == "INVALID_PARAMS"


# What one run may bring.


@pytest.mark.parametrize(("name", "own", "other"), [("temperature", 0.0, 0.7), ("top_k", 40, 3), ("mirostat", 0, 2)])
def test_sampling_for_one_run_is_for_f5_unless_it_is_the_models(api: Api, name: str, own: float, other: float) -> None:
    usual = api.run(prompt=PROMPT)["token_ids"]
    assert api.run(prompt=PROMPT, **{name: own})["token_ids"] == usual
    if api.family == "f5":
        assert len(api.run(prompt=PROMPT, **{name: other})["token_ids"]) == 8
        return
    error = refused(api, prompt=PROMPT, **{name: other})
    assert error.name == "NOT_SUPPORTED"
    assert name in str(error)


def test_max_new_tokens_ends_a_run_on_every_family(api: Api) -> None:
    usual = api.run(prompt=PROMPT)["token_ids"]
    found = api.run(prompt=PROMPT, max_new_tokens=3)
    assert (found["token_ids"], found["finish_reason"]) == (usual[:3], "length")
    if api.family == "f5":
        assert len(api.run(prompt=PROMPT, max_new_tokens=20)["token_ids"]) == 20
    else:
        assert refused(api, prompt=PROMPT, max_new_tokens=20).name == "INVALID_PARAMS"


def test_roles_are_for_f4_and_f5(api: Api) -> None:
    if api.family in ("f1", "f3"):
        assert refused(api, prompt=PROMPT, role="system").name == "NOT_SUPPORTED"
    else:
        assert api.run(prompt=PROMPT, role="system")["token_ids"] != api.run(prompt=PROMPT)["token_ids"]


def test_perf_is_given_by_the_families_that_measure(api: Api) -> None:
    perf = api.run(prompt=PROMPT)["perf"]
    if api.family in ("f1", "f3"):
        assert perf is None
    else:
        assert (perf["prefill_tokens"], perf["generate_tokens"]) == (len(tokenise(PROMPT)), 8)


def test_a_failure_is_explained_by_what_the_library_said_of_it_and_not_of_an_earlier_one(api: Api) -> None:
    early = refused(api, tokens=[5] * 600)
    assert (early.code, early.name) == (-32603, "RKLLM_CONTEXT_ERROR")
    late = refused(api, prompt="[[sim:error]]" + PROMPT)
    assert late.name == "RKLLM_DEVICE_ERROR"
    assert not any("max context" in line for line in late.error["data"]["log"])


# Several prompts at once.


def test_prompts_are_answered_item_by_item(api: Api) -> None:
    if api.family in ("f1", "f3"):
        assert refused(api, prompts=["a", "b"]).name == "INVALID_PARAMS"
        return
    found = api.run(model="pair", prompts=[PROMPT, " a map"])
    assert [item["item"] for item in found["items"]] == [0, 1]
    for item, prompt in zip(found["items"], (PROMPT, " a map"), strict=True):
        alone = api.run(prompt=prompt)
        assert (item["text"], item["token_ids"]) == (alone["text"], alone["token_ids"])
        assert item["finish_reason"] == "length"
    assert found["text"] == found["items"][0]["text"]


def test_a_model_of_two_items_takes_two_prompts_and_nothing_else(api: Api) -> None:
    if api.family in ("f1", "f3"):
        pytest.skip("n_batch is for F4 and F5")
    before = api.pids("pair")
    for params, name in [
        ({"prompts": ["a"]}, "INVALID_PARAMS"),
        ({"prompts": ["a", "b", "c"]}, "INVALID_PARAMS"),
        ({"prompts": []}, "INVALID_PARAMS"),
        ({"prompts": ["a", "b\0"]}, "INVALID_PARAMS"),
        ({"prompt": "a"}, "NOT_SUPPORTED"),
        ({"tokens": [5]}, "NOT_SUPPORTED"),
        ({"prompts": ["a", "b"], "mode": "hidden"}, "INVALID_PARAMS"),
    ]:
        with pytest.raises(RpcError) as caught:
            api.run(model="pair", **params)
        assert caught.value.name == name, params
    assert api.pids("pair") == before


def test_a_stop_string_ends_one_item_only(api: Api) -> None:
    if api.family in ("f1", "f3"):
        pytest.skip("n_batch is for F4 and F5")
    whole = api.run(model="pair", prompts=[PROMPT, " a map"])["items"]
    stop = whole[0]["text"][2:5]
    cut = api.run(model="pair", prompts=[PROMPT, " a map"], stop=[stop])["items"]
    assert (cut[0]["text"], cut[0]["finish_reason"]) == (whole[0]["text"].split(stop)[0], "stop")
    assert cut[1]["text"] == whole[1]["text"].split(stop)[0]


# The page that says what works on which family.

#: A row of the page → params of a run that need it, and attachments.
NEEDS: dict[str, tuple[dict[str, Any], tuple[bytes, ...]]] = {
    "`prompt`": ({"prompt": "a"}, ()),
    "`tokens`": ({"tokens": [5]}, ()),
    "`embed`": ({"embed": ref(0, 2, WIDTH)}, (HALVES,)),
    "`multimodal` with `image`": ({"multimodal": {"prompt": "a", "image": IMAGE}}, (HALVES,)),
    "`image`: `n_image` above 1": (
        {"multimodal": {"prompt": "a", "image": {**IMAGE, "n_image": 2, "n_image_tokens": 1}}},
        (HALVES,),
    ),
    "`image`: `start`, `end`, `content`": ({"multimodal": {"prompt": "a", "image": {**IMAGE, "end": "]"}}}, (HALVES,)),
    "`multimodal` with `video`": ({"multimodal": {"prompt": "a", "video": VIDEO}}, (HALVES,)),
    "`role`": ({"prompt": "a", "role": "tool"}, ()),
    "`enable_thinking`": ({"prompt": "a", "enable_thinking": True}, ()),
    '`mode` `"hidden"`': ({"prompt": "a", "mode": "hidden"}, ()),
    '`mode` `"logits"`': ({"prompt": "a", "mode": "logits"}, ()),
    "`max_new_tokens` above the model's": ({"prompt": "a", "max_new_tokens": 9}, ()),
}


def table_of(name: str) -> dict[str, str]:
    """Row → what stands in the column of each family."""
    page = (ROOT / "docs" / "reference" / "families.md").read_text(encoding="utf-8")
    block = page.partition(f"<!-- generated: {name} -->")[2].partition("<!-- end -->")[0]
    rows = [[cell.strip() for cell in line.strip("| \n").split(" | ")] for line in block.strip().splitlines()]
    return {row[0]: " ".join(row[1:]) for row in rows[2:]}


def has(row: str, family: str) -> bool:
    return row.split()[int(family[1]) - 1] == "yes"


@pytest.mark.parametrize("what", NEEDS)
def test_the_page_of_families_says_what_a_run_may_ask_for(api: Api, what: str) -> None:
    params, attachments = NEEDS[what]
    if has(table_of("family_options")[what], api.family):
        assert api.run(*attachments, **params)["finish_reason"] in ("length", "stop")
    else:
        assert refused(api, *attachments, **params).name in ("NOT_SUPPORTED", "INVALID_PARAMS")


def test_the_page_of_families_lists_the_functions_and_parameters_that_there_are(api: Api) -> None:
    info = api.call("model.info", {"model": "demo"}).result
    listed = {name.strip("`") for name, row in table_of("family_methods").items() if has(row, api.family)}
    assert listed == {f"rkllm.{name.removeprefix('rkllm_')}" for name in info["functions"]} - {
        "rkllm.init",
        "rkllm.destroy",
        "rkllm.run_async",
    }
    members = {name.strip("`") for name, row in table_of("family_param").items() if has(row, api.family)}
    texts = {"img_start", "img_end", "img_content"}
    assert members - texts == set(info["default_param"]) - texts - {"is_async"}


# What a model tells.


def test_the_defaults_are_those_of_the_library(api: Api) -> None:
    found = api.call("rkllm.createDefaultParam", {"model": "demo"}).result
    with Simulator(api.family) as simulator:
        param = simulator.library.rkllm_createDefaultParam()
    for name in ("max_context_len", "max_new_tokens", "top_k"):
        assert found[name] == getattr(param, name)
    assert ("n_batch" in found) == (api.family in ("f4", "f5"))
    assert ("n_keep" in found) == (api.family != "f1")


def test_model_info_tells_family_functions_and_parameters(api: Api) -> None:
    info = api.call("model.info", {"model": "demo"}).result
    assert info["family"].lower() == api.family
    assert info["param"]["max_new_tokens"] == 8
    assert info["default_param"]["max_new_tokens"] == 512
    assert ("rkllm_get_kv_cache_size" in info["functions"]) == (api.family in ("f4", "f5"))
    assert ("rkllm_clear_kv_cache" in info["functions"]) == (api.family != "f1")
    assert info["can_force_tokens"] is True
    with pytest.raises(RpcError) as caught:
        api.call("model.info", {"model": "dmeo"})
    assert (caught.value.name, "demo" in str(caught.value)) == ("INVALID_PARAMS", True)


# A batch array of JSON-RPC.


def batch(api: Api, *requests: dict[str, Any], attachments: tuple[bytes, ...] = ()) -> dict[Any, Any]:
    """The responses of a batch array, by id; it never has attachments."""
    whole = [{"jsonrpc": "2.0", "id": f"b{i}", **request} for i, request in enumerate(requests)]
    api.send_raw(json.dumps(whole).encode(), *attachments)
    answers, frames = api.receive()
    assert frames == []
    return {one["id"]: one for one in answers}


def test_a_batch_array_shares_attachments_and_answers_with_lists_only(api: Api) -> None:
    run = {"method": "rkllm.run", "params": {"model": "demo", "embed": ref(1, 2, WIDTH)}}
    other = {"method": "rkllm.run", "params": {"model": "demo", "embed": ref(0, 1, WIDTH)}}
    hidden = {"method": "rkllm.run", "params": {"model": "demo", "prompt": "a", "mode": "hidden"}}
    listed = {"method": "rkllm.run", "params": {**hidden["params"], "tensor_format": "list"}}
    status = {"method": "system.version"}
    found = batch(api, run, other, hidden, listed, status, attachments=(floats(*([1.0] * WIDTH)), HALVES))
    assert found["b0"]["result"]["token_ids"] == api.run(HALVES, embed=ref(0, 2, WIDTH))["token_ids"]
    assert found["b1"]["result"]["token_ids"] == api.run(floats(*([1.0] * WIDTH)), embed=ref(0, 1, WIDTH))["token_ids"]
    assert found["b2"]["error"]["code"] == -32602
    assert len(found["b3"]["result"]["hidden_states"]["rows"]) == 1
    assert "version" in found["b4"]["result"]
