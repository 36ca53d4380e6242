"""The brokers that rkvisord is compared with: ``broker.py proxy|asyncio|add_reader FRONT BACK``.

They only forward, without looking into a message: ROUTER for clients, DEALER for echo peers.  So they are the
floor that a broker in C (proxy) or Python stands on.
"""

from __future__ import annotations

import asyncio
import sys

import zmq
import zmq.asyncio

#: As rkvisord's (supervisor/front/channel.py).
DRAIN_BUDGET = 256


def sockets(context: zmq.Context, front: str, back: str) -> tuple[zmq.Socket, zmq.Socket]:  # type: ignore[type-arg]
    """Both sockets, bound, with rkvisord's high-water marks."""
    router, dealer = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    for socket, endpoint in ((router, front), (dealer, back)):
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.SNDHWM, 100_000)
        socket.set(zmq.RCVHWM, 10_000)
        socket.bind(endpoint)
    return router, dealer


def proxy(front: str, back: str) -> None:
    """libzmq's own, in C."""
    zmq.proxy(*sockets(zmq.Context(), front, back))


async def through_asyncio(front: str, back: str) -> None:
    """One coroutine a direction."""
    router, dealer = sockets(zmq.asyncio.Context(), front, back)

    async def forward(source: zmq.asyncio.Socket, target: zmq.asyncio.Socket) -> None:
        while True:
            await target.send_multipart(await source.recv_multipart())

    await asyncio.gather(forward(router, dealer), forward(dealer, router))


async def through_add_reader(front: str, back: str) -> None:
    """ZeroMQ's FD on the loop and a bounded drain, as rkvisord does it."""
    loop = asyncio.get_running_loop()
    router, dealer = sockets(zmq.Context(), front, back)

    def drain(source: zmq.Socket, target: zmq.Socket) -> None:  # type: ignore[type-arg]
        try:
            for _ in range(DRAIN_BUDGET):
                parts = source.recv_multipart(zmq.NOBLOCK)
                target.send_multipart(parts)  # may wait for the first echo peer to connect
            loop.call_soon(drain, source, target)
        except zmq.Again:
            if target.get(zmq.EVENTS) & zmq.POLLIN:  # the send may have swallowed its edge
                loop.call_soon(drain, target, source)

    for source, target in ((router, dealer), (dealer, router)):
        loop.add_reader(source.FD, drain, source, target)
        loop.call_soon(drain, source, target)
    await asyncio.Event().wait()


def main() -> None:
    """Be the broker of that kind until killed."""
    kind, front, back = sys.argv[1:4]
    if kind == "proxy":
        proxy(front, back)
    asyncio.run((through_asyncio if kind == "asyncio" else through_add_reader)(front, back))


if __name__ == "__main__":
    main()
