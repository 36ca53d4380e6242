"""What a runtime library initialises with by default, asked of it in a child, because a library may do anything.

    python -P -m rkvisor.client.doctor.default_param LIBRARY FAMILY

prints RKLLMParam's members that are numbers as one line of JSON.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from typing import Any

TIMEOUT_S = 30.0


def ask(library: str, family: str) -> dict[str, Any] | str:
    """The defaults, or why they cannot be told."""
    command = [sys.executable, "-P", "-m", "rkvisor.client.doctor.default_param", library, family]
    try:
        child = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return f"rkllm_createDefaultParam did not return within {TIMEOUT_S:g} s"
    if child.returncode != 0:
        words = child.stderr.decode(errors="replace").strip().splitlines()
        how = f"signal {-child.returncode}" if child.returncode < 0 else f"status {child.returncode}"
        return f"rkllm_createDefaultParam ended its process with {how}: {words[-1] if words else 'no words'}"
    answer: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    return answer


def main() -> None:
    """Answer on the stdout that we were given; what the library prints goes to stderr."""
    from rkvisor.cython_ext._rkllm import Runtime

    signal.alarm(2 * int(TIMEOUT_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answer = os.dup(1)
    os.dup2(2, 1)
    param = Runtime(sys.argv[1], sys.argv[2]).default_param()
    numbers = {name: value for name, value in param.items() if isinstance(value, (int, float))}
    os.write(answer, (json.dumps(numbers) + "\n").encode())
    os._exit(0)  # without the library's destructors


if __name__ == "__main__":
    main()
