"""A model that is not well spares its clients: their requests go to its fallback, or are refused (S2.27, S3.6)."""

from __future__ import annotations

import json

import pytest
import zmq

from harness.rkvisord import Rkvisord, RpcError

pytestmark = pytest.mark.resilience

MODELS = """
[models.demo]
runtime = "sim"
path = "builtin:tiny"
workers = 2
health_threshold = 0.6
degraded_mode = "{mode}"
fallback = "other"
[models.user]
runtime = "sim"
path = "builtin:tiny"
depends_on = ["demo"]
degraded_mode = "refuse"
[models.other]
runtime = "sim"
path = "builtin:tiny"
"""


def status(server: Rkvisord) -> dict[str, tuple[float, str | None]]:
    return {one["name"]: (one["health"], one["degraded_by"]) for one in server.call("system.status")["models"]}


@pytest.mark.parametrize("mode", ["fallback", "announce"])
def test_half_a_model_is_degraded_until_its_worker_is_back(mode: str) -> None:
    with Rkvisord(MODELS.format(mode=mode)) as server, server.client() as client:
        server.wait_until(lambda: set(status(server).values()) == {(1.0, None)})
        watcher = server._context.socket(zmq.SUB)
        watcher.subscribe(b"error")
        watcher.connect(f"ipc://{server.folder}/run/events.sock")
        server.admin_call("admin.stop", {"names": ["demo:1"]})
        assert status(server) == {"demo": (0.5, "demo"), "user": (1.0, "demo"), "other": (1.0, None)}
        result = client.call("rkllm.run", {"model": "demo", "prompt": "x", "max_new_tokens": 2})
        served = ("other:0", True) if mode == "fallback" else ("demo:0", False)
        assert (result["worker"], result["degraded"]) == served
        with pytest.raises(RpcError) as caught:
            client.call("rkllm.run", {"model": "user", "prompt": "x"})
        assert caught.value.error["data"]["name"] == "MODEL_UNAVAILABLE"
        assert "degraded by the health of 'demo'" in caught.value.error["message"]
        server.admin_call("admin.stop", {"names": ["other"]})
        result = client.call("rkllm.run", {"model": "demo", "prompt": "x", "max_new_tokens": 2})
        assert result["worker"] == "demo:0", "half a model is better than none"
        server.admin_call("admin.start", {"names": ["demo:1"]})
        assert status(server)["user"] == (1.0, None)
        result = client.call("rkllm.run", {"model": "demo", "prompt": "x", "max_new_tokens": 2})
        assert (result["worker"][:4], result["degraded"]) == ("demo", False)
        told = []
        while watcher.poll(2000) and not told.count(("FEATURE_RESTORED", "user")):
            event = json.loads(watcher.recv_multipart()[1])
            told.append((event["code"], event["component"]))
        assert [one for one in told if one[1] == "user"] == [("FEATURE_DEGRADED", "user"), ("FEATURE_RESTORED", "user")]
        watcher.close()


def test_where_the_fallback_is_down_too_both_are_named() -> None:
    with Rkvisord(MODELS.format(mode="announce")) as server, server.client() as client:
        server.admin_call("admin.stop", {"names": ["all"]})
        with pytest.raises(RpcError) as caught:
            client.call("rkllm.run", {"model": "demo", "prompt": "x"})
        error = caught.value.error
        assert (error["data"]["name"], error["data"]["component"]) == ("MODEL_UNAVAILABLE", "demo")
        own, other = error["message"].split("; its fallback: ")
        assert "'demo'" in own
        assert "'other'" in other
