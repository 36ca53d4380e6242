"""Why a conversation cannot go on, and what to do about it: the texts of SESSION_LOST.  Pure."""

from __future__ import annotations

from typing import Any

from rkvisor.protocol.errors import SessionLost

_AGAIN = "open another with session.open"
_FROM_HISTORY = "session.history still gives its turns; open another session and begin it with what matters of them"

#: reason → (why, what to do).  ``data.reason`` of the error.
REASONS: dict[str, tuple[str, str]] = {
    "unknown": ("no session of this principal has that id", _AGAIN),
    "restarted": ("rkvisord was started anew since, and sessions live in its memory", _AGAIN),
    "closed": ("it was closed", _AGAIN),
    "expired": ("it was not used for longer than its idle_timeout_s", _AGAIN),
    "evicted": ('no worker has it in its KV cache any more, and its on_lost is "lost"', _FROM_HISTORY),
    "sampled": (
        "no worker has it in its KV cache any more, and the model's runtime can restore greedy answers only",
        f"{_FROM_HISTORY}, or use temperature 0",
    ),
    "diverged": ("restored on another worker, it would not be the same conversation", _FROM_HISTORY),
    "context": ("it leaves no room in the model's context", _FROM_HISTORY),
}


def lost(session: str, reason: str, **data: Any) -> SessionLost:
    """The error that tells of *reason*, a key of ``REASONS``.  session: its id, as it was asked for."""
    why, way_out = REASONS[reason]
    shown = session if len(session) <= 64 else session[:64] + "…"
    text = f"cannot use session {shown!r}: {why}; {way_out}"
    return SessionLost(text, reason=reason, session=session, **data)
