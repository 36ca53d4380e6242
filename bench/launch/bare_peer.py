"""A bare pyzmq ROUTER that answers every message with a small frame and one of *size* bytes.

python -P bench/launch/bare_peer.py ENDPOINT SIZE copy|share
"""

from __future__ import annotations

import sys

import zmq


def main() -> None:
    """Serve until killed."""
    endpoint, size, how = sys.argv[1:]
    data = bytes(range(256)) * (int(size) // 256)
    socket: zmq.Socket[bytes] = zmq.Context().socket(zmq.ROUTER)
    socket.bind(endpoint)
    while True:
        key, _ = socket.recv_multipart()
        socket.send_multipart([key, b"{}", data], copy=how == "copy")


if __name__ == "__main__":
    main()
