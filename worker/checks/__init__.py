"""What can be told before a runtime is loaded: of the machine, of a model's file, of its parameters, of memory.

The worker refuses to load by these checks (``worker/preflight.py``), and ``rkvisor doctor`` tells them all.
"""
