"""What an admin's signals do to rkvisord."""

import signal
from typing import Any

from harness.rkvisord import Rkvisord


def sent(server: Rkvisord, number: signal.Signals, line: str) -> Any:
    assert server.process is not None
    server.process.send_signal(number)
    server.wait_until(lambda: line in server.log.read_text(), line)


def test_hangup_and_user_signals_leave_it_running_and_say_something() -> None:
    with Rkvisord() as server, server.client() as client:
        before = [worker["pid"] for worker in server.workers()]
        sent(server, signal.SIGHUP, "can be used; changes take effect when rkvisord is started again")
        sent(server, signal.SIGUSR1, "model demo: 0 waiting, circuit closed")
        sent(server, signal.SIGUSR2, "demo:1: RUNNING pid")
        good = server.config.read_text()
        server.config.write_text(good + "\nworkerz = 3\n")
        sent(server, signal.SIGHUP, "'workerz' is not a key of [models.demo]; did you mean 'workers'?")
        assert (
            client.call("rkllm.run", {"model": "demo", "prompt": "hi", "max_new_tokens": 2})["finish_reason"]
            == "length"
        )
        assert [worker["pid"] for worker in server.workers()] == before


def test_a_second_sigterm_does_not_wait_for_requests() -> None:
    with Rkvisord() as server, server.client() as client:
        client.send("rkllm.run", {"model": "demo", "prompt": "[[sim:slow ms=500]]hi", "max_new_tokens": 500})
        server.wait_until(lambda: client.call("rkllm.is_running", {})["is_running"])
        assert server.process is not None
        server.process.send_signal(signal.SIGTERM)
        server.wait_until(lambda: "1 request(s) may finish" in server.log.read_text())
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(9) == 0  # stopwaitsecs is 10
        assert not (server.folder / "run" / "client.sock").exists()
