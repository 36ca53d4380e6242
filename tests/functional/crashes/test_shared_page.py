"""A process writes its page while rkvisord reads it: no field is ever seen that was not written, or goes back.

A last callback at 0.0 s is what a hung run has: such a look ended a healthy process.
"""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

from rkvisor.protocol.page import SIZE_BYTES, Page

LOOPS = 200_000
#: Looks between two questions whether the writer still lives.
LOOKS = 2000


def looks_at(page: Page) -> tuple[float, ...]:
    """Fields that only grow, each that of one loop of the writer."""
    rest, told, last = page.rested(), page.accounts(), page.last()
    return (
        page.progress_s,
        page.job,
        *(rest.served, rest.rss_bytes, rest.shared_bytes, rest.tokens_in, rest.tokens_out),
        *(told.served, told.buffers_bytes, told.python_blocks),
        *(last.job, last.progress, last.base, last.served, last.rss_bytes),
    )


def test_a_field_that_is_being_written_is_read_as_it_was_or_as_it_will_be() -> None:
    fd = os.memfd_create("page", os.MFD_CLOEXEC)
    os.truncate(fd, SIZE_BYTES)
    page = Page(mmap.mmap(fd, SIZE_BYTES))
    words = [sys.executable, "-P", "-m", "harness.stepping", str(fd), str(LOOPS)]
    tests = str(Path(__file__).parents[2])
    writer = subprocess.Popen(words, pass_fds=[fd], env=os.environ | {"PYTHONPATH": tests})
    os.close(fd)
    seen, changes, back = looks_at(page), 0, []
    try:
        while writer.poll() is None:
            for _ in range(LOOKS):
                before, seen = seen, looks_at(page)
                changes += seen != before
                back += [(old, new) for old, new in zip(before, seen, strict=True) if new < old]
    finally:
        writer.kill()
        writer.wait()
    assert writer.returncode == 0
    assert changes > 10, "nothing was read while it was written"
    assert back == []
    assert looks_at(page)[:3] == (float(LOOPS), LOOPS, LOOPS)
    page.close()
