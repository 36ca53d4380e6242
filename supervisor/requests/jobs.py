"""A request on its way through rkvisord, and what listens to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Protocol

from rkvisor.protocol.link import TurnEnd, decode_fragment
from rkvisor.protocol.run import RunParams
from rkvisor.supervisor.requests.digest import digest_of


class JobState(Enum):
    """queued → running → done; a death leads from running back to queued."""

    QUEUED = auto()
    RUNNING = auto()
    DONE = auto()


class Pausing(Enum):
    """not paused → asked for → paused by its process → alone, where that died; a resume leads back from anywhere."""

    NOT = auto()
    ASKED = auto()
    PAUSED = auto()
    ALONE = auto()


class Listener(Protocol):
    """Where a job's tokens and its answer go."""

    def token(self, fragment: bytes) -> None: ...

    def progress(self, phase: str, queue_position: int, timeout_in_s: float | None) -> None: ...

    def result(self, body: bytes, attachments: Sequence[bytes]) -> None: ...

    def error(self, body: bytes) -> None: ...


@dataclass(slots=True, eq=False, kw_only=True)
class Job:
    """One ``rkllm.run``.  All times are of the monotonic clock, but ``time_s``, when it was received by the wall clock.

    ids, fragments: what was streamed, also without ``stream``; their number is bounded by the longest context.
    charged: deaths charged to it.  worker: the slot that runs it.  home: the dispatcher that has it.  failed_worker:
    name of the slot whose process died under it last.  is_hung, is_moving: its run is being aborted because it makes no
    progress, or because its worker stops, so that it can go on elsewhere.  prompt_tokens: as its worker counted them,
    None before.
    is_edited: somebody changed it while it was paused.  session: that it is a turn of; turn_end, turn_worker,
    turn_process: whose KV cache has it, and how; began_s: when it was dispatched last; restore_s: what bringing the
    turns before it back into a KV cache may take, seconds.  expire: what its deadline does where others joined it.
    """

    number: int
    model: str
    params: RunParams
    raw_params: bytes
    known_digest: bytes | None
    attachments: Sequence[bytes] = ()
    prompt_cache: str = ""
    principal: str
    connection: object
    received_s: float
    time_s: float = 0.0
    listeners: list[Listener] = field(default_factory=list)
    state: JobState = JobState.QUEUED
    ids: list[int] = field(default_factory=list)
    fragments: list[bytes] = field(default_factory=list)
    attempts: int = 0
    charged: int = 0
    resumed: int = 0
    resume: str = ""
    quality: str | None = None
    is_degraded: bool = False
    is_alone: bool = False
    failed_worker: str | None = None
    prompt_tokens: int | None = None
    worker: Any = None
    is_answered: bool = False
    is_aborting: bool = False
    is_hung: bool = False
    is_moving: bool = False
    is_probe: bool = False
    home: Any = None
    pausing: Pausing = Pausing.NOT
    pause_number: int = 0
    is_edited: bool = False
    deadline: asyncio.TimerHandle | None = None
    expire: Callable[[Job], None] | None = None
    session: Any = None
    turn_end: TurnEnd | None = None
    turn_worker: Any = None
    turn_process: Any = None
    began_s: float = 0.0
    restore_s: float = 0.0

    @property
    def digest(self) -> bytes:
        """Of what is computed (``digest.py``); worked out when somebody asks, which most requests never see."""
        if self.known_digest is None:
            self.known_digest = digest_of(self.params, self.attachments)
        return self.known_digest

    @property
    def deadline_s(self) -> float | None:
        """When it must be done, or None."""
        return None if self.params.deadline_ms is None else self.received_s + self.params.deadline_ms / 1000

    def text(self) -> str:
        """The text so far, put together from the fragments: rare, so it is not kept."""
        return "".join(decode_fragment(fragment).text for fragment in self.fragments)
