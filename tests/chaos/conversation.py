"""A client that trusts nobody: a plain DEALER that keeps all it hears and remembers every id it ever used."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import zmq

from chaos.rules import Heard


class Conversation:
    """One connection.  violations: what came and was owed to nobody (late, twice, under an unknown id)."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str):
        self._socket = context.socket(zmq.DEALER)
        self._socket.set(zmq.LINGER, 0)
        self._socket.connect(endpoint)
        self._ids = itertools.count(1)
        self._heard: dict[int, Heard] = {}
        self.violations: list[str] = []

    def ask(self, method: str, **params: Any) -> Heard:
        """Send a request; what is heard of it appears in the result."""
        identifier = next(self._ids)
        heard = self._heard[identifier] = Heard(bool(params.get("stream")))
        message = {"jsonrpc": "2.0", "id": identifier, "method": method, "params": params}
        self._socket.send(json.dumps(message).encode())
        return heard

    def call(self, method: str, patience_s: float, **params: Any) -> Any:
        """The result of one call.  Raises RuntimeError for an error, TimeoutError."""
        heard = self.ask(method, **params)
        if not self.listen(lambda: bool(heard.ends), patience_s):
            raise TimeoutError(f"no answer to {method} within {patience_s} s")
        if heard.error is not None:
            raise RuntimeError(f"{method}: {heard.error}")
        return heard.ends[0]["result"]

    def listen(self, is_enough: Callable[[], bool], patience_s: float) -> bool:
        """Take in what comes until *is_enough*; False when patience ends first."""
        until_s = time.monotonic() + patience_s
        while True:
            while self._socket.poll(0):
                self._take(json.loads(self._socket.recv_multipart()[0]))
            if is_enough():
                return True
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                return False
            self._socket.poll(min(10, int(left_s * 1000) + 1))

    def await_ends(self, asked: Sequence[Heard], patience_s: float) -> bool:
        """Listen until each of *asked* has ended."""
        return self.listen(lambda: all(heard.ends for heard in asked), patience_s)

    def _take(self, message: dict[str, Any]) -> None:
        is_note = "method" in message
        identifier: Any = message["params"]["request"] if is_note else message.get("id")
        heard = self._heard.get(identifier)
        if heard is None:
            self.violations.append(f"a message for nobody: {message}")
        elif heard.ends:
            self.violations.append(f"a message after the end of request {identifier}: {message}")
        elif not is_note:
            heard.ends.append(message)
        elif message["method"] == "rkllm.token":
            heard.tokens.append(message["params"])

    def forget(self) -> None:
        """Forget the texts of what is over, but not that it is."""
        for heard in self._heard.values():
            if heard.ends:
                heard.tokens, heard.ends = [], [{}]

    def close(self) -> None:
        self._socket.close()
