"""rkvisorctl's line to the admin socket: one question after the other, as cheap to import as can be.

JSON-RPC 2.0 over a DEALER, with the standard library's JSON.  A start or stop may take minutes, so an answer is waited
for as long as the connection lives; the socket's monitor tells when it does not.
"""

from __future__ import annotations

import errno
import json
import struct
import time
from typing import Any

import zmq

from rkvisor.client.endpoint import why_unreachable

#: A healthy rkvisord answers ``system.version`` within a millisecond.
UPCHECK_S = 5.0
_EVENT = struct.Struct("=HI")


class Unreachable(Exception):
    """No rkvisord at the endpoint.  reason: supervisorctl's words.  errno: ENOENT, EACCES, ECONNREFUSED, ETIMEDOUT."""

    def __init__(self, endpoint: str, number: int) -> None:
        reasons = {
            errno.ENOENT: "no such file",
            errno.ENOTDIR: "no such file",
            errno.EACCES: "permission denied",
            errno.ECONNREFUSED: "refused connection",
            errno.ETIMEDOUT: f"does not answer (waited {UPCHECK_S:g} s)",
            errno.ECONNRESET: "closed the connection",
        }
        self.errno = number
        self.reason = f"{endpoint} {reasons.get(number, 'cannot be reached')}"
        super().__init__(self.reason)


class Refused(Exception):
    """The server answered with an error.  name: of the catalogue (``protocol.errors``)."""

    def __init__(self, error: dict[str, Any]) -> None:
        data = error.get("data")
        self.name = str(data.get("name", "")) if isinstance(data, dict) else ""
        super().__init__(str(error.get("message", "no message")))


class AdminLink:
    """Connects when first asked."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._socket: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        self._last_id = 0

    def call(self, method: str, params: dict[str, Any] | None = None, *, timeout_s: float | None = None) -> Any:
        """Ask and wait.  timeout_s: None waits as long as the connection lives.

        Raises:
            Unreachable: no connection, or it ended before the answer.
            Refused: the server's error.
        """
        socket = self._socket or self._connect()
        self._last_id += 1
        request = {"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": params or {}}
        socket.send(json.dumps(request).encode(), zmq.NOBLOCK)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            reply = json.loads(self._receive(socket, deadline))
            if reply.get("id") == self._last_id:
                break
        if "error" in reply:
            raise Refused(reply["error"])
        return reply["result"]

    def _connect(self) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        self._socket = socket
        socket.setsockopt(zmq.LINGER, 0)
        self._monitor = socket.get_monitor_socket(zmq.EVENT_CONNECT_RETRIED | zmq.EVENT_DISCONNECTED)
        try:
            socket.connect(self.endpoint)
        except zmq.ZMQError as error:
            raise Unreachable(self.endpoint, error.errno or 0) from error
        return socket

    def _receive(self, socket: zmq.Socket[bytes], deadline: float | None) -> bytes:
        assert self._monitor is not None
        while True:
            remaining_ms = -1 if deadline is None else max(0, int((deadline - time.monotonic()) * 1000))
            ready = zmq.zmq_poll([(socket, zmq.POLLIN), (self._monitor, zmq.POLLIN)], remaining_ms)
            if not ready:
                raise Unreachable(self.endpoint, errno.ETIMEDOUT)
            if any(one is socket for one, _ in ready):
                return socket.recv_multipart()[0]
            event, _ = _EVENT.unpack(self._monitor.recv_multipart()[0])
            if event == zmq.EVENT_DISCONNECTED:
                raise Unreachable(self.endpoint, errno.ECONNRESET)
            raise Unreachable(self.endpoint, why_unreachable(self.endpoint))
