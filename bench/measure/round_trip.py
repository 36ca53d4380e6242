"""Round trip of a request through the broker to an echo peer and back, everything pinned to one CPU."""

from __future__ import annotations

import contextlib
import os
import time

import zmq

from measure import brokers
from measure.brokers import Broker
from measure.record import Goal, Measurement
from measure.rkvisord import request

HOW = """
One client (pyzmq DEALER, blocking) sends rkllm.run and waits for the answer, one request after another; client,
broker and one echo peer (bench/native/echo_peer.c) on one CPU over ipc. The brokers run side by side and take turns
in blocks of 100 requests, so that noise of the machine meets all alike. rkvisord parses, admits, dispatches and
answers as always; the others only forward. The echo peer gives the same answer to all. Values are client-side times
of single requests.
"""
PARAMS = {"model": "echo", "prompt": "say a word to me, please, whatever it is", "max_new_tokens": 1}
BLOCK = 100


class Asker:
    """One connection to one broker."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], broker: Broker):
        self.broker = broker
        self.values_us: list[float] = []
        self._socket = context.socket(zmq.DEALER)
        self._socket.set(zmq.RCVTIMEO, 30_000)
        self._socket.connect(broker.endpoint)
        self._last = 0

    def ask(self, n: int, *, is_counted: bool = True) -> None:
        """*n* requests, one after another."""
        socket = self._socket
        for _ in range(n):
            self._last += 1
            message = request(self._last, "rkllm.run", PARAMS)
            begun = time.perf_counter()
            socket.send(message)
            answer = socket.recv()
            took = time.perf_counter() - begun
            if b'"result"' not in answer:
                raise RuntimeError(f"{self.broker.name} answered {answer[:300]!r}")
            if is_counted:
                self.values_us.append(took * 1e6)


def measure(*, is_quick: bool) -> Measurement:
    """See ``HOW``."""
    result = Measurement("round_trip", "Round trip through the broker to an echo peer, ipc, one CPU", HOW)
    cpu = [max(os.sched_getaffinity(0))]
    rounds = 10 if is_quick else 50
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(start(1, cpu)) for start in brokers.everyone().values()]
        stack.enter_context(brokers.pinned(cpu))
        askers = [Asker(context, broker) for broker in started]
        for asker in askers:
            asker.ask(BLOCK, is_counted=False)
        for _ in range(rounds):
            for asker in askers:
                asker.ask(BLOCK)
        context.destroy(linger=0)
    series = [result.add(asker.broker.name, "µs", asker.values_us) for asker in askers]
    ours, proxy = series[0], series[1]
    if ours and proxy:
        for other in filter(None, series[1:]):
            result.ratios[f"rkvisord / {other.who} (p50)"] = ours.p50 / other.p50
        result.goals.append(Goal("round trip, p50", ours.p50 / proxy.p50, 2.5, "× zmq.proxy", "≤ 2.5 × zmq.proxy"))
    return result
