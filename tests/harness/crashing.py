"""Workers that die on purpose, and what is told of them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from harness.rkvisord import DEMO, Client, Rkvisord

NO_WINDOW = "fault_window_s = 0"
FIELDS = {"id", "worker", "pid", "signal", "time", "signature", "class", "request_digest", "log"}
CLASSES = {"systematic", "environmental", "resource-based", "timing-based"}
IMPATIENT = DEMO + "token_timeout_s = 0.5\nfirst_token_timeout_s = 5\n"


def crashes(server: Rkvisord, count: int, **params: Any) -> list[dict[str, Any]]:
    """The reports, once there are *count* of them."""
    found: list[dict[str, Any]] = []

    def is_enough() -> bool:
        found[:] = server.call("system.crashes", params)["crashes"]
        return len(found) >= count

    server.wait_until(is_enough, f"{count} crash report(s)")
    assert len(found) == count
    return found


def run(client: Client, marker: str, prompt: str = "tell me a story", **params: Any) -> Any:
    return client.call("rkllm.run", {"model": "demo", "prompt": marker + prompt, "max_new_tokens": 8, **params})


def is_up(server: Rkvisord) -> bool:
    return all(worker["state"] == "RUNNING" for worker in server.workers())


def ctl(server: Rkvisord, *words: str) -> tuple[int, str]:
    """Exit status and output of rkvisorctl."""
    command = [sys.executable, "-P", "-m", "rkvisor.supervisor.ctl.main", "-s", server.admin, *words]
    end = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return end.returncode, end.stdout
