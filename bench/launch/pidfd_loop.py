"""The least supervisor there can be: ``pidfd_loop.py COMMAND…``, restarted as soon as its pidfd is readable."""

import os
import select
import sys

while True:
    child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
    pidfd = os.pidfd_open(child)
    select.select([pidfd], [], [])
    os.waitpid(child, 0)
    os.close(pidfd)
