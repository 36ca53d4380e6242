"""Started by rkvisord only:
``python -P -m rkvisor.worker ENDPOINT INCARNATION EPOCH LIFELINE_FD PARENT_PID PAGE_FD``.
"""

from rkvisor.worker.main import main

main()
