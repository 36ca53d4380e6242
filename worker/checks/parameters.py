"""Parameters of init and of a run that make a runtime fail, or die, seen before it is asked (behaviour §2).  Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rkvisor.protocol.limits import MAX_CONTEXT
from rkvisor.worker.checks.finding import Finding, problem

#: The vendor's rules (behaviour §2): the context's step, items of a batch and how many are advisable.
CONTEXT_STEP, MAX_BATCH, ADVISED_BATCH = 32, 100, 8
#: IOMMU domains of the NPU's driver, the last of them; 0 is the default one, RKNN's (behaviour §4).
LAST_DOMAIN = 15


def check(
    param: Mapping[str, Any], *, runtime: str, context_limit: int | None = None, cores: int | None = None
) -> list[Finding]:
    """Findings about the parameters of init, the defaults of the runtime filled in; none where all is well.

    context_limit: of the model, None where its file does not tell.  cores: of this machine, None if it does not count.
    """
    return [
        *_context(param, context_limit),
        *_cpus(param, runtime, cores),
        *_batch(param, runtime),
        *_others(param, runtime),
    ]


def _context(param: Mapping[str, Any], limit: int | None) -> Iterator[Finding]:
    context = int(param.get("max_context_len", 512))
    what = f"max_context_len = {context}"
    if context <= 0 or context % CONTEXT_STEP:
        below = max(CONTEXT_STEP, min(context, MAX_CONTEXT) // CONTEXT_STEP * CONTEXT_STEP)
        text = f"{what} is no positive multiple of {CONTEXT_STEP}"
        yield problem("context", text, f"set max_context_len = {below} in param")
    elif context > MAX_CONTEXT:
        text = f"{what} is more than RKLLM's limit of {MAX_CONTEXT}"
        yield problem("context", text, f"set max_context_len = {limit or MAX_CONTEXT} or less in param")
    elif limit is not None and context > limit:
        text = f"{what} is more than the model's limit of {limit}"
        yield problem("context", text, f"set max_context_len = {limit} or less in param")
    n_keep = int(param.get("n_keep", 0))
    if n_keep >= context > 0:
        text = f"n_keep = {n_keep} is not less than max_context_len = {context}"
        yield problem("n_keep", text, f"set n_keep to {context - 1} or less in param, or raise max_context_len")


def _cpus(param: Mapping[str, Any], runtime: str, cores: int | None) -> Iterator[Finding]:
    if "enabled_cpus_num" not in param and "enabled_cpus_mask" not in param:
        return  # family F1
    mask, count = int(param.get("enabled_cpus_mask", 0)), int(param.get("enabled_cpus_num", 0))
    if mask < 0 or count < 0:
        yield problem("CPUs", f"enabled_cpus_num = {count} and enabled_cpus_mask = {mask} must not be negative")
    elif mask and count and mask.bit_count() != count:
        text = f"enabled_cpus_mask = {mask:#x} names {mask.bit_count()} CPUs, enabled_cpus_num = {count}"
        yield problem("CPUs", text, f"set enabled_cpus_num = {mask.bit_count()} in param, or another mask")
    elif runtime == "rknpu" and cores is not None and mask >> cores:
        text = f"enabled_cpus_mask = {mask:#x} names CPU {mask.bit_length() - 1}; this machine has 0 to {cores - 1}"
        fitting = (1 << min(cores, 4)) - 1
        remedy = f"set enabled_cpus_mask = {fitting} and enabled_cpus_num = {fitting.bit_count()} in param"
        yield Finding(about="CPUs", level="warning", text=text, remedy=remedy)


def _batch(param: Mapping[str, Any], runtime: str) -> Iterator[Finding]:
    n_batch = int(param.get("n_batch", 1))
    if not 0 <= n_batch <= MAX_BATCH:
        text = f"n_batch = {n_batch} is not from 1 to {MAX_BATCH}"
        yield problem("n_batch", text, f"set n_batch to {ADVISED_BATCH} or less in param")
    elif n_batch > 1 and runtime == "llama":
        text = f"n_batch = {n_batch}: the CPU runtime runs one prompt at a time"
        yield problem("n_batch", text, "leave n_batch out, and raise workers instead")
    elif n_batch > ADVISED_BATCH:
        text = f"n_batch = {n_batch} is more than the {ADVISED_BATCH} that Rockchip advises"
        yield Finding(about="n_batch", level="warning", text=text, remedy="expect it to be slow, or lower it")


def _others(param: Mapping[str, Any], runtime: str) -> Iterator[Finding]:
    if param.get("is_async"):
        text = "is_async = true: a worker runs one request at a time, to its end"
        yield problem("is_async", text, "leave is_async out; a request never blocks rkvisord or another client")
    domain = int(param.get("base_domain_id", 0))
    if not 0 <= domain <= LAST_DOMAIN:
        text = f"base_domain_id = {domain} is not from 0 to {LAST_DOMAIN}"
        yield problem("domain", text, f"set base_domain_id to a domain of its own, 1 to {LAST_DOMAIN}, in param")
    elif domain == 0 and runtime == "rknpu":
        text = "base_domain_id = 0 is the domain that RKNN's programs use, with 4 GB for all"
        remedy = f"set base_domain_id to a domain of its own, 1 to {LAST_DOMAIN}, in param"
        yield Finding(about="domain", level="warning", text=text, remedy=remedy)


def fatal_combination(family: str, *, mode: str, kind: str, keeps_history: bool) -> str | None:
    """Why a run would end the process: RKLLM 1.2.3 calls abort() at this combination.  None for every other."""
    if family == "F4" and mode == "logits" and kind == "tokens" and keeps_history:
        return "logits of token input with history: RKLLM 1.2.3 aborts the process; send a prompt, or no session"
    return None
