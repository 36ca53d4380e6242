"""A cold ``rkvisorctl status`` beside a cold ``supervisorctl status`` and ``circusctl status``."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path

from measure import peers
from measure.record import Goal, Measurement
from measure.rkvisord import LAUNCH, Rkvisord

CHILDREN = 4
MODEL = f"""
[models.demo]
runtime = "sim"
path = "builtin:tiny"
workers = {CHILDREN}
"""
HOW = f"""
From the start of the process to its end, the three commands taking turns, against daemons with {CHILDREN} children
each. 'Cold' is a new process; the files are in the page cache. rkvisorctl is the installed script of the
environment that runs the bench (an editable install costs it an import hook that a plain one has not), the others
are scripts of their own environment.
"""


def measure(*, is_quick: bool) -> Measurement:
    """See ``HOW``."""
    result = Measurement("status_command", "status command, cold process", HOW)
    rounds = 10 if is_quick else 40
    child = f"{sys.executable} -P {LAUNCH / 'ready_child.py'}"
    ctl = Path(sys.executable).with_name("rkvisorctl")
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Rkvisord(MODEL))
        supervisor, circus = stack.enter_context(peers.folder()), stack.enter_context(peers.folder())
        stack.enter_context(peers.running(peers.supervisord(supervisor, child, CHILDREN), supervisor))
        stack.enter_context(peers.running(peers.circusd(circus, child, CHILDREN), circus))
        peers.wait_for(supervisor / "s.sock")
        peers.wait_for(circus / "c.e")
        time.sleep(2)
        commands = {
            "rkvisorctl": [str(ctl), "-s", server.admin, "status"],
            "supervisorctl": [str(peers.VENV / "bin" / "supervisorctl"), "-s", f"unix://{supervisor}/s.sock", "status"],
            "circusctl": [str(peers.VENV / "bin" / "circusctl"), "--endpoint", f"ipc://{circus}/c.e", "status"],
            "an interpreter that does nothing": [sys.executable, "-P", "-c", ""],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for turn in range(rounds + 1):
            for name, words in commands.items():
                took_ms = run(words)
                if turn:
                    times[name].append(took_ms)
    for name, values in times.items():
        result.add(name, "ms", values)
    ours, theirs = result.find("rkvisorctl"), result.find("supervisorctl")
    if ours and theirs:
        for other in result.series[1:3]:
            result.ratios[f"rkvisorctl / {other.who} (p50)"] = ours.p50 / other.p50
        result.goals.append(Goal("rkvisorctl status, p50", ours.p50 / theirs.p50, 1.0, "× supervisorctl", "not slower"))
    return result


def run(words: list[str]) -> float:
    """Milliseconds of one run.  Raises RuntimeError where it fails."""
    begun = time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    took_ms = (time.perf_counter() - begun) * 1000
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return took_ms
