"""Conversations to text by a model's chat template, which may come from anywhere (design §2)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.gguf_vocabulary import vocabulary, write
from rkvisor.protocol.errors import InvalidParams
from rkvisor.protocol.run import Message
from rkvisor.worker import template
from rkvisor.worker.template import Template, find, has_template, load, turns_of
from rkvisor.worker.tokenizer import CannotTokenize

pytest.importorskip("jinja2")

PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}>{% endif %}"


def rendered(
    text: str, messages: Sequence[Any] = ({"role": "user", "content": "hi"},), *, tools: list[Any] | None = None,
    thinking: bool = False, time_s: float = 0.0, **tokens: str,
) -> str:  # fmt: skip
    """What the template *text* makes of *messages*."""
    turns = turns_of(msgspec.convert(messages, list[Message]))
    return Template(text, "t.jinja", tokens).render(turns, enable_thinking=thinking, tools=tools, time_s=time_s)


def test_turns_become_text_up_to_where_the_answer_begins() -> None:
    talk = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi <b>"}]
    assert rendered(PLAIN, talk) == "system: be brief\nuser: hi <b>\n>"


def test_blocks_leave_no_lines_behind() -> None:
    """trim_blocks and lstrip_blocks, as models' templates were written for."""
    assert rendered("a\n    {% if true %}\nb\n    {% endif %}\nc") == "a\nb\nc"


def test_thinking_tools_and_special_tokens_reach_the_template() -> None:
    text = "{{ bos_token }}{{ enable_thinking }}{{ tools | tojson if tools else 'none' }}"
    assert rendered(text, bos_token="<s>") == "<s>Falsenone"
    assert rendered(text, thinking=True, tools=[{"name": "é<"}]) == 'True[{"name": "é<"}]'


def test_loops_may_be_left_and_json_may_be_indented() -> None:
    text = "{% for m in messages %}{{ m | tojson(indent=1) }}{% break %}{% endfor %}"
    two = [{"role": "user", "content": "1"}, {"role": "user", "content": "2"}]
    assert rendered(text, two) == '{\n "role": "user",\n "content": "1"\n}'


def test_the_time_is_that_of_the_request() -> None:
    """A run that goes on in another process must see the same prompt."""
    text = "{{ strftime_now('%Y') }}"
    assert (rendered(text, time_s=86_400 * 400), rendered(text, time_s=86_400 * 800)) == ("1971", "1972")


def test_marks_that_only_training_needs_change_nothing() -> None:
    assert (
        rendered("{% for m in messages %}a{%- generation -%} {{ m.content }} {%- endgeneration %}b{% endfor %}")
        == "ahib"
    )


def test_calls_of_tools_have_objects_for_arguments_whichever_way_they_came() -> None:
    text = "{% for c in messages[0].tool_calls %}{{ c.function.name }}={{ c.function.arguments | tojson }};{% endfor %}"
    calls = [{"function": {"name": "f", "arguments": given}} for given in ({"x": 1}, '{"x": 1}', "[1]", "no json")]
    asked = [{"role": "assistant", "tool_calls": calls}]
    assert rendered(text, asked) == 'f={"x": 1};f={"x": 1};f="[1]";f="no json";'


def test_members_that_are_not_there_are_undefined() -> None:
    text = (
        "{% for m in messages %}{{ 'id' if m.tool_call_id is defined }}{{ m.name or '' }}{{ m.content }};{% endfor %}"
    )
    talk = [{"role": "user", "content": "a"}, {"role": "tool", "content": "b", "tool_call_id": "1", "name": "f"}]
    assert rendered(text, talk) == "a;idfb;"


# What a template must not do.


@pytest.mark.parametrize(
    "text",
    [
        "{{ ().__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append({}) }}",
        "{{ messages[0].update(role='x') }}",
        "{{ raise_exception.__globals__.json }}",
        "{% for i in range(10**9) %}x{% endfor %}",
        "{{ ''|attr('__class__') }}{{ ''.__class__.__base__ }}",
        "{% include '/etc/passwd' %}",
        "{{ strftime_now(1) }}",
        "{{ 1 / 0 }}",
        "{{ messages[7].content }}",
        "{{ messages[0].content.nothing() }}",
    ],
)
def test_a_template_that_breaks_out_or_breaks_down_is_an_error_of_the_request(text: str) -> None:
    with pytest.raises(InvalidParams, match="cannot render the messages"):
        rendered(text)


def test_what_the_template_refuses_is_told_in_its_words() -> None:
    text = "{% if messages[0].role != 'user' %}{{ raise_exception('the user speaks first') }}{% endif %}"
    with pytest.raises(InvalidParams, match="the user speaks first"):
        rendered(text, [{"role": "assistant", "content": "hi"}])


@pytest.mark.parametrize("text", ["{% if %}", "{{ 'a }}", "{% nothing %}"])
def test_a_template_that_cannot_be_parsed_is_refused_before_it_is_needed(text: str) -> None:
    with pytest.raises(CannotTokenize, match=r"t\.jinja has no chat template that can be read"):
        Template(text, "t.jinja", {})


# Where it is found.


@pytest.fixture
def tokenizer(tmp_path: Path) -> str:
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    return str(path)


def settings(tmp_path: Path, name: str = "tokenizer_config.json", **members: Any) -> str:
    path = tmp_path / name
    path.write_text(json.dumps(members))
    return str(path)


def test_a_file_of_its_own_wins_and_its_neighbour_tells_the_special_tokens(tmp_path: Path, tokenizer: str) -> None:
    settings(tmp_path, chat_template="other", bos_token="<s>", eos_token={"content": "</s>", "lstrip": False})
    (tmp_path / "chat.jinja").write_text("mine")
    found = find(str(tmp_path / "chat.jinja"), tokenizer)
    assert found == ("mine", str(tmp_path / "chat.jinja"), {"bos_token": "<s>", "eos_token": "</s>"})


def test_without_one_the_neighbours_is_taken_or_there_is_none(tmp_path: Path, tokenizer: str) -> None:
    assert find(None, tokenizer) is None
    assert load(None, tokenizer, {}) is None
    path = settings(tmp_path, chat_template="theirs")
    assert find(None, tokenizer) == ("theirs", path, {})


def test_of_several_named_templates_it_is_the_default(tmp_path: Path, tokenizer: str) -> None:
    named = [{"name": "tool_use", "template": "a"}, {"name": "default", "template": "b"}]
    path = settings(tmp_path, "config.json", chat_template=named)
    found = find(path, tokenizer)
    assert found is not None
    assert found[:2] == ("b", path)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"chat_template": [{"name": "rag", "template": "x"}]}'])
def test_settings_without_a_template_are_refused_where_they_are_named(
    content: str, tmp_path: Path, tokenizer: str
) -> None:
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(CannotTokenize, match=r"c\.json"):
        find(str(tmp_path / "c.json"), tokenizer)


def test_a_gguf_file_carries_its_own(tmp_path: Path) -> None:
    with_one = str(write(tmp_path / "with.gguf", {**vocabulary(), "tokenizer.chat_template": PLAIN}))
    without = str(write(tmp_path / "without.gguf", vocabulary()))
    assert (has_template(with_one), has_template(without)) == (True, False)
    assert find(None, with_one) == (PLAIN, with_one, {})
    assert find(None, without) is None
    assert find(with_one, without) == (PLAIN, with_one, {})
    with pytest.raises(CannotTokenize, match="has no chat template"):
        find(without, without)


def test_tokens_of_a_file_win_over_those_of_the_tokenizer(tmp_path: Path, tokenizer: str) -> None:
    settings(tmp_path, chat_template="{{ bos_token }}{{ eos_token }}", eos_token="</theirs>")
    found = load(None, tokenizer, {"bos_token": "<s>", "eos_token": "</s>"})
    assert found is not None
    assert found.render([{}], enable_thinking=False, tools=None, time_s=0) == "<s></theirs>"


def test_the_modules_libraries_are_imported_only_when_a_template_is_made() -> None:
    assert not hasattr(template, "jinja2")
