"""``make run``: a real model on the CPU, a question, a worker killed in mid-answer, the answer finished all the same.

Everything shown goes through the parts that serve in production: rkvisord, workers, ZeroMQ, the client library.
The configuration it writes stays, so that the daemon can be started again by hand.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rkvisor.client import Client
from rkvisor.cython_ext.llama_engine import find_model

FOLDER = Path(".cache/quickstart")
#: A Unix socket's path may have 107 bytes; the longest one below the run directory needs this many.
SOCKET_ROOM = 107 - len("/private/worker.sock")
QUESTION = "What is the capital of France?"
STORY = "Tell me a short story about a lighthouse keeper."
STORY_TOKENS = 90
KILL_AT = 30
UP_TIMEOUT_S = 120.0

CONFIG = """\
# Written by "make run".  One small model on the CPU, with a loaded process standing by.
[supervisor]
run_dir = "{run_dir}"
state_dir = "state"

[listen]
clients = ["ipc://{run_dir}/client.sock"]
admin = "ipc://{run_dir}/private/admin.sock"

[models.smollm2]
runtime = "llama"
path = "{model}"
workers = 1
standby = 1
param = {{ max_context_len = 2048, max_new_tokens = 256, temperature = 0.0 }}
"""


class CannotShow(Exception):
    """The demonstration failed; the message says where to look."""


def write_config(folder: Path) -> Path:
    """The configuration, with a run directory whose socket paths are short enough."""
    folder.mkdir(parents=True, exist_ok=True)
    run_dir = folder.absolute() / "run"
    if len(str(run_dir).encode()) > SOCKET_ROOM:
        mark = hashlib.sha256(str(run_dir).encode()).hexdigest()[:8]
        run_dir = Path(tempfile.gettempdir()) / f"rkvisor-{os.getuid()}-{mark}"
    config = folder.absolute() / "rkvisor.toml"
    config.write_text(CONFIG.format(run_dir=run_dir, model=find_model()))
    return config


@contextmanager
def daemon(config: Path) -> Iterator[subprocess.Popen[bytes]]:
    """rkvisord, up inside, stopped after."""
    log = config.parent / "rkvisord.log"
    with log.open("wb") as output:
        words = [sys.executable, "-P", "-m", "rkvisor.supervisor.daemon", "-c", str(config)]
        process = subprocess.Popen(words, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_until_up(client: Client, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the model's worker runs.  Raises CannotShow."""
    until = time.monotonic() + UP_TIMEOUT_S
    while time.monotonic() < until:
        if process.poll() is not None:
            raise CannotShow(f"cannot go on: rkvisord ended with status {process.returncode}; see {log}")
        state = client.status().models[0].state
        if state == "RUNNING":
            return
        if state == "FATAL":
            raise CannotShow(f"cannot go on: the model did not load; see {log}")
        time.sleep(0.1)
    raise CannotShow(f"cannot go on: the model was not loaded within {UP_TIMEOUT_S:g} s; see {log}")


def say(text: str = "") -> None:
    """One line, at once."""
    print(text, flush=True)


def ask(client: Client, prompt: str, tokens: int, kill_at: int | None = None) -> tuple[str, float, int]:
    """Stream an answer to the terminal; SIGSEGV the worker after *kill_at* tokens.

    Returns the text, the longest pause between two tokens behind the signal (seconds) and how often it was resumed.
    """
    longest, last, column = 0.0, 0.0, 4
    print("    ", end="")
    with client.stream(model="smollm2", prompt=prompt, max_new_tokens=tokens) as stream:
        for token in stream:
            now = time.monotonic()
            if kill_at is not None and token.seq > kill_at:
                longest = max(longest, now - last)
            last = now
            column = show(token.text, column)
            if token.seq == kill_at:
                pid = client.status().models[0].workers[0].pid
                os.kill(pid, signal.SIGSEGV)
                red, plain = ("\x1b[31m", "\x1b[0m") if sys.stdout.isatty() else ("", "")
                print(f"\n    {red}-- SIGSEGV sent to the worker, pid {pid} --{plain}\n    ", end="", flush=True)
                column = 4
        result = stream.result
    say()
    return result.text, longest, result.resumed


def show(text: str, column: int) -> int:
    """Print *text*, wrapped and indented; returns the column it ends in."""
    for piece in text.splitlines(keepends=True):
        if column + len(piece) > 96 and piece.startswith(" "):
            print("\n    ", end="")
            piece, column = piece[1:], 4
        print(piece.replace("\n", "\n    "), end="", flush=True)
        column = 4 if piece.endswith("\n") else column + len(piece)
    return column


def demonstrate(config: Path) -> None:
    """Show everything.  Raises CannotShow."""
    say("== starting rkvisord with SmolLM2-135M on the CPU")
    with daemon(config) as process, Client(config=str(config), connect_timeout_s=UP_TIMEOUT_S) as client:
        wait_until_up(client, process, config.parent / "rkvisord.log")
        worker = client.status().models[0].workers[0]
        say(f"   rkvisord is pid {process.pid}, worker {worker.name} is pid {worker.pid}\n")
        say(f"== {QUESTION}")
        ask(client, QUESTION, 40)
        say(f"\n== {STORY}   (undisturbed)")
        calm, _, _ = ask(client, STORY, STORY_TOKENS)
        say(f"\n== {STORY}   (the same, and its worker is killed)")
        stormy, pause_s, resumed = ask(client, STORY, STORY_TOKENS, KILL_AT)
        say()
        if not resumed:
            raise CannotShow("cannot show a resume: the answer ended before the worker did")
        if calm != stormy:
            raise CannotShow("cannot show an exact resume: the two answers differ")
        pause = f"{pause_s * 1000:.0f} ms"
        say(f"   The answer went on in another process after {pause}, and is identical: {len(stormy)} characters.")
        after = client.status().models[0].workers[0]
        say(f"   Worker {after.name} is now pid {after.pid}; rkvisord is still pid {process.pid}.")
    bin_dir = Path(sys.executable).parent
    near = Path(os.path.relpath(bin_dir))
    say(
        textwrap.dedent(f"""
        == your turn
           start the daemon, and leave it running:   {near}/rkvisord -c {os.path.relpath(config)} &
           talk to the model:                        {near}/rkvisor chat -c {os.path.relpath(config)}
           look at it as an operator:                {near}/rkvisorctl -c {os.path.relpath(config)} status
           stop it:                                  {near}/rkvisorctl -c {os.path.relpath(config)} shutdown
        """)
    )


def main() -> int:
    """Exit status 0 when everything was shown."""
    try:
        demonstrate(write_config(FOLDER))
    except CannotShow as error:
        print(f"\nrkvisor: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
