"""One configured model after the other: its file, its library, its parameters, its memory.  Nothing is loaded here."""

from __future__ import annotations

import os
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rkvisor.client.doctor import default_param, installation
from rkvisor.cython_ext.detection import UnknownRuntime, detect
from rkvisor.cython_ext.libraries import LibraryMissing, find_library
from rkvisor.supervisor.config import ModelSection
from rkvisor.supervisor.workers.pool import resolve_builtin
from rkvisor.worker import preflight
from rkvisor.worker.checks import npu, parameters
from rkvisor.worker.checks.finding import Finding, problem
from rkvisor.worker.checks.machine import Machine
from rkvisor.worker.checks.memory import MIB, size

#: No language model is smaller; a .rkllm file that is was cut off.
SMALLEST_BYTES = 8 * MIB


def check(section: ModelSection, machine: Machine) -> list[Finding]:
    """Findings about one model."""
    path = resolve_builtin(section.path)
    found = [*file(section.runtime, path, machine)]
    is_readable = all(one.level != "problem" for one in found)
    if section.runtime == "llama":
        found.append(installation.cpu_runtime(is_needed=section.library is None))
    found += library(section, path if is_readable else None, machine)
    if is_readable:
        found += memory(section, path, machine)
    return [*found, *companions(section), *configured(section)]


def file(runtime: str, path: str, machine: Machine) -> Iterator[Finding]:
    """The model's file: there, readable, of the right kind, whole as far as that can be told, for this chip."""
    try:
        text = preflight.file_problem(runtime, path)
        file_bytes = Path(path).stat().st_size
    except OSError as error:
        yield problem("file", f"cannot read {path}: {error.strerror}", "look at 'path', and at the rights of the file")
        return
    if text:
        yield problem("file", text, "", "RKLLM_MODEL_NOT_FOUND")
        return
    short = preflight.missing_bytes(runtime, path)
    if short:
        text = f"{path} was cut off: {size(short)} of its tensors are missing"
        yield problem("file", text, "copy it again", "RKLLM_MODEL_NOT_FOUND")
        return
    if runtime == "rknpu" and file_bytes < SMALLEST_BYTES:
        text = f"{path} has {size(file_bytes)}, less than any model: it may have been cut off"
        yield Finding(about="file", level="warning", text=text, remedy="compare its size with the original's")
    else:
        yield Finding(about="file", level="ok", text=f"{path}, {size(file_bytes)}")
    mismatch = npu.platform_mismatch(path, machine.npu) if runtime == "rknpu" else None
    if mismatch is not None:
        yield mismatch


def library(section: ModelSection, path: str | None, machine: Machine) -> Iterator[Finding]:
    """The library's family and version, and whether the parameters suit it.  path: of the model, None if unreadable."""
    try:
        found = find_library(section.runtime, section.library)
        detected = detect(found, forced=section.abi)
    except (LibraryMissing, UnknownRuntime) as error:
        text, _, remedy = error.reason.partition("; ")
        what = f"{error.path}: {text}" if isinstance(error, UnknownRuntime) else text
        yield problem("library", what, remedy, "RKLLM_DEVICE_ERROR")
        yield from parameter_findings(section, path, None, machine)
        return
    text = f"{found}, version {detected.version or 'unknown'}, family {detected.family}"
    if detected.forced:
        remedy = "the wrong family crashes the worker; leave abi out where the version is known"
        yield Finding(about="library", level="warning", text=f"{text}, forced by abi", remedy=remedy)
    else:
        yield Finding(about="library", level="ok", text=text)
    defaults = default_param.ask(found, detected.family)
    if isinstance(defaults, str):
        yield problem("library", defaults, "", "RKLLM_DEVICE_ERROR")
        return
    yield from parameter_findings(section, path, defaults, machine)


def parameter_findings(
    section: ModelSection, path: str | None, defaults: Mapping[str, Any] | None, machine: Machine
) -> Iterator[Finding]:
    """``param`` over the library's *defaults*; None where there is no library to ask."""
    unknown = [name for name in section.param if defaults is not None and name not in defaults]
    for name in unknown:
        text = f"{name} is no number among RKLLMParam's members in this family"
        yield problem("param", text, f"known: {', '.join(sorted(defaults or ()))}")
    limit = preflight.context_limit(section.runtime, path) if path is not None else None
    whole = {**(defaults or {}), **section.param}
    found = parameters.check(whole, runtime=section.runtime, context_limit=limit, cores=machine.cores)
    if not found and not unknown and defaults is not None:
        text = f"context {whole.get('max_context_len')}" + (f" of {limit}" if limit else "")
        found = [Finding(about="param", level="ok", text=f"{text}, {whole.get('max_new_tokens')} new tokens at most")]
    yield from found


def memory(section: ModelSection, path: str, machine: Machine) -> Iterator[Finding]:
    """Whether one process fits, and all of them."""
    try:
        one = preflight.memory_finding(section.runtime, path, machine)
    except (OSError, tomllib.TOMLDecodeError):
        return  # its file was reported
    yield one
    processes = section.workers + section.standby
    if one.level != "ok" or section.runtime == "llama" or processes == 1 or machine.available_bytes is None:
        return
    needed = processes * preflight.needed_bytes(section.runtime, path)
    if needed > machine.available_bytes:
        text = f"{processes} processes take {size(needed)} at least, of {size(machine.available_bytes)} available"
        yield Finding(about="memory", level="warning", text=text, remedy="lower workers or standby")


def companions(section: ModelSection) -> Iterator[Finding]:
    """The files and folders beside the model."""
    for key in ("tokenizer", "chat_template"):
        name = getattr(section, key, None)
        if name and not os.access(name, os.R_OK):
            yield problem(key, f"cannot read {name}", f"look at '{key}' in the model's section")
    wanted = [name for name, key in (("tokenizers", "tokenizer"), ("jinja2", "chat_template")) if getattr(section, key)]
    for name in wanted:
        if installation.installed(name) is None:
            yield problem(name, f"the library {name} is not installed", "pip install 'rkvisor[tokenizer]'")
    for key, right in (("lora_dir", os.R_OK), ("prompt_cache_dir", os.R_OK | os.W_OK)):
        folder = getattr(section, key)
        if folder is not None and not (Path(folder).is_dir() and os.access(folder, right | os.X_OK)):
            what = "written" if right & os.W_OK else "read"
            yield problem(key, f"{folder} is no folder that can be {what}", "make it, and give it to rkvisord's user")


def configured(section: ModelSection) -> Iterator[Finding]:
    """What is not wrong but may not be meant."""
    if section.runtime == "rknpu" and not section.embedding_size:
        text = "embed and multimodal inputs are refused: the width of the embeddings is not told by a .rkllm file"
        yield Finding(about="tensors", level="note", text=text, remedy="set embedding_size if you send them")
    if not section.preflight:
        text = "the worker loads without looking first: preflight = false"
        yield Finding(about="preflight", level="note", text=text)


def shared_domains(models: Mapping[str, ModelSection]) -> list[Finding]:
    """Models of the NPU that share a domain of memory: each but the first has a window of 4 GB (behaviour §4)."""
    domains = Counter(int(one.param.get("base_domain_id", 0)) for one in models.values() if one.runtime == "rknpu")
    return [
        Finding(
            about="domains",
            level="warning",
            text=f"{number} models share base_domain_id = {domain}, whose window is 4 GB",
            remedy="give each a domain of its own, 1 to 15",
        )
        for domain, number in sorted(domains.items())
        if number > 1
    ]
