"""A supervised child that says when it is up: ``ready_child.py SOCKET``, or nothing to say without one.

It imports what a Python program that serves over ZeroMQ imports, but for ZeroMQ: the peers get a light child.
"""

import json  # noqa: F401
import os
import signal
import socket
import sys
import time

if len(sys.argv) > 1:
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(
        f"{os.getpid()} {time.monotonic():.6f}".encode(), sys.argv[1]
    )
while True:
    signal.pause()
