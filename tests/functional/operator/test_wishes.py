"""What an operator started or stopped stays so over a kill of rkvisord, until a stop that was asked for (design §8)."""

from __future__ import annotations

import pytest

from harness.rkvisord import Rkvisord

pytestmark = pytest.mark.resilience

MODELS = """
[models.demo]
runtime = "sim"
path = "builtin:tiny"
workers = 2
[models.manual]
runtime = "sim"
path = "builtin:tiny"
autostart = false
"""


def states(server: Rkvisord) -> dict[str, str]:
    return {worker["name"]: worker["state"] for worker in server.workers()}


def test_what_was_started_and_stopped_by_hand_outlives_a_kill_but_not_a_shutdown() -> None:
    with Rkvisord(MODELS) as server:
        configured = {"demo:0": "RUNNING", "demo:1": "RUNNING", "manual:0": "STOPPED"}
        assert states(server) == configured
        server.admin_call("admin.stop", {"names": ["demo:1"]})
        server.admin_call("admin.start", {"names": ["manual"]})
        wished = {"demo:0": "RUNNING", "demo:1": "STOPPED", "manual:0": "RUNNING"}
        assert states(server) == wished
        server.kill()
        server.start()
        assert states(server) == wished
        assert "demo:1 stays down: an operator stopped it; rkvisorctl start demo:1" in server.log.read_text()
        server.kill()
        server.start()
        assert states(server) == wished, "once more: nothing was forgotten on the way"
        assert server.stop() == 0
        server.start()
        assert states(server) == configured
