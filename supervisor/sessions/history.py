"""One conversation: its turns, who runs in it and who waits, and whether it can go on.  Pure; times are passed in.

One request of a session runs at a time; those that come meanwhile wait in order, because each is a prompt behind the
answer before it.  A turn counts once it is answered with a result; one that ends in an error, or that nobody waits for
any more, leaves the conversation as it was before it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from rkvisor.protocol.errors import QueueFull, TooLarge
from rkvisor.supervisor.sessions.lost import lost

J = TypeVar("J")

#: Requests of one session that may wait for the one before them.
MAX_WAITING = 16
#: Bookkeeping of one turn beside its bytes: a generous guess.
TURN_BYTES = 512
#: Bytes of JSON text per token, where nothing counts tokens (design §2).
BYTES_PER_TOKEN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one session; of one principal: sessions.  idle_s: the longest that a session may stay unused."""

    sessions: int
    turns: int
    bytes: int
    tokens: int
    idle_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A question and its answer.  wire: as a worker takes it (``link.Turn``).  took_s: from dispatch to the end."""

    wire: bytes
    role: str
    prompt: str
    text: str
    finish_reason: str
    ids: tuple[int, ...]
    took_s: float

    @property
    def size_bytes(self) -> int:
        """About what it holds in memory."""
        return len(self.wire) + 2 * (len(self.prompt) + len(self.text)) + 8 * len(self.ids) + TURN_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What counts for every turn.  template, tools: the three texts of RKLLM's functions, empty: the model's."""

    template: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    lora: str | None = None
    may_restore: bool = True


@dataclass(slots=True, eq=False, kw_only=True)
class Session(Generic[J]):
    """used_s: when it was used last.  worker, process: whose KV cache had it last.  cause: why it has it no more."""

    id: str
    model: str
    principal: str
    settings: Settings
    idle_timeout_s: float
    max_turns: int
    limits: Limits
    used_s: float
    turns: list[Turn] = field(default_factory=list)
    tokens: int = 0
    size_bytes: int = 0
    running: J | None = None
    waiting: deque[J] = field(default_factory=deque)
    lost_because: str | None = None
    is_closed: bool = False
    restored: int = 0
    worker: Any = None
    process: Any = None
    cause: str = ""

    @property
    def state(self) -> str:
        """idle, running or lost."""
        if self.lost_because is not None:
            return "lost"
        return "idle" if self.running is None else "running"

    @property
    def expires_s(self) -> float | None:
        """When it is closed unless it is used before; None while a request of it is under way."""
        return None if self.running is not None else self.used_s + self.idle_timeout_s

    @property
    def replay_tokens(self) -> int:
        """About how many tokens a worker has to go through to restore it."""
        return self.tokens + sum(len(turn.wire) for turn in self.turns) // BYTES_PER_TOKEN

    @property
    def replay_s(self) -> float:
        """How long its turns took the first time, seconds."""
        return sum(turn.took_s for turn in self.turns)

    def check(self) -> None:
        """Raise what keeps another turn from being taken: SessionLost, TooLarge or QueueFull."""
        if self.lost_because is not None:
            raise lost(self.id, self.lost_because)
        way_out = "open another session and begin it with what matters of session.history"
        under_way = (self.running is not None) + len(self.waiting)
        for what, used, limit, key in (
            ("turns", len(self.turns) + under_way, self.max_turns, "session_turns"),
            ("tokens of answers", self.tokens, self.limits.tokens, "session_tokens"),
            ("bytes", self.size_bytes, self.limits.bytes, "session_bytes"),
        ):
            if used >= limit:
                text = f"it has {used} {what}; the limit is {limit} ([limits] {key})"
                raise TooLarge(f"cannot take another turn of session {self.id!r}: {text}; {way_out}", session=self.id)
        if len(self.waiting) >= MAX_WAITING:
            text = f"{MAX_WAITING} of its requests wait already for the one before them"
            raise QueueFull(f"cannot take another request of session {self.id!r}: {text}", retry_after_ms=1000)

    def enter(self, job: J) -> bool:
        """*job* wants to run.  Returns whether it may now; else it waits for ``leave`` to name it."""
        if self.running is None:
            self.running = job
            return True
        self.waiting.append(job)
        return False

    def leave(self, job: J, now_s: float) -> J | None:
        """*job* is over, wherever it was.  Returns the one that may run now."""
        self.used_s = now_s
        if job is not self.running:
            if job in self.waiting:
                self.waiting.remove(job)
            return None
        self.running = self.waiting.popleft() if self.waiting else None
        return self.running

    def record(self, turn: Turn) -> None:
        """*turn* counts."""
        self.turns.append(turn)
        self.tokens += len(turn.ids)
        self.size_bytes += turn.size_bytes
        if turn.finish_reason == "context":
            self.lost_because = "context"
