"""A call that configures a model does so on all of its workers or on none; what a new worker cannot take is told."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from harness.api import Api, model
from harness.rkvisord import PATIENCE_S, Rkvisord, RpcError

pytestmark = [pytest.mark.api, pytest.mark.resilience]

SLOW = 'name = "slow"\nvocab_size = 1024\nembedding_size = 64\ntoken_ms = 20.0\n'


@pytest.fixture
def api() -> Iterator[Api]:
    folder = Path(tempfile.mkdtemp(prefix="rkvc"))
    for name in ("lora", "caches"):
        (folder / name).mkdir()
    (folder / "lora" / "a.bin").write_bytes(b"adapter")
    (folder / "slow.toml").write_text(SLOW)
    slow = model("demo", "f5", "workers = 2").replace("builtin:tiny", "slow.toml")
    slow = slow.replace("max_new_tokens = 8", "max_new_tokens = 400")
    with Rkvisord(slow, folder=folder, supervisor="fault_window_s = 0") as server:
        connection = Api(server, "f5")
        yield connection
        connection.close()
    shutil.rmtree(folder)


def styled(api: Api, **params: object) -> str:
    """The text of a short run, or why there is none."""
    try:
        return str(api.run(prompt=" tell", max_new_tokens=3, **params)["text"])
    except RpcError as error:
        return f"error {error.name}"


def busy(api: Api) -> int:
    """A request that keeps one of the two workers."""
    identifier = api.send("rkllm.run", {"model": "demo", "prompt": " tell", "stream": True})
    api.receive()
    return identifier


def test_a_call_that_one_worker_cannot_do_is_taken_back_on_the_other(api: Api) -> None:
    other = Api(api.server, "f5")
    plain = styled(other)
    running = busy(api)
    call = other.send("rkllm.load_lora", {"model": "demo", "path": "a.bin", "name": "style"})
    third = Api(api.server, "f5")
    api.server.wait_until(lambda: not styled(third, lora="style").startswith("error"), "the idle worker's adapter")
    (api.server.folder / "lora" / "a.bin").unlink()  # the worker that is busy will not find it
    api.send("rkllm.abort", {"request": running})
    with pytest.raises(RpcError, match=r"on demo:\d; not on demo:\d") as caught:
        other.answer(call)
    data = caught.value.error["data"]
    assert data["source"] == "RKLLM"
    assert sorted(data["failed"] + data["taken_back"]) == ["demo:0", "demo:1"]
    run = {"jsonrpc": "2.0", "method": "rkllm.run", "params": {"model": "demo", "prompt": " tell", "lora": "style"}}
    other.send_raw(json.dumps([{**run, "id": number} for number in range(2)]).encode())  # one for each worker
    answers, _ = other.receive()
    assert [one["error"]["code"] for one in answers] == [-32602, -32602], "no worker has it"
    assert styled(other) == styled(other) == plain
    assert other.call("model.info", {"model": "demo"})["troubles"] == []
    for one in (other, third):
        one.close()


def test_what_a_new_worker_cannot_take_is_an_event_and_stands_in_model_info(api: Api) -> None:
    api.call("rkllm.load_lora", {"model": "demo", "path": "a.bin", "name": "style"})
    (api.server.folder / "lora" / "a.bin").unlink()
    events = zmq.Context.instance().socket(zmq.SUB)
    events.connect(f"ipc://{api.server.folder}/run/events.sock")
    events.subscribe(b"error")
    assert events.poll(0) == 0
    while not api.call("model.info", {"model": "demo"})["troubles"]:
        pid = api.pids()[0]
        os.kill(pid, signal.SIGKILL)
        api.server.wait_until(lambda gone=pid: api.pids()[0] not in (0, gone), "the successor")  # type: ignore[misc]
        api.server.wait_until(lambda: api.server.workers()[0]["state"] == "RUNNING", "its start")
        styled(api), styled(api)
    (trouble,) = api.call("model.info", {"model": "demo"})["troubles"]
    assert trouble.startswith("demo:0: cannot be configured as its model is")
    told = []
    while events.poll(int(PATIENCE_S * 1000)):
        event = json.loads(events.recv_multipart()[1])
        told.append(event["message"])
        if "cannot be configured" in event["message"]:
            assert event["component"] == "demo:0"
            break
    assert "cannot be configured" in told[-1]
    events.close()
