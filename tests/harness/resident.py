"""``python -P -m harness.resident MODEL``: anonymous memory in kB that a loaded model adds, and that stays after it.

A process of its own: in one that has lived, the model may fill pages that were free but resident already.
"""

import sys
from pathlib import Path

from harness.sim_driver import Simulator


def anonymous_kb() -> int:
    """RssAnon of this process."""
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0])


if __name__ == "__main__":
    before = anonymous_kb()
    with Simulator(model=sys.argv[1]):
        loaded = anonymous_kb() - before
    print(loaded, anonymous_kb() - before)
