"""Which worker gets a new process although nothing failed, and whether the old one goes first.  Pure.

At most one worker of a model at a time.  Each process has limits of its own, lowered by a random share, so that workers
that were started together are not replaced together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: Beside what a replacement is known to need, so much must be free that nobody else suffers: a share, and bytes.
SPARE_SHARE, SPARE_BYTES = 0.1, 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of a model; 0 and False: none.  jitter: the share of a limit that chance may take off, [0, 0.5].

    min_s: no process is replaced for its memory before it is so old: one that is too large from its load on would be
    replaced for ever.
    """

    max_requests: int = 0
    max_rss_bytes: int = 0
    on_leak: bool = False
    min_s: float = 30.0
    jitter: float = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What a worker's process has behind it.  draw: its share of chance, uniform in [0, 1), the same all its life.

    held_bytes: resident and swapped.  is_able: it serves, has settled, and is not being replaced already.
    """

    requests: int
    held_bytes: int
    age_s: float
    is_leaking: bool
    is_able: bool
    draw: float


def reason(limits: Limits, use: Use) -> str:
    """Why the process should be replaced, in words; "" where it should not."""
    share = 1.0 - limits.jitter * use.draw
    if limits.max_requests and use.requests >= max(1.0, limits.max_requests * share):
        return f"it served {use.requests} requests (max_requests = {limits.max_requests})"
    if use.age_s < limits.min_s:
        return ""
    if limits.max_rss_bytes and use.held_bytes > limits.max_rss_bytes * share:
        held, most = use.held_bytes / 1e6, limits.max_rss_bytes / 1e6
        return f"it holds {held:.1f} MB (max_rss = {most:.1f} MB)"
    if limits.on_leak and use.is_leaking:
        return "it leaks (recycle_on_leak)"
    return ""


def choose(limits: Limits, uses: Sequence[Use], *, is_busy: bool) -> tuple[int, str] | None:
    """Which of a model's workers is next, and why; None where none is.

    is_busy: another worker of the model is being replaced.  Of several the one that holds most is first.
    """
    if is_busy:
        return None
    due = [
        (use.held_bytes, index, why) for index, use in enumerate(uses) if use.is_able and (why := reason(limits, use))
    ]
    if not due:
        return None
    _, index, why = max(due)
    return index, why


def has_room(*, free_bytes: int, need_bytes: int, has_standby: bool, has_failed: bool) -> bool:
    """Whether the replacement may be loaded beside the old process.

    free_bytes: of the machine.  need_bytes: what a process of the model held when it was loaded.  has_standby: one is
    loaded already.  has_failed: the last try did not come up beside the old one.
    """
    if has_standby:
        return True
    return not has_failed and free_bytes >= need_bytes * (1 + SPARE_SHARE) + SPARE_BYTES
