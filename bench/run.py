"""``make bench``: the numbers of design §10 on this machine, with the peers beside them in the same run.

    python bench/run.py [--quick] [--only NAME …] [--no-write]

Writes ``bench/results/NAME.json`` for every measurement and prints a table.  The exit status is 0 whatever the numbers
are, and 1 when a measurement could not be made.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # python -P leaves it out

from measure import table
from measure.machine import ROOT, describe
from measure.record import Measurement

#: Modules of ``measure/``, in the order of the table.
NAMES = (
    "round_trip",
    "token_cost",
    "refill",
    "resume",
    "latency",
    "idle",
    "status_command",
    "reaction",
    "tensors",
    "sampling",
    "bookkeeping",
    "soak",
)
RESULTS = ROOT / "bench" / "results"


def main() -> int:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description="Measure rkvisor beside its peers.")
    parser.add_argument(
        "--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=f"of {', '.join(NAMES)}"
    )
    parser.add_argument("--quick", action="store_true", help="fewer values: within 90 s, for a look")
    parser.add_argument("--no-write", action="store_true", help="leave bench/results as it is")
    args = parser.parse_args()
    results: list[Measurement] = []
    failed = []
    for name in args.only:
        begun = time.monotonic()
        print(f"{name} …", end=" ", flush=True)
        try:
            result = importlib.import_module(f"measure.{name}").measure(is_quick=args.quick)
        except Exception:  # the guard of this loop: one measurement that fails must not take the others along
            traceback.print_exc()
            failed.append(name)
            continue
        took_s = time.monotonic() - begun
        print(f"{took_s:.0f} s", flush=True)
        results.append(result)
        if not args.no_write:
            write(result, took_s, is_quick=args.quick)
    print(table.render(results))
    if failed:
        print(f"could not measure: {', '.join(failed)}")
    return 1 if failed else 0


def write(result: Measurement, took_s: float, *, is_quick: bool) -> None:
    """One file a measurement."""
    RESULTS.mkdir(exist_ok=True)
    content = {**result.to_object(), **describe(), "quick": is_quick, "took_s": round(took_s, 1)}
    text = json.dumps(content, indent=1, ensure_ascii=False)
    (RESULTS / f"{result.name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
