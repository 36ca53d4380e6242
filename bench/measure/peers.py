"""The supervisors that rkvisord is compared with, in an environment of their own: ``.cache/bench-venv``."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from measure.machine import ROOT
from measure.rkvisord import LAUNCH, PATIENCE_S

VENV = ROOT / ".cache" / "bench-venv"
WANTED = ("supervisor==4.3.0", "circus==0.19.0", "gunicorn", "setuptools<81")


def install() -> Path:
    """The folder of the peers' programs; installs them once (needs pip's index, or its cache)."""
    done = VENV / "installed"
    if not done.is_file() or done.read_text() != " ".join(WANTED):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)
        subprocess.run([str(VENV / "bin" / "pip"), "install", "--quiet", *WANTED], check=True)
        done.write_text(" ".join(WANTED))
    return VENV / "bin"


def versions() -> dict[str, str]:
    """Of what was installed."""
    lines = subprocess.run(
        [str(install() / "pip"), "freeze"], capture_output=True, text=True, check=True
    ).stdout.split()
    pairs = [line.partition("==") for line in lines]
    return {name: version for name, _, version in pairs if name in ("supervisor", "circus", "gunicorn")}


@dataclass(slots=True)
class Ready:
    """Children tell it that they are up: datagrams "PID" to a socket.  ``path`` goes into their command line."""

    folder: Path
    path: Path = field(init=False)
    _socket: socket.socket = field(init=False)

    def __post_init__(self) -> None:
        self.path = self.folder / "ready.sock"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self._socket.settimeout(PATIENCE_S)

    def wait(self) -> tuple[int, float]:
        """(pid of the next child that is up, when it said so: seconds, monotonic)."""
        pid, when = self._socket.recv(100).split()
        return int(pid), float(when)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A short-named folder: it holds Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="rkb") as name:
        yield Path(name)


@contextlib.contextmanager
def running(words: list[str], where: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A supervisor, SIGTERMed at the end so that it takes its children along."""
    with (where / "log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, cwd=where)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def supervisord(where: Path, command: str, children: int = 1, **more: str) -> list[str]:
    """Its command line, with *children* programs that run *command*.  more: lines of their section."""
    control = where / "s.sock"
    lines = "".join(f"{key}={value}\n" for key, value in more.items())
    programs = "".join(f"[program:p{i}]\ncommand={command}\nautorestart=true\n{lines}\n" for i in range(children))
    (where / "supervisord.conf").write_text(
        f"[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={where}/s.pid\n\n"
        f"[unix_http_server]\nfile={control}\n\n[supervisorctl]\nserverurl=unix://{control}\n\n"
        "[rpcinterface:supervisor]\n"
        "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n\n" + programs
    )
    return [str(install() / "supervisord"), "-c", str(where / "supervisord.conf")]


def circusd(where: Path, command: str, children: int = 1) -> list[str]:
    """Its command line, with one watcher of *children* processes that run *command*."""
    program, _, rest = command.partition(" ")
    (where / "circus.ini").write_text(
        f"[circus]\nendpoint=ipc://{where}/c.e\npubsub_endpoint=ipc://{where}/c.p\nstatsd=false\n\n"
        f"[watcher:w]\ncmd={program}\nargs={rest}\nnumprocesses={children}\ncopy_env=true\n"
    )
    return [str(install() / "circusd"), str(where / "circus.ini")]


def gunicorn(where: Path, application: str, *, ready: Path | None = None) -> list[str]:
    """Its command line, with one sync worker that serves *application* (``launch/gunicorn_app.py``)."""
    words = [str(install() / "gunicorn"), "--bind", f"unix:{where}/g.sock", "--workers", "1"]
    words += ["--chdir", str(LAUNCH), "--config", str(LAUNCH / "gunicorn_app.py")]
    return [*words, "--env", f"BENCH_READY={ready or ''}", f"gunicorn_app:{application}"]


def wait_for(path: Path) -> None:
    """Until *path* exists.  Raises TimeoutError."""
    until = time.monotonic() + PATIENCE_S
    while not path.exists():
        if time.monotonic() > until:
            raise TimeoutError(f"{path} does not appear")
        time.sleep(0.02)
