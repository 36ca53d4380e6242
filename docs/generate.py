"""Writes the tables of the documentation from the code, so that neither can drift from the other.

A page marks a table with ``<!-- generated: NAME -->`` … ``<!-- end -->``; this program fills what is between.  It takes
names, types and defaults from the code, and the meaning of each from ``docs/texts/*.toml``; a name without a text, or a
text without a name, is an error.

    python -P docs/generate.py           writes the pages
    python -P docs/generate.py --check   names the pages that are out of date; exit status 1 if there are any
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import inspect

from rkvisor.client import options
from rkvisor.client.command import SUBCOMMANDS
from rkvisor.protocol import limits, link
from rkvisor.protocol.calls import CALLS
from rkvisor.protocol.diagnostics import DIAGNOSTICS
from rkvisor.protocol.errors import CATALOGUE, RKLLM_CODES
from rkvisor.protocol.link import Kind
from rkvisor.protocol.methods import METHODS, Method
from rkvisor.protocol.run import Perf, RunParams, RunResult
from rkvisor.supervisor import config
from rkvisor.supervisor.ctl import help as ctl_help

sys.path.insert(0, str(Path(__file__).resolve().parent))  # "-P" leaves it out
import families
from wording import TEXTS, CannotGenerate, default_text, fields, own_text, table, texts, type_text

ROOT = Path(__file__).resolve().parents[1]
_BLOCK = re.compile(r"(<!-- generated: ([a-z_]+) -->\n).*?(<!-- end -->)", re.DOTALL)
#: Methods that the design names and that may not be served yet (docs/design.md).
DESIGNED = [
    "rkllm.load_lora",
    "rkllm.load_prompt_cache",
    "rkllm.release_prompt_cache",
    "rkllm.clear_kv_cache",
    "rkllm.get_kv_cache_size",
    "rkllm.set_chat_template",
    "rkllm.set_function_tools",
    "rkllm.set_cross_attn_params",
    "model.info",
    "model.load",
    "model.unload",
    "memory.report",
    "system.health",
    "system.metrics",
    "system.crashes",
]
DESIGNED_GROUPS = ("batch", "diagnostics")


def pages() -> Iterator[Path]:
    """Every page that may hold a generated table."""
    yield from (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "protocol" / "README.md")
    yield from sorted((ROOT / "docs").rglob("*.md"))


# The tables.


def configuration(kind: type, name: str) -> str:
    """One section of the configuration."""
    known = {field.name: field for field in fields(kind)}
    meaning = texts(f"configuration.{name}", {key: own_text(field.type) for key, field in known.items()})
    rows = []
    for key, field in known.items():
        note = "" if has_effect(key) else " *Accepted, without effect yet.*"
        rows.append((f"`{key}`", type_text(field.type), default_text(field), meaning[key] + note))
    return table(("key", "type", "default", "meaning"), rows)


def has_effect(key: str) -> bool:
    """Whether the supervisor looks at a key, beyond reading it (and, for endpoints, making their folders)."""
    reading = set((ROOT / "supervisor" / "config").glob("*.py"))
    skipped = reading if key in ("run_dir", "state_dir") else reading | {ROOT / "supervisor" / "directories.py"}
    sources = (path for path in (ROOT / "supervisor").rglob("*.py") if path not in skipped)
    return any(re.search(rf"\.{key}\b", source.read_text(encoding="utf-8")) for source in sources)


def members(kind: type, name: str) -> str:
    """Params or a result of a method."""
    known = {field.name: field for field in fields(kind)}
    meaning = texts(f"methods.{name}", {key: own_text(field.type) for key, field in known.items()})
    rows = [(f"`{key}`", type_text(one.type), default_text(one), meaning[key]) for key, one in known.items()]
    return table(("member", "type", "default", "meaning"), rows)


def methods(*, is_admin: bool, known: dict[str, Method] = METHODS) -> str:
    """The method table."""
    rows = []
    for name, method in known.items():
        if method.admin is is_admin:
            params = ", ".join(f"`{field}`" for field in method.params.__struct_fields__) or "–"
            params = "see below" if method.params is RunParams else params
            rows.append((f"`{name}`", method.summary, params, result_text(method.result)))
    return table(("method", "what", "params", "result"), rows)


def calls() -> str:
    """The calls that configure or ask a model."""
    return described(CALLS)


def sessions() -> str:
    """``session.*``."""
    mine = {name: method.params for name, method in METHODS.items() if name.startswith("session.")}
    return described({name: kind for name, kind in mine.items() if kind.__struct_fields__})


def described(kinds: Mapping[str, type]) -> str:
    """What types of params say of themselves, and their members."""
    parts = []
    for name, kind in kinds.items():
        rows = [(f"`{one.name}`", type_text(one.type), default_text(one)) for one in fields(kind)]
        parts.append(f"**{name}**: {inspect_doc(kind)}\n\n{table(('member', 'type', 'default'), rows)}")
    return "\n".join(parts)


def inspect_doc(kind: type) -> str:
    """A type's docstring as one paragraph."""
    return " ".join((kind.__doc__ or "").split())


def result_text(kind: Any) -> str:
    """A method's result in a cell."""
    described = inspect.type_info(kind)
    if isinstance(described, inspect.StructType):
        return "{" + ", ".join(f"`{field.name}`" for field in described.fields) + "}"
    return "–" if kind is None else type_text(described)


def not_served() -> str:
    """What the design names and METHODS lacks."""
    groups = [f"`{group}.*`" for group in DESIGNED_GROUPS if not any(name.startswith(f"{group}.") for name in METHODS)]
    missing = [f"`{name}`" for name in DESIGNED if name not in METHODS] + groups
    return f"Designed, and not served yet: {', '.join(missing) or 'nothing'}.\n"


def errors() -> str:
    """The catalogue."""
    meaning = texts("errors.errors", dict.fromkeys(CATALOGUE, ""))
    rows = [
        (str(kind.code), f"`{name}`", kind.severity, "yes" if kind.is_retryable else "no", meaning[name])
        for name, kind in sorted(CATALOGUE.items(), key=_by_code)
    ]
    return table(("code", "name", "severity", "retryable", "when"), rows)


def _by_code(item: tuple[str, Any]) -> tuple[bool, int]:
    code = item[1].code
    return code > -32100, -code


def rkllm_codes() -> str:
    """RKLLM's own failures."""
    return table(("code", "name", "message"), [(str(c), f"`{n}`", text) for n, (c, text) in RKLLM_CODES.items()])


def wire_limits() -> str:
    """``protocol/limits.py``: each constant with the comment above it."""
    source = Path(limits.__file__).read_text(encoding="utf-8")
    found = re.findall(r"((?:#: .*\n)+)([A-Z_]+) = ", source)
    told = {name for _, name in found}
    public = {name for name in vars(limits) if name.isupper()}
    if told != public:
        raise CannotGenerate(
            f"cannot describe {', '.join(public ^ told)} of protocol/limits.py: it needs a '#:' comment"
        )
    rows = [(f"`{name}`", f"{getattr(limits, name)}", re.sub(r"\s*#: ", " ", text).strip()) for text, name in found]
    return table(("name", "value", "what it bounds"), rows)


def kinds() -> str:
    """The messages between rkvisord and a process."""
    known = texts("link.kinds", {kind.name: "" for kind in Kind})
    rows = [
        (str(kind.value), f"`{kind.name}`", "to it" if kind % 2 == 0 else "from it", known[kind.name]) for kind in Kind
    ]
    return table(("kind", "name", "direction", "frames behind the header, and when"), rows)


def header() -> str:
    """The header's members, in order."""
    known = tomllib.loads((TEXTS / "link.toml").read_text(encoding="utf-8"))["header"]
    codes = link.HEADER.format.lstrip("<")
    if len(codes) != len(known):
        raise CannotGenerate(f"cannot describe a header of {len(codes)} members with {len(known)} texts")
    sizes = {"B": (1, "u8"), "H": (2, "u16"), "I": (4, "u32"), "Q": (8, "u64"), "i": (4, "i32")}
    rows, at = [], 0
    for code, (name, text) in zip(codes, known.items(), strict=True):
        size, kind = sizes[code]
        rows.append((str(at), kind, f"`{name}`", text))
        at += size
    if at != link.HEADER.size:
        raise CannotGenerate(f"cannot describe a header of {link.HEADER.size} bytes: its members have {at}")
    return table(("offset", "type", "member", "meaning"), rows)


def bodies() -> str:
    """The msgpack bodies: every member of every one."""
    parts = []
    to_it = (link.Load, link.Run, link.Call, link.Pause, link.Resume)
    for kind in (link.Hello, link.Ready, link.LoadFailed, link.Prompt, *to_it):
        rows = [(f"`{one.name}`", type_text(one.type), default_text(one)) for one in fields(kind)]
        parts.append(f"`{kind.__name__}`:\n\n" + table(("member", "type", "default"), rows))
    return "\n".join(parts)


def command_options(known: argparse.ArgumentParser) -> str:
    """The options of a program, whatever the width of the terminal and the version of argparse."""
    rows = []
    for action in known._actions:
        if not isinstance(action, argparse._SubParsersAction) and action.help != argparse.SUPPRESS:
            names = ", ".join(f"`{name}`" for name in action.option_strings) or f"`{action.metavar or action.dest}`"
            choices = list(action.choices) if action.choices else []
            takes = ", ".join(f"`{one}`" for one in choices) or (f"`{action.metavar}`" if action.metavar else "–")
            takes = "–" if not action.option_strings else takes
            rows.append((names, takes, (action.help or "").replace("%(default)s", str(action.default))))
    return table(("option", "takes", "meaning"), rows)


def subcommand(name: str) -> str:
    """The options of ``rkvisor NAME``."""
    one = argparse.ArgumentParser(prog=f"rkvisor {name}")
    importlib.import_module(f"rkvisor.client.command_{name}").add_arguments(one)
    options.add_server(one)
    return command_options(one)


def verbs() -> str:
    """rkvisorctl's verbs."""
    rows = []
    for name, topic in sorted(ctl_help.TOPICS.items()):
        for line in topic.splitlines():
            usage, _, text = line.partition("\t")
            if text:
                rows.append((f"`{usage}`", text.strip()))
            elif rows and name:
                rows[-1] = (rows[-1][0], f"{rows[-1][1]}. {line}")
    return table(("verb", "what"), rows)


def bench_results() -> str:
    """Everything in bench/results, measurement by measurement."""
    parts = []
    for path in sorted((ROOT / "bench" / "results").glob("*.json")):
        one = json.loads(path.read_text(encoding="utf-8"))
        machine = one["machine"]
        where = f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, Python {machine['python']}"
        quick = ", with fewer values than a full run" if one["quick"] else ""
        lines = [f"### {one['title']}\n\n{one['how']}\n\nMeasured on {where}, at commit {one['commit']}{quick}.\n\n"]
        for goal in one["goals"]:
            verdict = "Met" if goal["met"] else "**Missed**"
            lines.append(
                f"- {verdict}: {goal['what']}, {goal['value']:g} {goal['unit']}; the goal is {goal['limit_text']}\n"
            )
        rows = [_series_row(series) for series in one["series"]]
        lines += ["\n" if one["goals"] else "", table(("what", "values", "p50", "p99", "unit"), rows)]
        lines += ["\n"] + [f"- {name}: {value:g}\n" for name, value in one["ratios"].items()] if one["ratios"] else []
        lines += ["\n"] + [f"- Remark: {remark}\n" for remark in one["remarks"]] if one["remarks"] else []
        parts.append("".join(lines))
    return "\n".join(parts) or "There are none yet.\n"


def _series_row(series: dict[str, Any]) -> tuple[str, ...]:
    label = f"{series['who']}: {series['what']}" if series["what"] else series["who"]
    return label, str(series["n"]), f"{series['p50']:.4g}", f"{series['p99']:.4g}", series["unit"]


BLOCKS: dict[str, Callable[[], str]] = {
    "supervisor_section": lambda: configuration(config.SupervisorSection, "supervisor"),
    "listen_section": lambda: configuration(config.ListenSection, "listen"),
    "limits_section": lambda: configuration(config.LimitsSection, "limits"),
    "diagnostics_section": lambda: configuration(config.DiagnosticsSection, "diagnostics"),
    "memory_section": lambda: configuration(config.MemorySection, "memory"),
    "model_section": lambda: configuration(config.ModelSection, "model"),
    "methods": lambda: methods(is_admin=False),
    "admin_methods": lambda: methods(is_admin=True),
    "diagnostic_methods": lambda: methods(is_admin=False, known=DIAGNOSTICS),
    "not_served": not_served,
    "calls": calls,
    "sessions": sessions,
    "run_params": lambda: members(RunParams, "run"),
    "run_result": lambda: members(RunResult, "result"),
    "perf": lambda: members(Perf, "perf"),
    "errors": errors,
    "rkllm_codes": rkllm_codes,
    "limits": wire_limits,
    "kinds": kinds,
    "header": header,
    "bodies": bodies,
    "verbs": verbs,
    "bench_results": bench_results,
    **families.BLOCKS,
    **{f"rkvisor_{name}": partial(subcommand, name) for name in SUBCOMMANDS},
}


def render(text: str) -> str:
    """A page with its generated tables as the code has them now.  Raises CannotGenerate."""

    def fill(match: re.Match[str]) -> str:
        if match[2] not in BLOCKS:
            raise CannotGenerate(f"cannot generate {match[2]!r}: known are {', '.join(sorted(BLOCKS))}")
        return match[1] + BLOCKS[match[2]]() + match[3]

    return _BLOCK.sub(fill, text)


def main() -> int:
    """Write the pages, or check them."""
    is_check = sys.argv[1:] == ["--check"]
    stale = []
    for page in pages():
        if not page.exists():
            continue
        before = page.read_text(encoding="utf-8")
        after = render(before)
        if after != before:
            stale.append(page)
            if not is_check:
                page.write_text(after, encoding="utf-8")
    for page in stale:
        print(f"{'out of date' if is_check else 'written'}: {page.relative_to(ROOT)}")
    return 1 if is_check and stale else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CannotGenerate as error:
        sys.exit(f"docs/generate.py: {error}")
