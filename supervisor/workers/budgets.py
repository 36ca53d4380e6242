"""How long things may take before they count as hung (design §5).  Pure but for the size of a file.

Any fixed watchdog is wrong: loading scales with the size of the file, the first token with the length of the prompt.
"""

from __future__ import annotations

from pathlib import Path

from rkvisor.supervisor.config import ModelSection

#: The slowest load that was reported is 90 s (facts of the runtime, §5); 45 s per GB allows for it.
LOAD_BASE_S = 20.0
LOAD_S_PER_GB = 45.0
FIRST_TOKEN_BASE_S = 10.0
#: Prefill speed that is assumed until it was measured, in tokens per second.
PREFILL_RATE = 50.0


def load_budget_s(file_bytes: int) -> float:
    """Seconds that a model file of *file_bytes* may take to load."""
    return LOAD_BASE_S + LOAD_S_PER_GB * file_bytes / 1e9


def first_token_budget_s(prompt_tokens: int, tokens_per_s: float = PREFILL_RATE) -> float:
    """Seconds until the first token of a prompt of *prompt_tokens*; prefill is superlinear in its length."""
    return FIRST_TOKEN_BASE_S + 2 * prompt_tokens / tokens_per_s * (1 + prompt_tokens / 4096)


def load_timeout_s(section: ModelSection) -> float:
    """The budget of *section*: what it says, or by the size of its file (none there: the base)."""
    if section.load_timeout_s is not None:
        return section.load_timeout_s
    try:
        return load_budget_s(Path(section.path).stat().st_size)
    except OSError:
        return LOAD_BASE_S
