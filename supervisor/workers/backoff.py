"""How long to wait before a restart (design §5): exponential, jittered, capped.  Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """The delay before the k-th retry is ``initial_s · factor^(k−1)``, plus jitter, at most ``max_s``.

    initial_s, max_s: seconds, > 0.  factor: ≥ 1.  jitter: the most that chance adds, as a share, [0, 1].
    """

    initial_s: float = 0.1
    factor: float = 2.0
    max_s: float = 5.0
    jitter: float = 0.1


def delay_s(policy: Backoff, failures: int, draw: float) -> float:
    """Seconds to wait after *failures* unsettled deaths in a row, in [0, policy.max_s].

    failures: 1 for the first.  draw: uniform in [0, 1).  Jitter is applied before the cap, so the cap always holds
    (requirement S2.25).  A huge count of failures gives the cap, not an overflow.
    """
    if failures < 1:
        return 0.0
    exponent = min(failures - 1, 1000)
    try:
        base = policy.initial_s * policy.factor**exponent
    except OverflowError:
        return policy.max_s
    return min(base * (1.0 + policy.jitter * draw), policy.max_s)
