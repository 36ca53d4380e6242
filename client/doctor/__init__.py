"""``rkvisor doctor``: what this machine and a configuration lack, and how to mend it.  Loads no model, asks no server.

The rules are pure (``worker/checks`` and ``report``); these modules bring them what is there.
"""
