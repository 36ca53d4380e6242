"""A real rkvisord in a directory of its own, and a plain ZeroMQ client that speaks JSON-RPC to it.

Deadlines come from one unit: ``RKVISOR_TEST_UNIT_S`` (seconds, default 1) scales all of them on slow machines.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import zmq

UNIT_S = float(os.environ.get("RKVISOR_TEST_UNIT_S", "1"))
#: How long anything may take before a test gives up on it.
PATIENCE_S = 30 * UNIT_S

DEMO = """
[models.demo]
runtime = "sim"
path = "builtin:tiny"
workers = 2
faults = true
"""


class Rkvisord:
    """Context manager: up inside.  models: TOML of the model sections.  supervisor, listen: lines of these."""

    def __init__(self, models: str = DEMO, *, supervisor: str = "", listen: str = "", folder: Path | None = None):
        self._made = tempfile.TemporaryDirectory(prefix="rkv") if folder is None else None
        self.folder = Path(self._made.name) if self._made is not None else folder
        assert self.folder is not None
        self.config = self.folder / "rkvisor.toml"
        if not listen:
            listen = 'clients = ["ipc://run/client.sock"]'
        self.config.write_text(f"[supervisor]\n{supervisor}\n[listen]\n{listen}\n{models}")
        self.endpoint = f"ipc://{self.folder}/run/client.sock"
        self.admin = f"ipc://{self.folder}/run/private/admin.sock"
        self.log = self.folder / "rkvisord.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException as error:  # nobody calls __exit__ then
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def start(self, *, wait: bool = True, stderr: int | None = None) -> None:
        """Start the daemon and wait until every autostarted worker runs or is FATAL.  stderr: else ``log``."""
        words = [sys.executable, "-P", "-m", "rkvisor.supervisor.daemon", "--log-level", "debug"]
        with self.log.open("ab") as log:
            errors = log.fileno() if stderr is None else stderr
            self.process = subprocess.Popen([*words, "-c", str(self.config)], stdout=log, stderr=errors)
        if wait:
            self.wait_until(lambda: all(w["state"] in ("RUNNING", "FATAL", "STOPPED") for w in self.workers()))

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def client(self, endpoint: str | None = None, kind: int = zmq.DEALER) -> Client:
        """A new connection."""
        return Client(self._context, endpoint or self.endpoint, kind)

    def call(self, method: str, params: Any = None) -> Any:
        """The result of one call on a connection of its own."""
        with self.client() as client:
            return client.call(method, params)

    def admin_call(self, method: str, params: Any = None) -> Any:
        """The result of one call on the admin socket."""
        with self.client(self.admin) as client:
            return client.call(method, params)

    def workers(self) -> list[dict[str, Any]]:
        """Of all models, as ``system.status`` lists them."""
        return [worker for model in self.call("system.status")["models"] for worker in model["workers"]]

    def wait_until(self, condition: Callable[[], bool], what: str = "the condition") -> None:
        """Look every 10 ms until *condition* holds; fail after ``PATIENCE_S``."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            assert self.process is None or self.process.poll() is None, f"rkvisord ended:\n{self.log.read_text()}"
            if condition():
                return
            time.sleep(0.01)
        raise AssertionError(f"{what} did not come true; log:\n{self.log.read_text()[-4000:]}")

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def kill(self) -> None:
        """SIGKILL, as a crash of rkvisord."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._context.destroy(linger=0)
        if error is not None and self.log.exists():
            print(self.log.read_text()[-8000:], file=sys.stderr)
        if self._made is not None:
            self._made.cleanup()


class RpcError(Exception):
    """An error response; ``name`` is ``error.data.name``."""

    def __init__(self, error: dict[str, Any]):
        super().__init__(f"{error['code']} {error['message']}")
        self.error = error
        self.code = error["code"]
        self.name = error.get("data", {}).get("name")


class Client:
    """A plain DEALER (or REQ), without any of rkvisor's own client code."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, kind: int = zmq.DEALER):
        self.socket = context.socket(kind)
        self.socket.set(zmq.LINGER, 0)
        self.socket.connect(endpoint)
        self._ids = itertools.count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send_raw(self, *frames: bytes) -> None:
        self.socket.send_multipart(frames)

    def send(self, method: str, params: Any = None, identifier: Any = None) -> Any:
        """Send a request; returns its id."""
        identifier = next(self._ids) if identifier is None else identifier
        message = {"jsonrpc": "2.0", "id": identifier, "method": method}
        if params is not None:
            message["params"] = params
        self.send_raw(json.dumps(message).encode())
        return identifier

    def receive_raw(self, timeout_s: float = PATIENCE_S) -> list[bytes]:
        """The frames of the next message.  Raises TimeoutError."""
        if not self.socket.poll(int(timeout_s * 1000)):
            raise TimeoutError("no message")
        return self.socket.recv_multipart()

    def receive(self, timeout_s: float = PATIENCE_S) -> Any:
        return json.loads(self.receive_raw(timeout_s)[0])

    def result(self, identifier: Any) -> Any:
        """Wait for the response to *identifier*, passing over notifications.  Raises RpcError."""
        while True:
            message = self.receive()
            if message.get("id") == identifier and "method" not in message:
                if "error" in message:
                    raise RpcError(message["error"])
                return message["result"]

    def call(self, method: str, params: Any = None) -> Any:
        return self.result(self.send(method, params))

    def stream(self, on_token: Callable[[int], None] | None = None, **params: Any) -> tuple[list[dict[str, Any]], Any]:
        """Run with stream = true: (params of every token notification, result).  Raises RpcError.

        on_token is called with the number of tokens seen, after each.
        """
        identifier = self.send("rkllm.run", {**params, "stream": True})
        tokens: list[dict[str, Any]] = []
        for message in self._messages():
            if message.get("method") == "rkllm.token":
                tokens.append(message["params"])
                if on_token is not None:
                    on_token(len(tokens))
            elif message.get("id") == identifier:
                if "error" in message:
                    raise RpcError(message["error"])
                return tokens, message["result"]
        raise AssertionError("unreachable")

    def _messages(self) -> Iterator[Any]:
        while True:
            yield self.receive()
