"""``python -P -m leaks [PART]``: the confusion matrix of a part of the corpus, by all processors.

PART is "tuning" (the default), "held-out", or a spent one (``corpus.PARTS``).  ``--clean N`` and ``--leaking N`` say
how many traces, ``--write FILE`` puts the tables into a page of the documentation.  "held-out" is not looked at while
the estimator is changed: after a change that learned from it, it is spent and another takes its place.
"""

from __future__ import annotations

import argparse
import multiprocessing
import subprocess
import sys
import time
from pathlib import Path

from leaks.corpus import CLEAN, LEAKS, PARTS, size
from leaks.judging import Outcome, judge_seed
from leaks.matrix import render

#: What stands around the tables in a page.
BEGIN, END = "<!-- matrix -->", "<!-- end of matrix -->"


def main() -> int:
    """Judge, print, and write where asked to."""
    parser = argparse.ArgumentParser(prog="python -P -m leaks", description=__doc__)
    parser.add_argument("part", nargs="?", choices=tuple(PARTS), default="tuning")
    parser.add_argument("--clean", type=int, default=2000)
    parser.add_argument("--leaking", type=int, default=1500)
    parser.add_argument("--only", default="", help="kinds whose name holds this")
    parser.add_argument("--write", type=Path)
    parser.add_argument("--failures", action="store_true", help="list the seeds that went wrong")
    args = parser.parse_args()
    kinds = [kind for kind in (*CLEAN, *LEAKS) if args.only in kind]
    seeds = [(PARTS[args.part], kind, n) for kind in kinds for n in range(size(kind, args.clean, args.leaking))]
    begun, commit = time.monotonic(), head()  # while it runs, others may commit
    with multiprocessing.get_context("spawn").Pool() as workers:
        outcomes: list[Outcome] = workers.map(judge_seed, seeds, chunksize=8)
    text = render(args.part, outcomes)
    print(text)
    print(f"{len(outcomes)} traces in {time.monotonic() - begun:.0f} s")
    if args.failures:
        for one in outcomes:
            bad = one.found is not None if one.kind in CLEAN else one.found is None or abs(one.error or 1) > 0.1
            if bad:
                print(one)
    if args.write:
        put(args.write, text, commit)
    return 0


def head() -> str:
    """The commit that is checked out, short."""
    words = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def put(page: Path, text: str, commit: str) -> None:
    """Between the marks of *page*, with the commit that was judged."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    made = f"{BEGIN}\nMade at commit {commit}; the seeds are the names of part, kind and number.\n\n{text}\n{END}"
    page.write_text(before + made + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
