"""TOML text to a frozen, checked configuration.  Pure but for the text it is given.

Every error names the key and the way out; an unknown key names its nearest neighbour.  Relative paths, those inside
``ipc://`` too, become absolute against the file's folder.
"""

from __future__ import annotations

import posixpath
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from rkvisor.protocol.nearest import nearest
from rkvisor.supervisor.config.checks import ConfigError, check
from rkvisor.supervisor.config.sections import (
    Config,
    DiagnosticsSection,
    LimitsSection,
    ListenSection,
    MemorySection,
    ModelSection,
    Section,
    SupervisorSection,
)
from rkvisor.supervisor.config.sizes import size_bytes

S = TypeVar("S", bound=Section)
_SECTIONS = ("supervisor", "listen", "limits", "diagnostics", "memory", "models")


def parse(text: str, file: Path) -> Config:
    """The configuration in *text*.  file: absolute path it was read from, for messages and relative paths.

    Raises:
        ConfigError: broken TOML (with line and column), an unknown key, a wrong value, a contradiction.
    """
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # tomllib's own error is a ValueError; integers of 4301 digits too
        raise ConfigError(f"cannot parse {file}: {error}") from error
    _refuse_unknown(tables, _SECTIONS, file, "a section")
    models = tables.get("models", {})
    if not isinstance(models, dict) or not models:
        raise ConfigError(f"cannot use {file}: it configures no model; add a section like [models.demo]")
    config = Config(
        file=str(file),
        supervisor=_section(SupervisorSection, tables.get("supervisor", {}), "[supervisor]", file),
        listen=_section(ListenSection, tables.get("listen", {}), "[listen]", file),
        limits=_section(LimitsSection, tables.get("limits", {}), "[limits]", file),
        diagnostics=_section(DiagnosticsSection, tables.get("diagnostics", {}), "[diagnostics]", file),
        memory=_section(MemorySection, tables.get("memory", {}), "[memory]", file),
        models={name: _section(ModelSection, table, f"[models.{name}]", file) for name, table in models.items()},
    )
    config = _resolve(config, file.parent)
    check(config)
    return config


def _refuse_unknown(table: Mapping[str, Any], known: tuple[str, ...], file: Path, what: str) -> None:
    for key in table:
        if key not in known:
            near = nearest(key, known)
            hint = f"did you mean {near!r}?" if near else f"known: {', '.join(known)}"
            raise ConfigError(f"cannot use {file}: {key!r} is not {what}; {hint}")


def _section(kind: type[S], table: Any, name: str, file: Path) -> S:
    if not isinstance(table, dict):
        raise ConfigError(f"cannot use {file}: {name} must be a table, not {type(table).__name__}")
    _refuse_unknown(table, kind.__struct_fields__, file, f"a key of {name}")
    for key, value in table.items():
        if any("\0" in one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)):
            raise ConfigError(f"cannot use {file}: {name}: {key} contains U+0000, which no path or name may hold")
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"cannot use {file}: {name}: {_explain(_named(str(error), table), kind)}") from error


def _named(text: str, table: Mapping[str, Any]) -> str:
    """msgspec's message with the key of ``param`` that it is about, which it leaves out."""
    param = table.get("param")
    if "`$.param[...]`" not in text or not isinstance(param, dict):
        return text
    key = next((key for key, value in param.items() if not isinstance(value, (bool, int, float))), "...")
    return text.replace("`$.param[...]`", f"`$.param: {key}`")


def _explain(text: str, kind: type[Section]) -> str:
    """msgspec's message with the key first and what is known last: "workers: expected `int` >= 1"."""
    what, _, where = text.partition(" - at `$.")
    what = what[:1].lower() + what[1:]
    if not where:
        return what
    key = where.rstrip("`")
    known = _choices(kind, key)
    return f"{key}: {what}" + (f"; known: {', '.join(known)}" if known else "")


def _choices(kind: type[Section], key: str) -> list[str]:
    """The words that *key* may be, none where it is no choice of words."""
    hint = get_type_hints(kind).get(key)
    return [word for one in (hint, *get_args(hint)) if get_origin(one) is Literal for word in get_args(one)]


def _absolute(path: str, folder: Path) -> str:
    return str(folder / path)


def endpoint(text: str, folder: Path) -> str:
    """*text* with the path of an ``ipc://`` endpoint made absolute against *folder*, and normal: two ways of writing
    one path would be two sockets, of which the second deafens the first."""
    path = text.removeprefix("ipc://")
    return f"ipc://{posixpath.normpath(folder / path)}" if path and path != text else text


def _size(file: str, model: str, key: str, value: int | str) -> int:
    try:
        return size_bytes(value)
    except ValueError as error:
        raise ConfigError(f"cannot use {file}: [models.{model}]: {key}: {error}") from error


def _resolve(config: Config, folder: Path) -> Config:
    replace = msgspec.structs.replace
    models = {
        name: replace(
            model,
            path=model.path if model.path.startswith("builtin:") else _absolute(model.path, folder),
            library=_absolute(model.library, folder) if model.library and "/" in model.library else model.library,
            autorestart=str(model.autorestart).lower(),
            lora_dir=_absolute(model.lora_dir, folder) if model.lora_dir else None,
            prompt_cache_dir=_absolute(model.prompt_cache_dir, folder) if model.prompt_cache_dir else None,
            tokenizer=_absolute(model.tokenizer, folder) if model.tokenizer else None,
            chat_template=_absolute(model.chat_template, folder) if model.chat_template else None,
            max_rss=_size(config.file, name, "max_rss", model.max_rss),
            memory_limit=_size(config.file, name, "memory_limit", model.memory_limit),
        )
        for name, model in config.models.items()
    }
    section = config.supervisor
    section = replace(
        section, run_dir=_absolute(section.run_dir, folder), state_dir=_absolute(section.state_dir, folder)
    )
    listen = replace(
        config.listen,
        clients=[endpoint(one, folder) for one in config.listen.clients],
        admin=endpoint(config.listen.admin, folder),
        events=[endpoint(one, folder) for one in config.listen.events],
    )
    return replace(config, supervisor=section, listen=listen, models=models)
