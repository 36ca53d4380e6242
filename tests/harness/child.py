"""A process of its own for what must not be measured in pytest's: its memory is old and full of holes."""

import os
import subprocess
import sys

from harness.places import TESTS

#: Seconds.
PATIENCE_S = 60
#: For one that measures what was given back: where it runs under AddressSanitizer, that keeps nothing of what is freed.
GIVING_BACK = {
    "ASAN_OPTIONS": f"{os.environ.get('ASAN_OPTIONS', '')}:quarantine_size_mb=0:thread_local_quarantine_size_kb=0"
}


def tell(module: str, *words: str, text: str | None = None, **environment: str) -> str:
    """What ``python -m MODULE WORDS`` printed last.  text: its standard input."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", module, *words],
        input=text,
        env={**os.environ, "PYTHONPATH": str(TESTS), **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]
