"""Which conversation the KV cache of the loaded model holds, and how one is brought back into it (design §6).

A process has one KV cache, so it holds one session at most, or none.  The supervisor holds the history; here is only
remembered what the cache was last left with, and a history that is not that is replayed into a cleared cache:

- A runtime with ``rkvisor_force_tokens`` is given the ids of each answer, as they were generated.
- Any other one generates greedy answers again, unheard, and every id is compared.  A sampled answer cannot be had a
  second time: the session is lost.

How, is decided in ``replay.py``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from rkvisor.protocol.errors import RkllmFailure, SessionLost
from rkvisor.protocol.link import Session, Turn, decode_turn
from rkvisor.protocol.params import decode_params
from rkvisor.protocol.run import RunParams, is_greedy
from rkvisor.worker.replay import Echo, plan

if TYPE_CHECKING:
    from rkvisor.worker.model import Model


class Ear(Protocol):
    """Hears the runtime's callbacks.  muted: takes (state, token id) instead of the socket thread while it is set."""

    muted: Callable[[int, int], int] | None

    def is_aborted(self) -> bool: ...

    def tick(self) -> None: ...


class Conversation:
    """The conversation in the KV cache of *model*.

    is_restored: whether the last turn's history was replayed.  size: tokens in the cache behind it, 0: not known.
    """

    def __init__(self, model: Model):
        self._model = model
        self._held: tuple[str, int, list[int]] | None = None
        self.is_restored = False
        self.size = 0

    def leave(self) -> None:
        """Something else than a session uses the cache, or changes what it would be read by."""
        self._held = None

    def commit(self, session: str, job: int, ids: Sequence[int]) -> None:
        """The turn is over, and the cache holds it."""
        self._held = (session, job, list(ids))

    def enter(self, session: Session, ear: Ear) -> bool:
        """Let the cache hold the turns of *session*, and nothing else.  Returns whether it does: not after an abort.

        Raises SessionLost where that cannot be, RkllmFailure where the runtime fails.
        """
        held, self._held, self.is_restored, self.size = self._held, None, False, 0
        if session.turns:
            last = decode_turn(session.turns[-1])
            if held == (session.id, last.job, last.ids):
                return True
            if not session.may_restore:
                raise SessionLost("cannot go on: no worker has the conversation in its KV cache", reason="evicted")
        turns = [decode_turn(raw) for raw in session.turns]
        said = [dressed(decode_params(RunParams, turn.params), session) for turn in turns]
        self._check_greedy(said)
        self._model.start_over()
        for number, (turn, params) in enumerate(zip(turns, said, strict=True), 1):
            if ear.is_aborted():
                return False
            self._replay(turn, params, number, ear)
            ear.tick()
        self.is_restored = bool(session.turns)
        return not ear.is_aborted()

    def _check_greedy(self, said: Sequence[RunParams]) -> None:
        """Raise SessionLost where one of the turns was sampled, and the runtime cannot be given its tokens."""
        model = self._model
        for number, params in enumerate(said, 1):
            if not model.runtime.can_force_tokens and not is_greedy(params, model.param):
                text = f"turn {number} was sampled, and this runtime cannot be given its tokens"
                raise SessionLost(f"cannot restore the conversation: {text}", reason="sampled", turn=number)

    def _replay(self, turn: Turn, params: RunParams, number: int, ear: Ear) -> None:
        from rkvisor.worker.inputs import build

        model = self._model
        can_force = model.runtime.can_force_tokens
        how = plan(turn, can_force=can_force, is_native=model.can_sample_per_run, configured=model.configured_limit)
        echo = Echo(how.expected, is_cut=how.is_cut, abort=model.runtime.abort)
        infer = dataclasses.replace(model.infer(params, how.max_new_tokens), keep_history=True)
        ear.muted = echo
        try:
            if can_force:
                model.runtime.force_tokens(how.forced)
            status = model.runtime.run(build(params, (), model.dimensions), infer)
        finally:
            ear.muted = None
        if ear.is_aborted():
            return
        if echo.has_failed or (status != 0 and echo.is_exact and not how.is_cut):
            text = f"turn {number} of the session could not be replayed"
            raise RkllmFailure("RKLLM_INFERENCE_ERROR", text, component="worker")
        if not echo.is_exact:
            text = f"turn {number} has another answer when it is run again"
            raise SessionLost(f"cannot restore the conversation: {text}", reason="diverged", turn=number)


def dressed(params: RunParams, session: Session) -> RunParams:
    """*params* with what the session says for all its turns."""
    if session.lora is None or params.lora is not None:
        return params
    return msgspec.structs.replace(params, lora=session.lora)
