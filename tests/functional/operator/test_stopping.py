"""A worker that is told to stop stops at once, whatever it was doing at that moment (design §5)."""

import pytest

from harness import processes
from harness.rkvisord import Rkvisord

pytestmark = pytest.mark.resilience
DEMO = '[models.demo]\nruntime = "sim"\npath = "builtin:tiny"\nworkers = 2\n'
ROUNDS = 60


def test_a_sigterm_is_heard_at_every_moment_between_two_waits() -> None:
    """It came to nothing when it fell between the last look at signals and the wait: 1 stop in 80 was a SIGKILL."""
    with Rkvisord(DEMO) as server, server.client() as client, server.client(server.admin) as admin:
        for _ in range(ROUNDS):
            for number in range(3):
                client.send("rkllm.run", {"model": "demo", "prompt": f"hi {number}", "max_new_tokens": 8})
            admin.call("admin.stop", {"names": ["demo:0"]})
            admin.call("admin.start", {"names": ["demo:0"]})
            for _ in range(3):
                assert "result" in client.receive()
        assert "ended with SIGKILL" not in server.log.read_text()


def running(server: Rkvisord) -> str:
    """The worker that runs a request."""
    for worker in server.workers():
        if processes.is_running(worker["pid"]):
            return str(worker["name"])
    raise AssertionError("no worker runs anything")


@pytest.mark.parametrize("can_force", [True, False])
def test_what_a_stopped_worker_cannot_finish_in_time_goes_on_with_another_one(can_force: bool) -> None:
    """A planned stop is no worse for a client than a crash."""
    more = (
        f"faults = true\nstopwaitsecs = 0.2\nforce_tokens = {str(can_force).lower()}\nparam = {{ temperature = 0.0 }}\n"
    )
    asked = {"model": "demo", "prompt": "[[sim:slow ms=20]]tell me", "max_new_tokens": 60}
    with Rkvisord(DEMO + more) as server, server.client() as client:
        plain = client.call("rkllm.run", asked)
        identifier = client.send("rkllm.run", {**asked, "stream": True})
        assert client.receive()["params"]["seq"] == 0
        stopped = running(server)
        server.admin_call("admin.stop", {"names": [stopped]})
        result = client.result(identifier)
        assert (result["text"], result["finish_reason"]) == (plain["text"], plain["finish_reason"])
        assert (result["resumed"], result["worker"] != stopped) == (1, True)
        assert server.call("system.crashes")["crashes"] == []


@pytest.mark.parametrize(("workers", "retry"), [(1, "auto"), (2, "never")])
def test_where_nobody_may_go_on_with_it_it_ends_as_aborted(workers: int, retry: str) -> None:
    more = "faults = true\nstopwaitsecs = 0.2\n"
    asked = {"model": "demo", "prompt": "[[sim:slow ms=20]]tell me", "max_new_tokens": 60, "retry": retry}
    with Rkvisord(DEMO.replace("workers = 2", f"workers = {workers}") + more) as server, server.client() as client:
        identifier = client.send("rkllm.run", {**asked, "stream": True})
        assert client.receive()["params"]["seq"] == 0
        server.admin_call("admin.stop", {"names": [running(server)]})
        assert client.result(identifier)["finish_reason"] == "abort"
