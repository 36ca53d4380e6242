"""What waits to be written to a slow reader, bounded: what is too much is dropped, and told of."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

#: Characters that may wait.
ROOM = 256 * 1024


class Backlog:
    """note: the text that stands where *n* lines are missing.  Pure; the caller locks."""

    def __init__(self, note: Callable[[int], str], room: int = ROOM):
        self._note = note
        self._room = room
        self._pieces: deque[str] = deque()
        self._held = 0
        self._is_full = False
        self._dropped = 0

    def put(self, text: str) -> None:
        """Queue or drop *text*.  Once full it stays so until half of the room is free: one note for many lines."""
        if self._is_full and self._held <= self._room // 2:
            self._tell()
        if self._is_full or self._held + len(text) > self._room:
            self._is_full = True
            self._dropped += text.count("\n")
            return
        self._push(text)

    def take(self) -> str | None:
        """The oldest piece; None where nothing waits."""
        if not self._pieces and self._is_full:
            self._tell()
        if not self._pieces:
            return None
        text = self._pieces.popleft()
        self._held -= len(text)
        return text

    def _tell(self) -> None:
        self._push(self._note(self._dropped))
        self._is_full, self._dropped = False, 0

    def _push(self, text: str) -> None:
        self._pieces.append(text)
        self._held += len(text)
