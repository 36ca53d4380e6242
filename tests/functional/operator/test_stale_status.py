"""A status is answered at once whatever the workers do, and says where it is old (S4.2, S4.9)."""

from __future__ import annotations

import os
import signal

import pytest

from harness.rkvisord import Rkvisord

pytestmark = pytest.mark.resilience

MODEL = """
[models.demo]
runtime = "sim"
path = "builtin:tiny"
workers = 2
"""


def test_the_status_of_a_worker_that_does_not_answer_is_stale_until_it_is_replaced() -> None:
    with Rkvisord(MODEL, supervisor="budget_scale = 0.2") as server:
        stopped, other = server.workers()
        assert (stopped["is_stale"], other["is_stale"]) == (False, False)
        os.kill(stopped["pid"], signal.SIGSTOP)
        server.wait_until(lambda: server.workers()[0]["is_stale"])
        assert server.workers()[0]["pid"] == stopped["pid"]
        assert not server.workers()[1]["is_stale"]
        server.wait_until(lambda: server.workers()[0]["pid"] not in (0, stopped["pid"]))
        server.wait_until(lambda: not any(worker["is_stale"] for worker in server.workers()))
