"""A real rkvisord for a measurement, if need be through ``launch/rkvisord_probed.py``, and a plain client of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import zmq

from measure.machine import ROOT

#: How long anything may take before the measurement is given up.
PATIENCE_S = 60.0
LAUNCH = ROOT / "bench" / "launch"


class Rkvisord:
    """Context manager: up inside, every worker RUNNING.

    models: TOML of the model sections.  probe: options of the launcher, which tell through a pipe what happens when
    (``events``); without any, the daemon is started as an operator would.  cpus: where it and its processes may run.
    is_doomed: it is up, too, when its workers are FATAL.
    """

    def __init__(
        self,
        models: str,
        *,
        supervisor: str = "",
        probe: Sequence[str] = (),
        cpus: Sequence[int] = (),
        environment: dict[str, str] | None = None,
        is_doomed: bool = False,
    ):
        self._made = tempfile.TemporaryDirectory(prefix="rkb")
        self.folder = Path(self._made.name)
        self.config = self.folder / "rkvisor.toml"
        listen = 'clients = ["ipc://run/client.sock"]'
        self.config.write_text(f'[supervisor]\nlog_level = "info"\n{supervisor}\n[listen]\n{listen}\n{models}')
        self.endpoint = f"ipc://{self.folder}/run/client.sock"
        self.admin = f"ipc://{self.folder}/run/private/admin.sock"
        self._probe = list(probe)
        self._cpus = set(cpus)
        self._environment = environment or {}
        self._is_doomed = is_doomed
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.events = Events()

    def __enter__(self) -> Self:
        words = [sys.executable, "-P"]
        if self._probe:
            words += [str(LAUNCH / "rkvisord_probed.py"), str(self.events.write_fd), *self._probe, "--"]
        else:
            words += ["-m", "rkvisor.supervisor.daemon"]
        log = (self.folder / "rkvisord.log").open("wb")
        ours = os.sched_getaffinity(0)
        if self._cpus:
            os.sched_setaffinity(0, self._cpus)
        try:
            self.process = subprocess.Popen(
                [*words, "-c", str(self.config)],
                stdout=log,
                stderr=log,
                pass_fds=[self.events.write_fd],
                env={**os.environ, **self._environment},
            )
        finally:
            os.sched_setaffinity(0, ours)
            log.close()
        try:
            self.wait_until(self._is_up, "the start of rkvisord")
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def _is_up(self) -> bool:
        if not (self.folder / "run" / "client.sock").exists():
            return False
        states = {worker["state"] for worker in self.workers()}
        if "FATAL" in states and not self._is_doomed:
            raise RuntimeError("cannot measure: a worker is FATAL")
        return states <= {"RUNNING", "FATAL"}

    @property
    def pid(self) -> int:
        return self.process.pid

    def log(self) -> str:
        """What the daemon has logged."""
        return (self.folder / "rkvisord.log").read_text(errors="replace")

    def client(self, endpoint: str | None = None) -> Client:
        """A new connection."""
        return Client(self.context, endpoint or self.endpoint)

    def workers(self) -> list[dict[str, Any]]:
        """Of all models, as ``system.status`` lists them."""
        with self.client() as client:
            return [worker for model in client.call("system.status")["models"] for worker in model["workers"]]

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Look every 20 ms.  Raises TimeoutError with the end of the log after ``PATIENCE_S``."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until and self.process.poll() is None:
            if condition():
                return
            time.sleep(0.02)
        raise TimeoutError(f"{what} did not come; log:\n{self.log()[-3000:]}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.events.close()
        self.context.destroy(linger=0)
        if error is not None:
            print(self.log()[-3000:], file=sys.stderr)
        self._made.cleanup()


class Events:
    """What a probed rkvisord tells: lines "seconds kind word…", seconds of CLOCK_MONOTONIC, which processes share."""

    def __init__(self) -> None:
        self._read_fd, self.write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        self._rest = b""
        self.waiting: list[tuple[float, list[str]]] = []

    def poll(self) -> None:
        """Take in what has come."""
        try:
            chunk = os.read(self._read_fd, 1 << 20)
        except BlockingIOError:
            return
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            when, *words = line.decode().split()
            self.waiting.append((float(when), words))

    def clear(self) -> None:
        """Forget what has come so far."""
        self.poll()
        self.waiting.clear()

    def wait(self, *words: str, timeout_s: float = PATIENCE_S) -> tuple[float, list[str]]:
        """The first event, from now or kept, that begins with *words*; it and those before it are dropped."""
        until = time.monotonic() + timeout_s
        while True:
            self.poll()
            for index, event in enumerate(self.waiting):
                if event[1][: len(words)] == list(words):
                    del self.waiting[: index + 1]
                    return event
            if time.monotonic() > until:
                raise TimeoutError(f"no event {' '.join(words)}")
            time.sleep(0.001)

    def close(self) -> None:
        """Close the pipe."""
        os.close(self._read_fd)
        os.close(self.write_fd)


class Client:
    """A DEALER of its own, without rkvisor's client library."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str):
        self.socket = context.socket(zmq.DEALER)
        self.socket.set(zmq.LINGER, 0)
        self.socket.set(zmq.RCVTIMEO, int(PATIENCE_S * 1000))
        self.socket.connect(endpoint)
        self._last = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, method: str, params: dict[str, Any]) -> int:
        """Send a request; its id."""
        self._last += 1
        self.socket.send(request(self._last, method, params))
        return self._last

    def receive(self) -> dict[str, Any]:
        """The next message.  Raises zmq.Again after ``PATIENCE_S``."""
        message: dict[str, Any] = msgspec.json.decode(self.socket.recv())
        return message

    def call(self, method: str, params: dict[str, Any] | None = None) -> Any:
        """The result of one call.  Raises RuntimeError for an error response."""
        identifier = self.send(method, params or {})
        while True:
            message = self.receive()
            if message.get("id") == identifier and "method" not in message:
                if "error" in message:
                    raise RuntimeError(message["error"])
                return message["result"]

    def stream(self, params: dict[str, Any]) -> tuple[list[float], dict[str, Any]]:
        """When each token came (seconds, monotonic), and the response."""
        identifier = self.send("rkllm.run", {**params, "stream": True})
        times: list[float] = []
        while True:
            raw = self.socket.recv()
            now = time.monotonic()
            message = msgspec.json.decode(raw)
            if message.get("method") == "rkllm.token":
                times.append(now)
            elif message.get("id") == identifier:
                return times, message


def request(identifier: int, method: str, params: dict[str, Any]) -> bytes:
    """A request's bytes, the same for rkvisord and for plain brokers."""
    return msgspec.json.encode({"jsonrpc": "2.0", "id": identifier, "method": method, "params": params})
