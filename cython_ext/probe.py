"""Look into a runtime library from a process that may die: ``python -P -m rkvisor.cython_ext.probe PATH``.

Prints one line of JSON, ``{"functions": […], "written": n, "cpus_at": {"65": n, "93": n}}`` or ``{"error": "…"}``:
the rkllm_* functions that the library exports, how many bytes rkllm_createDefaultParam wrote (0 without it), and the
bytes where F2–F4 (93) and F5 (65) keep enabled_cpus_num.  It runs the library's constructors and that one function;
``detection`` reads the answer and judges it.
"""

import json
import os
import resource
import signal
import sys

from rkvisor.cython_ext._rkllm import LibraryError, examine

FILLS = (0xA5, 0x5A)
LIFETIME_S = 60  # beyond detection's patience: for a library that hangs while nobody waits any more


def written(images: list[bytes]) -> int:
    """How many bytes a function wrote, counted up to the last one.

    images: its memory after calls over memory filled with FILLS[0] and with FILLS[1]; empty for none.
    """
    length = 0
    for at, pair in enumerate(zip(*images, strict=True), 1):
        if pair != FILLS:
            length = at
    return length


def report(path: str) -> dict[str, object]:
    """What detection.Evidence needs to know, or why it cannot be known."""
    try:
        functions, images = examine(path)
    except LibraryError as error:
        return {"error": error.reason}
    cpus = {str(at): images[0][at] if images else 0 for at in (65, 93)}
    return {"functions": functions, "written": written(images), "cpus_at": cpus}


def main() -> None:
    """Answer on the stdout that we were given; whatever the library prints goes to stderr."""
    signal.alarm(LIFETIME_S)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answer = os.dup(1)
    os.dup2(2, 1)
    line = json.dumps(report(sys.argv[1])) + "\n"
    os.write(answer, line.encode())
    os._exit(0)  # without the library's destructors


if __name__ == "__main__":
    main()
