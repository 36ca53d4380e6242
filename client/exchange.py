"""One call of the user, over however many asks: what was delivered, what a replay still has to repeat."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from rkvisor.client.replies import Progress, Token
from rkvisor.protocol.errors import RkvisorError


@dataclass(slots=True, eq=False)
class Exchange:
    """body: the request's JSON without id.  wire_id: JSON text of the id of the present ask, None while not sent.

    deadline, unsent_since: monotonic seconds.  tokens: arrived and not yet taken by the caller.  delivered: all of the
    stream so far, kept to compare a replay with.  replayed: how many tokens the present ask has sent.  notes: not yet
    told, each with the number of tokens that came before it.
    attachments: frames behind the request.  replied: frames behind the answer.
    """

    method: str
    body: bytes
    key: str | None
    unsent_since: float
    attachments: tuple[bytes, ...] = ()
    replied: Sequence[bytes] = ()
    timeout_s: float = float("inf")
    deadline: float = float("inf")
    wire_id: bytes | None = None
    asks: int = 0
    is_aborting: bool = False
    is_over: bool = False
    tokens: deque[Token] = field(default_factory=deque)
    delivered: list[Token] = field(default_factory=list)
    replayed: int = 0
    notes: deque[tuple[int, Progress]] = field(default_factory=deque)
    result: bytes | None = None
    error: RkvisorError | None = None

    @property
    def is_run(self) -> bool:
        return self.method == "rkllm.run"

    def take(self, token: Token) -> str:
        """Add the next token of the present ask, or check it against what was delivered before.

        Returns what is wrong with it, or "".
        """
        if token.seq != self.replayed:
            return f"cannot continue the stream: got token {token.seq} where {self.replayed} was due"
        self.replayed += 1
        if token.seq == len(self.delivered):
            self.delivered.append(token)
            self.tokens.append(token)
        elif token != self.delivered[token.seq]:
            return f"cannot continue the stream: asked again, it differs at token {token.seq}"
        return ""

    def hear(self, progress: Progress) -> None:
        """Keep it for the caller.  Of the same phase, said again before anybody looked, the last counts."""
        if self.notes and self.notes[-1][1].phase == progress.phase:
            self.notes.pop()
        self.notes.append((len(self.delivered), progress))

    def next_note(self) -> Progress | None:
        """Take what came before the next token, or None: then the token is next."""
        if self.notes and (not self.tokens or self.notes[0][0] <= self.tokens[0].seq):
            return self.notes.popleft()[1]
        return None

    def missing(self) -> str:
        """What is wrong with a stream that ends now, or "": a replay may not end before what was delivered."""
        if self.replayed < len(self.delivered):
            had = len(self.delivered)
            return f"cannot continue the stream: asked again, it ended after {self.replayed} of {had} tokens"
        return ""
