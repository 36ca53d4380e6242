"""rkvisord's log does not stop rkvisord: nothing waits on its loop (design, section 3)."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable

from harness.rkvisord import Client, Rkvisord

#: A model whose lines in the log are long: SIGUSR1 writes one for each of them.
MODELS = "".join(
    f'[models.{"m" * 60}{number}]\nruntime = "sim"\npath = "builtin:tiny"\nautostart = false\n' for number in range(16)
)


def fill(server: Rkvisord, client: Client, until: Callable[[], bool]) -> None:
    """Have rkvisord log, and answer, until *until* says that it is enough."""
    assert server.process is not None
    while not until():
        server.process.send_signal(signal.SIGUSR1)
        client.call("system.version")


def times(count: int) -> Callable[[], bool]:
    """True at the *count*-th call, and not before."""
    left = iter(range(count))
    return lambda: next(left, None) is None


def drained(read: int, end: Callable[[str], bool]) -> str:
    """What comes out of the pipe until *end* says that all is there."""
    text = ""
    while not end(text):
        piece = os.read(read, 65536)
        assert piece, text[-2000:]
        text += piece.decode()
    return text


def test_a_reader_of_stderr_that_stands_still_stops_neither_the_service_nor_its_end() -> None:
    with Rkvisord(MODELS) as server:
        server.stop()
        read, write = os.pipe()
        server.start(stderr=write)
        os.close(write)
        with server.client() as client:
            fill(server, client, times(300))  # 300 * 16 lines of 100 letters and more: pipe and queue are full
            text = drained(read, lambda text: "dropped" in text and text.endswith("\n"))
            lines = text.splitlines()
            missing = [at for at, line in enumerate(lines) if re.search(r"WARNING \d+ line\(s\) .* dropped", line)]
            assert missing, text[-2000:]
            whole = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S* [A-Z]+ +\S")
            assert all(whole.match(line) for line in lines)
            stamps = [line[:19] for line in lines]
            assert stamps == sorted(stamps)
            fill(server, client, times(300))
        assert server.stop() == 0
        os.close(read)


def test_the_end_of_rkvisord_stands_in_its_log_in_order() -> None:
    with Rkvisord() as server:
        server.stop()
        lines = server.log.read_text().splitlines()
        stamps = [line[:23] for line in lines]
        assert stamps == sorted(stamps)
        assert lines[-1].endswith("stopped")
