"""The client's socket: a DEALER to one endpoint and its monitor, never blocking; it feeds a ``Dialogue``.

It refuses to decide anything.  ZeroMQ's options that matter: IMMEDIATE, so that a message never waits in a pipe for a
server that is gone and reaches its successor; LINGER 0; heartbeats on TCP, because a peer whose power was cut sends no
FIN.  The monitor tells what the DEALER hides: that the connection was lost, made again, or refused.  Its queue is
unbounded and it tells of few events: one that nobody reads (a client that rests while the server is down) fills after
2000, and then stops libzmq's I/O thread, with every socket of the process (seen with libzmq 4.3.5).
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field

import zmq

from rkvisor.client.dialogue import Dialogue
from rkvisor.client.endpoint import why_unreachable
from rkvisor.client.errors import BadEndpoint

HEARTBEAT_IVL_MS = 5_000
HEARTBEAT_TIMEOUT_MS = 10_000
RECONNECT_IVL_MS = 20
RECONNECT_IVL_MAX_MS = 1_000
#: Messages read in one go, so that a busy stream does not keep the event loop from everything else.
DRAIN = 256

_EVENT = struct.Struct("=HI")
_REFUSED = {
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "the server does not accept this client's key",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "the handshake failed; does the server want a key?",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "the handshake failed; is the server's key the right one?",
}
_WATCHED = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | sum(_REFUSED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """CURVE keys, Z85 text of 40 characters: the server's public key and the client's own pair."""

    server_key: str
    public_key: str
    secret_key: str = field(repr=False)


class Wire:
    """Opens at once; connecting goes on in ZeroMQ's own thread.  Raises BadEndpoint for what is no endpoint."""

    def __init__(self, endpoint: str, keys: Keys | None = None) -> None:
        self.endpoint = endpoint
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self.socket = context.socket(zmq.DEALER)
        self.monitor = context.socket(zmq.PAIR)
        self._refused_because = ""
        options: dict[int, int | bytes] = {
            zmq.LINGER: 0,
            zmq.IMMEDIATE: 1,
            zmq.RECONNECT_IVL: RECONNECT_IVL_MS,
            zmq.RECONNECT_IVL_MAX: RECONNECT_IVL_MAX_MS,
        }
        if endpoint.startswith("tcp:"):
            options |= {zmq.HEARTBEAT_IVL: HEARTBEAT_IVL_MS, zmq.HEARTBEAT_TIMEOUT: HEARTBEAT_TIMEOUT_MS}
        if keys is not None:
            options |= {
                zmq.CURVE_SERVERKEY: keys.server_key.encode(),
                zmq.CURVE_PUBLICKEY: keys.public_key.encode(),
                zmq.CURVE_SECRETKEY: keys.secret_key.encode(),
            }
        try:
            for option, value in options.items():
                self.socket.setsockopt(option, value)
            self._watch_from_now_on()
            self.socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise BadEndpoint(f"cannot connect to {endpoint!r}: {error}", component="client") from error

    def _watch_from_now_on(self) -> None:
        address = f"inproc://rkvisor-client-monitor-{id(self):x}-{int(self.socket.getsockopt(zmq.FD))}"
        self.monitor.setsockopt(zmq.RCVHWM, 0)
        self.socket.monitor(address, _WATCHED)
        self.monitor.connect(address)

    def close(self) -> None:
        """Idempotent.  What was not sent yet is dropped."""
        if not self.socket.closed:
            self.socket.monitor(None, 0)
            self.monitor.close(linger=0)
            self.socket.close(linger=0)

    def pump(self, dialogue: Dialogue, now: float) -> bool:
        """Tell the dialogue what happened and send what it has to say, without blocking.

        Returns whether more can be read at once.  The sockets' descriptors are edge-triggered: they tell of news only
        after everything was read, so call again as long as this returns true, and after every change of ``outgoing``.
        """
        self._watch(dialogue, now)
        self._read(dialogue)
        if now >= dialogue.next_deadline:
            dialogue.unreachable_because = self._refused_because or os.strerror(why_unreachable(self.endpoint)).lower()
            dialogue.tick(now)
        self._send(dialogue)
        return _has_input(self.socket) or _has_input(self.monitor)

    def _watch(self, dialogue: Dialogue, now: float) -> None:
        while _has_input(self.monitor):
            event, _ = _EVENT.unpack(self.monitor.recv_multipart(zmq.NOBLOCK)[0])
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._refused_because = ""
                dialogue.connected(now)
            elif event == zmq.EVENT_DISCONNECTED:
                while self._read(dialogue):  # answers that came before the end still count
                    pass
                dialogue.disconnected(now)
            elif event in _REFUSED:
                self._refused_because = _REFUSED[event]

    def _read(self, dialogue: Dialogue) -> int:
        for count in range(DRAIN):
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return count
            dialogue.received(frames[0], frames[1:])
        return DRAIN

    def _send(self, dialogue: Dialogue) -> None:
        while dialogue.outgoing:
            try:
                message = dialogue.outgoing[0]
                if isinstance(message, bytes):
                    self.socket.send(message, zmq.NOBLOCK)
                else:
                    self.socket.send_multipart(message, zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            dialogue.outgoing.popleft()


def _has_input(socket: zmq.Socket[bytes]) -> bool:
    return bool(int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)
