"""The rendered headers, and the facts about layouts that the binding's conversions rest on."""

import json
from pathlib import Path
from typing import Any

import pytest

from rkvisor.cython_ext import detection
from rkvisor.cython_ext._rkllm import CONSTANTS
from rkvisor.cython_ext.abi import render

LAYOUTS: dict[str, Any] = json.loads(render.LAYOUTS.read_text())["families"]
FAMILIES = sorted(LAYOUTS)


def structs(family: str) -> dict[str, Any]:
    """struct name → layout; the oldest families spell RKLLMMultiModalInput with an e."""
    return {name.replace("MultiModel", "MultiModal"): layout for name, layout in LAYOUTS[family]["structs"].items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_header_on_disk_is_the_rendered_one(family: str) -> None:
    header = Path(render.INCLUDE) / f"rkllm_{family.lower()}.h"
    assert header.read_text() == render.render(family, LAYOUTS[family])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_field_has_an_assert_for_its_offset(family: str) -> None:
    text = render.render(family, LAYOUTS[family])
    for name, struct in LAYOUTS[family]["structs"].items():
        assert f"static_assert(sizeof({name}) == {struct['size']}," in text
        for offset, _, ctype, field in struct["fields"]:
            if not ctype.startswith("anonymous union"):
                assert f"static_assert(offsetof({name}, {field}) == {offset}," in text


@pytest.mark.parametrize("family", FAMILIES)
def test_every_function_has_a_prototype_and_a_type(family: str) -> None:
    text = render.render(family, LAYOUTS[family])
    for function in LAYOUTS[family]["functions"]:
        assert f" (*{function}_fn)(" in text
        assert f" {function}(" in text.split("#ifndef RKLLM_NO_PROTOTYPES")[1]


def test_sizes_are_those_of_the_behaviour_page() -> None:
    names = ("RKLLMParam", "RKLLMInput", "RKLLMInferParam", "RKLLMResult")
    sizes = {family: tuple(structs(family)[name]["size"] for name in names) for family in FAMILIES}
    assert sizes == {
        "F1": (200, 32, 24, 32),
        "F2": (208, 32, 32, 48),
        "F3": (208, 56, 32, 48),
        "F4": (208, 64, 32, 72),
        "F5": (184, 160, 40, 72),
    }


def test_structs_of_f2_are_prefixes_of_those_of_f3() -> None:
    f2, f3 = structs("F2"), structs("F3")
    assert set(f2) == set(f3)
    for name, struct in f2.items():
        if name == "RKLLMInput":  # its union holds the multimodal struct that grew
            assert struct["fields"][0] == f3[name]["fields"][0]
            assert [f[0] for f in struct["fields"]] == [f[0] for f in f3[name]["fields"]]
        else:
            count = len(struct["fields"])
            assert struct["fields"] == f3[name]["fields"][:count]


@pytest.mark.parametrize("name", ["RKLLMLoraAdapter", "RKLLMLoraParam", "RKLLMPromptCacheParam"])
def test_what_the_conversions_share_by_pointer_has_one_layout(name: str) -> None:
    assert len({json.dumps(structs(family)[name]) for family in FAMILIES}) == 1


def test_results_and_cross_attention_of_f4_and_f5_are_one_layout() -> None:
    for name in ("RKLLMResult", "RKLLMPerfStat", "RKLLMResultLogits", "RKLLMCrossAttnParam"):
        assert structs("F4")[name] == structs("F5")[name]


def test_the_constants_of_the_binding_are_the_enums_of_f5() -> None:
    assert LAYOUTS["F5"]["enums"] == CONSTANTS


def test_detection_knows_the_versions_and_sizes_of_the_layouts() -> None:
    known = {version: family for family in FAMILIES for version in LAYOUTS[family]["versions"]}
    assert {"1.0.1": "F0", **known} == detection.VERSIONS
    for family in FAMILIES:
        param = structs(family)["RKLLMParam"]
        assert detection.PARAM_BYTES[family] == param["size"]
        if family in detection.CPUS_AT:
            start = next(field[0] for field in param["fields"] if field[3] == "extend_param")
            inner = structs(family)["RKLLMExtendParam"]["fields"]
            offset = next(field[0] for field in inner if field[3] == "enabled_cpus_num")
            assert int(detection.CPUS_AT[family]) == start + offset
