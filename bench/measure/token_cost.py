"""CPU of the broker for each streamed token, 100 clients, echo peers."""

from __future__ import annotations

import contextlib
import time

import zmq

from measure import brokers, procfs
from measure.brokers import Broker
from measure.record import Goal, Measurement
from measure.rkvisord import request

CLIENTS = 100
HOW = f"""
{CLIENTS} clients, each a DEALER of its own, stream from {CLIENTS} echo peers (bench/native/echo_peer.c) at the same
time. CPU: time on a CPU of all threads of the broker's process (schedstat), over the streams from their requests to
their last answers, divided by the tokens. 'flood': echo peers send as fast as the socket takes it. 'paced': each
stream a token every 20 ms, 5000 tokens/s in all, so that the broker sleeps and wakes between tokens. The goal is
about 'flood', as the numbers it was set beside. Clients get the same bytes from all brokers. rkvisord takes a token
of the worker's protocol, keeps its id and text for a resume and adds the client's request id; the others forward
finished messages. A value is one round. The brokers run one after another, rounds alternate.
"""
PACE_US = 20_000


class Crowd:
    """The clients of one broker."""

    def __init__(self, broker: Broker):
        self.broker = broker
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, 2 * CLIENTS)
        self._poller = zmq.Poller()
        self._sockets = []
        for _ in range(CLIENTS):
            socket = self._context.socket(zmq.DEALER)
            socket.set(zmq.RCVHWM, 0)
            socket.connect(broker.endpoint)
            self._poller.register(socket, zmq.POLLIN)
            self._sockets.append(socket)
        self._last = 0

    def stream(self, tokens: int, pace_us: int) -> float:
        """Let everyone stream *tokens*; microseconds of the broker's CPU for each."""
        self._last += 1
        params = {"model": "echo", "prompt": f"pace={pace_us} go", "max_new_tokens": tokens, "stream": True}
        before_s = procfs.cpu_s(self.broker.pid)
        for socket in self._sockets:
            socket.send(request(self._last, "rkllm.run", params))
        waiting, seen = set(self._sockets), 0
        while waiting:
            ready = self._poller.poll(30_000)
            if not ready:
                raise TimeoutError(f"{self.broker.name}: {len(waiting)} streams do not end")
            for socket, _ in ready:
                seen += self._read(socket, waiting)
        if seen != tokens * CLIENTS:
            raise RuntimeError(f"{self.broker.name} delivered {seen} tokens of {tokens * CLIENTS}")
        return (procfs.cpu_s(self.broker.pid) - before_s) / seen * 1e6

    def _read(self, socket: zmq.Socket[bytes], waiting: set[zmq.Socket[bytes]]) -> int:
        """Read what waits at *socket*; the number of tokens."""
        tokens = 0
        with contextlib.suppress(zmq.Again):
            while True:
                message = socket.recv(zmq.NOBLOCK)
                if b'"rkllm.token"' in message:
                    tokens += 1
                elif b'"result"' in message:
                    waiting.discard(socket)
                else:
                    raise RuntimeError(f"{self.broker.name} answered {message[:300]!r}")
        return tokens

    def close(self) -> None:
        """Disconnect."""
        self._context.destroy(linger=0)


def measure(*, is_quick: bool) -> Measurement:
    """See ``HOW``."""
    result = Measurement("token_cost", f"CPU of the broker for each streamed token, {CLIENTS} clients, echo peers", HOW)
    rounds, flood, paced = (2, 200, 25) if is_quick else (5, 200, 50)
    values: dict[tuple[str, str], list[float]] = {}
    for name, start in brokers.everyone().items():
        with start(CLIENTS, ()) as broker:
            crowd = Crowd(broker)
            time.sleep(1.0)  # plain brokers have no word for "all echo peers are connected"
            crowd.stream(5, 0)
            for _ in range(rounds):
                values.setdefault((name, "flood"), []).append(crowd.stream(flood, 0))
                values.setdefault((name, "paced"), []).append(crowd.stream(paced, PACE_US))
            crowd.close()
    for (name, what), costs in values.items():
        result.add(name, "µs/token", costs, what)
    for what in ("flood", "paced"):
        ours = result.find("rkvisord", what)
        for name in brokers.PLAIN:
            other = result.find(name, what)
            if ours and other:
                result.ratios[f"rkvisord / {name} ({what}, p50)"] = ours.p50 / other.p50
    ours = result.find("rkvisord", "flood")
    if ours:
        result.goals.append(Goal("broker CPU a token, flood", ours.p50, 15.0, "µs", "≤ 15 µs"))
    return result
