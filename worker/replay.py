"""How an answer of an earlier turn is given to a runtime once more, and whether that went as it should.  Pure.

The cache must be left as it was left then: behind the same number of tokens, and with the token that ended the answer
where the runtime had kept that.  Before F5 only we can end an answer before the model's own limit; we do it in the
callback of its last token, which therefore is not forced but generated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rkvisor.protocol.link import Turn

#: RKLLM's call states that bring a token, and the one that brings a failure.
NORMAL, WAITING, ERROR = 0, 1, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How one answer is given again.

    forced: ids to hand to the runtime.  expected: those that it must then call back with, in this order.
    max_new_tokens: for runtimes that take it.  is_cut: end the run in the callback of the last expected token.
    """

    forced: list[int]
    expected: list[int]
    max_new_tokens: int
    is_cut: bool


def plan(turn: Turn, *, can_force: bool, is_native: bool, configured: int) -> Plan:
    """is_native: the runtime takes the limit of each run (F5).  configured: the limit that it has without."""
    ids, count = list(turn.ids), len(turn.ids)
    is_ours = not (is_native or turn.is_natural) and count < configured
    limit = count + 1 if turn.is_natural else count
    if not can_force:
        return Plan(forced=[], expected=ids, max_new_tokens=limit, is_cut=is_ours)
    if is_ours:
        return Plan(forced=ids[:-1], expected=ids[-1:], max_new_tokens=limit, is_cut=True)
    if turn.end_id >= 0 and ids[-1:] != [turn.end_id]:
        ids.append(turn.end_id)
    return Plan(forced=ids, expected=[], max_new_tokens=limit, is_cut=False)


class Echo:
    """Hears a replayed answer.  abort: ends the run.  has_failed: the runtime called back with an error."""

    def __init__(self, expected: Sequence[int], *, is_cut: bool, abort: Callable[[], None]):
        self._expected = expected
        self._is_cut = is_cut
        self._abort = abort
        self._seen = 0
        self._is_different = False
        self.has_failed = False

    @property
    def is_exact(self) -> bool:
        """Whether all that was expected came, and nothing else."""
        return not self._is_different and self._seen == len(self._expected)

    def __call__(self, state: int, token_id: int) -> int:
        """One callback of the runtime; what it returns."""
        if state == ERROR:
            self.has_failed = True
        elif state in (NORMAL, WAITING):
            if self._seen < len(self._expected) and token_id == self._expected[self._seen]:
                self._seen += 1
            else:
                self._is_different = True
            if self._is_different or (self._is_cut and self._seen == len(self._expected)):
                self._abort()
        return 0
