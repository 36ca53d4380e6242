"""What ``rkvisor`` writes where: the answer, and notes that pass."""

from __future__ import annotations

import io

from rkvisor.client.replies import Progress
from rkvisor.client.terminal import Terminal

PAUSED = Progress(phase="paused", timeout_in_s=300.0)


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_note_that_passes_never_wipes_a_piece_of_the_answer_away() -> None:
    screen = Tty()
    terminal = Terminal(screen, screen)
    terminal.progress(Progress(phase="queued", queue_position=2))
    assert screen.getvalue().endswith("(queued, 2 before this one)")
    terminal.text("Once")
    shown = screen.getvalue()
    terminal.progress(PAUSED)
    assert screen.getvalue() == shown
    terminal.text(" upon\n")
    terminal.progress(PAUSED)
    assert screen.getvalue().endswith(" upon\n\r\x1b[K(paused)")


def test_notes_that_pass_are_for_terminals_only() -> None:
    notes = io.StringIO()
    Terminal(Tty(), notes).progress(PAUSED)
    assert notes.getvalue() == ""
