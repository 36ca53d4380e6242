"""What clients are told of the ABI's enums, against the layout facts."""

import json
from pathlib import Path

from rkvisor.protocol.constants import CONSTANTS, PARAM_MEMBERS

LAYOUTS = json.loads((Path(__file__).parents[2] / "cython_ext" / "abi" / "layouts.json").read_text())


def test_the_constants_are_those_of_the_newest_family() -> None:
    enums = LAYOUTS["families"]["F5"]["enums"]
    assert {name: dict(members) for name, members in enums.items()} == CONSTANTS


def test_the_members_of_param_are_the_numbers_of_all_families() -> None:
    structs = [family["structs"] for family in LAYOUTS["families"].values()]
    fields = [field for one in structs for name in ("RKLLMParam", "RKLLMExtendParam") for field in one[name]["fields"]]
    left_out = {"model_path", "img_start", "img_end", "img_content", "extend_param", "reserved"}
    assert {field[3] for field in fields} - left_out == set(PARAM_MEMBERS)
    assert len(set(PARAM_MEMBERS)) == len(PARAM_MEMBERS)
