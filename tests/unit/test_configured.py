"""What a model is configured with, and what takes a call back."""

from __future__ import annotations

import pytest

from rkvisor.protocol.calls import UNDO
from rkvisor.supervisor.calls.configured import Call, Configured, Key, undo_of

LORA, TEMPLATE = "rkllm.load_lora", "rkllm.set_chat_template"


def call(name: str, text: str = "") -> Call:
    return Call(name, text.encode(), ())


def test_a_later_call_with_the_same_key_takes_the_place_of_the_earlier_one_and_goes_last() -> None:
    kept = Configured()
    calls: list[tuple[Call, Key]] = [
        (call(LORA, "1"), (LORA, "a")),
        (call(TEMPLATE, "2"), (TEMPLATE, "")),
        (call(LORA, "3"), (LORA, "b")),
        (call(LORA, "4"), (LORA, "a")),
    ]
    assert all(kept.count(one, key) for one, key in calls)
    assert [one.raw_params for one in kept] == [b"2", b"3", b"4"]


def test_a_release_takes_the_prompt_cache_away_and_a_question_changes_nothing() -> None:
    kept = Configured()
    kept.count(call("rkllm.load_prompt_cache"), ("rkllm.load_prompt_cache", ""))
    assert not kept.count(call("rkllm.get_kv_cache_size"), None)
    assert len(list(kept)) == 1
    assert kept.count(call("rkllm.release_prompt_cache"), None), "new processes that were given it must hear of it"
    assert list(kept) == []


@pytest.mark.parametrize(
    ("name", "key", "is_undone"),
    [
        (LORA, (LORA, "a"), True),
        (TEMPLATE, (TEMPLATE, ""), True),
        ("rkllm.release_prompt_cache", None, True),
        ("rkllm.clear_kv_cache", None, False),
        ("rkllm.get_kv_cache_size", None, False),
    ],
)
def test_what_is_kept_can_be_taken_back(name: str, key: Key | None, is_undone: bool) -> None:
    undo = undo_of(call(name), key)
    assert (undo is not None) == is_undone
    assert undo is None or undo.name == UNDO
