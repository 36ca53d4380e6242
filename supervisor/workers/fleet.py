"""All processes of this rkvisord: the socket they talk through, and who owns each of them.  No policy.

A message counts only if it comes from the routing id that its incarnation was given, and from the very process that was
spawned for it; everything else is dropped with a warning (design §3).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import zmq
from loguru import logger

from rkvisor.protocol import link
from rkvisor.protocol.link import Header, Kind, MalformedLink
from rkvisor.supervisor.front.channel import Channel, PeerFull, PeerGone
from rkvisor.supervisor.workers.processes import Exit, Owner, Process


class Fleet:
    """endpoint: where processes connect.  epoch: of this rkvisord.  on_call_result, on_answer: told of answers
    to calls and to questions.
    on_gone: told of every process's end, before its owner."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, epoch: str
    ):
        self._loop = loop
        self._endpoint = endpoint
        self._epoch = epoch
        self._next_incarnation = 1
        self.processes: dict[int, Process] = {}
        self.on_call_result: Callable[[Process, Header, list[bytes]], None] = lambda process, header, parts: None
        self.on_answer: Callable[[Process, Header, list[bytes]], None] = lambda process, header, parts: None
        self.on_gone: Callable[[Process], None] = lambda process: None
        socket = context.socket(zmq.ROUTER)
        socket.set(zmq.ROUTER_MANDATORY, 1)
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.SNDHWM, 10_000)
        socket.set(zmq.RCVHWM, 10_000)
        socket.bind(endpoint)
        self.channel = Channel(loop, socket, self._on_message)

    def spawn(self, owner: Owner) -> Process:
        """Exec a blank process.  Raises OSError where the kernel refuses."""
        incarnation = self._next_incarnation
        self._next_incarnation += 1
        process = Process(self._loop, self._endpoint, incarnation, self._epoch, owner, self._on_sign, self._on_exit)
        self.processes[incarnation] = process
        return process

    def send(self, process: Process, kind: Kind, *bodies: bytes, job: int = 0) -> bool:
        """Send to *process*.  False where it is gone or does not read: its death or its watchdog will tell."""
        header = link.pack(kind, process.incarnation, job)
        try:
            self.channel.send([process.routing_id, header, *bodies])
        except (PeerGone, PeerFull) as error:
            logger.debug("cannot send {} to process {}: {}", kind.name, process.pid, type(error).__name__)
            return False
        if kind == Kind.CONTROL:
            if not process.owed:
                process.owed_s = self._loop.time()
            process.owed += 1
        return True

    def _on_message(self, parts: list[bytes]) -> None:
        try:
            header = link.unpack(parts[1])
        except (IndexError, MalformedLink) as error:
            logger.warning("dropped a message from {!r}: {}", parts[0], error)
            return
        process = self.processes.get(header.incarnation)
        if process is None or process.routing_id != parts[0]:
            logger.warning("dropped a message from {!r}: no process of incarnation {}", parts[0], header.incarnation)
            return
        if header.kind == Kind.TOKEN:
            process.owner.on_job(process, header, parts)
            return
        try:
            self._on_control(process, header, parts)
        except (msgspec.DecodeError, msgspec.ValidationError, IndexError) as error:
            logger.error("process {} sent a malformed {}: {}", process.pid, header.kind, error)

    def _on_control(self, process: Process, header: Header, parts: list[bytes]) -> None:
        if header.kind == Kind.HELLO:
            hello = link.decode_hello(parts[2])
            if (hello.pid, hello.incarnation, hello.epoch) != (process.pid, process.incarnation, self._epoch):
                logger.error("refused a HELLO of pid {} for incarnation {}", hello.pid, process.incarnation)
                return
            process.has_hello = True
            process.owner.on_hello(process)
        elif not process.has_hello:
            logger.warning("dropped a message of process {} before its HELLO", process.pid)
        elif header.kind == Kind.READY:
            process.ready = link.decode_ready(parts[2])
            process.owner.on_ready(process)
        elif header.kind == Kind.LOAD_FAILED:
            process.has_failed = True
            process.owner.on_load_failed(process, link.decode_load_failed(parts[2]))
        elif header.kind == Kind.CONTROL_RESULT:
            process.owed, process.owed_s = process.owed - 1, self._loop.time()
            self.on_call_result(process, header, parts)
        elif header.kind == Kind.ANSWER:
            self.on_answer(process, header, parts)
        elif header.kind == Kind.PONG:
            process.unanswered = 0
        else:
            process.owner.on_job(process, header, parts)

    def _on_sign(self, process: Process) -> None:
        self.channel.drain()  # what it sent before still counts
        process.owner.on_sign(process)

    def _on_exit(self, process: Process, exit_: Exit) -> None:
        self.channel.drain()  # what it sent before it died still counts
        del self.processes[process.incarnation]
        self.on_gone(process)
        process.owner.on_exit(process, exit_)

    def close(self) -> None:
        """Close the socket.  The processes are ended by their owners."""
        self.channel.close()
