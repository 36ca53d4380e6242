"""What becomes of a request whose worker died (design §6).  Pure.

nothing streamed          → the same request again
tokens, forced ids        → go on behind them: exact when greedy, continued when sampled
tokens, greedy, no force  → run again muted, ids compared
tokens, sampled, no force → go on with token input, prompt and tokens so far; where the prompt cannot be turned into
                            tokens: WORKER_CRASHED with the text so far
retry: "never"            → WORKER_CRASHED at once
edited while paused       → WORKER_CRASHED: no process can be brought to where it was
two charged deaths        → POISON_REQUEST
too many attempts         → WORKER_CRASHED
"""

from __future__ import annotations

from dataclasses import dataclass

#: Charged deaths that make a request poison (design §6, 3).
POISON_DEATHS = 2
#: Dispatches of one request, whatever the cause of the deaths: no request may wander for ever.
MAX_ATTEMPTS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """The request that a dead process ran.  charged: deaths charged to it, this one included.
    is_tokens: whether its input is token ids, or can be turned into them.
    is_edited: whether its KV cache was changed, or text put into it, while it was paused.
    """

    streamed: int
    is_greedy: bool
    may_retry: bool
    can_force: bool
    is_tokens: bool
    charged: int
    attempts: int
    is_edited: bool = False


@dataclass(frozen=True, slots=True)
class Again:
    """Dispatch again.  resume: "" from the start, "forced", "muted" or "tokens" behind what was streamed."""

    resume: str

    def quality(self, is_greedy: bool) -> str | None:
        """What the result says of it: None (nothing was streamed), "exact" or "continued"."""
        if not self.resume:
            return None
        return "exact" if is_greedy else "continued"


@dataclass(frozen=True, slots=True)
class GiveUp:
    """End with the catalogue error *name*, because of *reason*."""

    name: str
    reason: str


def after_death(suspect: Suspect) -> Again | GiveUp:
    """Decide, by the rules at the head of this module."""
    if suspect.charged >= POISON_DEATHS:
        return GiveUp("POISON_REQUEST", f"{suspect.charged} processes died while they ran it")
    if not suspect.may_retry:
        return GiveUp("WORKER_CRASHED", 'the process that ran it died, and it says retry "never"')
    if suspect.is_edited:
        return GiveUp("WORKER_CRASHED", "the process that ran it died, and it was edited while it was paused")
    if suspect.attempts >= MAX_ATTEMPTS:
        return GiveUp("WORKER_CRASHED", f"it was tried {suspect.attempts} times")
    if not suspect.streamed:
        return Again("")
    if suspect.can_force:
        return Again("forced")
    if suspect.is_greedy:
        return Again("muted")
    if suspect.is_tokens:
        return Again("tokens")
    return GiveUp("WORKER_CRASHED", "the process that ran it died in mid-stream, and a sampled run cannot be repeated")
