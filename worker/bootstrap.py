"""What a process does to itself before anything else: it must not outlive rkvisord, dump core or hide its output.

These belong here and not into a ``preexec_fn``, which makes spawning from a large process slow (shared notes).
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal

from rkvisor.worker.crash import CrashNotes, set_panic_hooks

PR_SET_PDEATHSIG = 1
_IOLBF = 1


def bootstrap(parent: int, lifeline: int) -> CrashNotes:
    """Prepare this process.

    parent: pid of rkvisord; exits at once if that is no longer the parent.  lifeline: where notes of crashes go.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the call above took effect
        os._exit(0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Into a pipe, stdio would keep the runtime's last lines in a buffer that dies with the process.
    for name in ("stdout", "stderr"):
        stream = ctypes.c_void_p.in_dll(libc, name)
        libc.setvbuf(stream, None, _IOLBF, 0)
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    set_panic_hooks()
    return CrashNotes(lifeline)
