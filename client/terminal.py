"""What ``rkvisor`` writes: an answer as it comes, and passing notes about it where somebody looks at them."""

from __future__ import annotations

import sys
from typing import TextIO

from rkvisor.client.replies import Progress
from rkvisor.protocol.errors import RkvisorError

_ERASE_LINE = "\r\x1b[K"
#: Control characters but tab and newline: a model's text must not move the cursor or rename the window.
_CONTROLS = {code: "�" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}


class Terminal:
    """out: the answer and nothing else.  notes: the rest.  Notes that pass are written only to a terminal."""

    def __init__(self, out: TextIO | None = None, notes: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._notes = notes or sys.stderr
        self._has_note = False
        self._last = "\n"

    def text(self, piece: str) -> None:
        """Write a piece of the answer at once."""
        self._forget_note()
        if not piece:
            return
        self._out.write(piece.translate(_CONTROLS) if self._out.isatty() else piece)
        self._out.flush()
        self._last = piece[-1]

    def end_line(self) -> None:
        """End the answer's last line, if it has not ended."""
        self._forget_note()
        if self._last != "\n":
            self._out.write("\n")
            self._out.flush()
            self._last = "\n"

    def progress(self, progress: Progress) -> None:
        """Say why nothing comes, on a line that vanishes with the next token; never over a piece of the answer."""
        if not self._notes.isatty() or self._last != "\n":
            return
        position = progress.queue_position
        more = f", {position} before this one" if position else ""
        self._notes.write(f"{_ERASE_LINE}({progress.phase}{more})")
        self._notes.flush()
        self._has_note = True

    def note(self, text: str) -> None:
        """A line that stays."""
        self._forget_note()
        print(text, file=self._notes, flush=True)

    def error(self, error: RkvisorError) -> None:
        """The error's message, and when to try again."""
        retry_ms = error.retry_after_ms
        when = "" if retry_ms is None else f" (try again in {retry_ms / 1000:g} s)"
        self.note(f"rkvisor: {error.message}{when}")

    def _forget_note(self) -> None:
        if self._has_note:
            self._notes.write(_ERASE_LINE)
            self._notes.flush()
            self._has_note = False
