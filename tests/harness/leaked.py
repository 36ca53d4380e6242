"""``python -P -m harness.leaked MARKER``: what sixteen leaking runs of the simulator add to this process, as JSON.

A process of its own: in one that has lived, a leak of the heap may fill pages that were free but resident already.
"""

import json
import sys
from pathlib import Path

from harness.sim_driver import Simulator

RUNS = 16


def series() -> dict[str, int]:
    """Anonymous and shared memory in bytes, and the number of descriptors."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    memory = {name: int(status[name].split()[0]) * 1024 for name in ("RssAnon", "RssShmem")}
    return {**memory, "descriptors": len(list(Path("/proc/self/fd").iterdir()))}


def main(marker: str) -> None:
    """Print the growth of each series."""
    with Simulator(max_new_tokens=1) as sim:
        sim.run(marker + "a")
        before = series()
        for _ in range(RUNS):
            assert sim.run(marker + "a").status == 0
        after = series()
    print(json.dumps({name: after[name] - before[name] for name in after}))


if __name__ == "__main__":
    main(sys.argv[1])
