"""Who may connect, and what is published to those who listen."""

import json
import stat

import pytest
import zmq

from harness.rkvisord import PATIENCE_S, Rkvisord

pytestmark = pytest.mark.security


def test_a_group_may_reach_the_client_sockets_and_nobody_else_the_private_ones() -> None:
    with Rkvisord() as server:
        run = server.folder / "run"
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [run, *run.iterdir()] if path.name != "lock"}
        assert modes == {"run": 0o750, "client.sock": 0o660, "events.sock": 0o660, "private": 0o700}
        state = server.folder / "state"
        assert stat.S_IMODE(state.stat().st_mode) == 0o700
        assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in state.rglob("*") if path.is_file())


def test_events_tell_of_a_crash_and_of_the_shutdown() -> None:
    with Rkvisord() as server, zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.connect(f"ipc://{server.folder}/run/events.sock")
        socket.subscribe(b"")
        seen: list[tuple[str, dict[str, object]]] = []

        def next_event() -> tuple[str, dict[str, object]]:
            assert socket.poll(int(PATIENCE_S * 1000)), f"no event; so far {seen}"
            topic, body = socket.recv_multipart()
            seen.append((topic.decode(), json.loads(body)))
            return seen[-1]

        with server.client() as client:
            while not socket.poll(100):  # until the subscription has arrived, a crash may go unheard
                prompt = f"[[sim:segv times=1 key=e{len(seen)}{id(object())}]]hi"
                client.call("rkllm.run", {"model": "demo", "prompt": prompt, "max_new_tokens": 2})
        topic, event = next_event()
        assert topic == "worker"
        assert {"node", "epoch", "seq", "time", "worker", "state", "before", "pid"} <= set(event)
        server.stop()
        while True:
            topic, event = next_event()
            if topic == "error" and event["code"] == "SERVER_SHUTDOWN":
                assert event["severity"] == "critical"
                break
        numbers = [event["seq"] for _, event in seen]
        assert numbers == list(range(int(str(numbers[0])), int(str(numbers[0])) + len(numbers)))
