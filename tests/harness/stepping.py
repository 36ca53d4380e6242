"""``python -P -m harness.stepping FD LOOPS``: writes the page in the memory of descriptor FD, over and over.

Loop n is the run n: it is begun, calls back at n seconds, and comes to its end with n bytes resident.
"""

import mmap
import sys

from rkvisor.protocol.page import SIZE_BYTES, Page


def write(fd: int, loops: int) -> None:
    """Write it LOOPS times, from 1 on."""
    page = Page(mmap.mmap(fd, SIZE_BYTES))
    for number in range(1, loops + 1):
        page.begin(number)
        page.step(number, float(number))
        page.served(number, number, 1, 1)
        page.count(number, number)


if __name__ == "__main__":
    write(int(sys.argv[1]), int(sys.argv[2]))
