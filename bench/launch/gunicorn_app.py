"""gunicorn's configuration and application: a worker that says when it is up, or one that dies at once."""

import os
import signal
import socket
import time


def post_worker_init(worker):  # type: ignore[no-untyped-def]
    """The worker has loaded the application and is about to serve."""
    path = os.environ.get("BENCH_READY")
    if path:
        text = f"{os.getpid()} {time.monotonic():.6f}"
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(text.encode(), path)


def serving(environ, start_response):  # type: ignore[no-untyped-def]
    """Answers nothing of interest."""
    start_response("204 No Content", [])
    return []


def __getattr__(name):  # type: ignore[no-untyped-def]
    if name != "doomed":
        raise AttributeError(name)
    with open(os.environ["BENCH_COUNT"], "ab", buffering=0) as count:  # noqa: PTH123
        count.write(b"x")
    os.kill(os.getpid(), signal.SIGSEGV)
