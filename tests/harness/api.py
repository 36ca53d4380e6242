"""A server of one ABI family, and a client whose calls take and give attachments."""

from __future__ import annotations

import itertools
import json
import os
import signal
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import zmq

from harness.rkvisord import Client, Rkvisord, RpcError

FAMILIES = ("f1", "f3", "f4", "f5")
WIDTH, VOCABULARY = 64, 1024  # of builtin:tiny

#: A request's usual end: short, greedy on every family.
TEMPLATE = """
[models.{name}]
runtime = "sim"
path = "builtin:tiny"
library = "{family}"
spares = 0
faults = true
lora_dir = "lora"
prompt_cache_dir = "caches"
{more}
"""


def model(name: str, family: str, more: str = "", param: str = "") -> str:
    """A model's section.  param: further members of RKLLMParam, as in an inline table."""
    members = ", ".join(
        part for part in ("temperature = 0.0, max_new_tokens = 8, max_context_len = 512", param) if part
    )
    return TEMPLATE.format(name=name, family=family, more=f"{more}\nparam = {{ {members} }}")


def floats(*numbers: float) -> bytes:
    """As float32."""
    return array("f", numbers).tobytes()


def ints(*numbers: int) -> bytes:
    """As int32."""
    return array("i", numbers).tobytes()


def ref(attachment: int, *shape: int, **more: Any) -> dict[str, Any]:
    """How params describe an attachment."""
    return {"attachment": attachment, "shape": list(shape), **more}


@dataclass(frozen=True)
class Answer:
    """A result and its attachments."""

    result: Any
    attachments: list[bytes]

    def __getitem__(self, name: str) -> Any:
        return self.result[name]

    def rows(self, name: str) -> list[list[float]]:
        """The tensor *name* of the result, however it came."""
        tensor = self.result[name]
        height, width = tensor["shape"]
        if "rows" in tensor:
            assert len(tensor["rows"]) == height
            return list(tensor["rows"])
        numbers = array("f", self.attachments[tensor["attachment"]])
        assert len(numbers) == height * width
        return [list(numbers[at * width : (at + 1) * width]) for at in range(height)]


class Api:
    """One connection to *server*, whose models are of *family*."""

    def __init__(self, server: Rkvisord, family: str):
        self.server = server
        self.family = family
        self._client = Client(zmq.Context.instance(), server.endpoint)
        self._ids = itertools.count(1)

    def send(self, method: str, params: Any, *attachments: bytes) -> int:
        """Send a request; returns its id."""
        identifier = next(self._ids)
        body = {"jsonrpc": "2.0", "id": identifier, "method": method, "params": params}
        self._client.send_raw(json.dumps(body).encode(), *attachments)
        return identifier

    def send_raw(self, *frames: bytes) -> None:
        """Send *frames* as they are."""
        self._client.send_raw(*frames)

    def receive(self) -> tuple[Any, list[bytes]]:
        """The next message: JSON and attachments."""
        body, *attachments = self._client.receive_raw()
        return json.loads(body), attachments

    def answer(self, identifier: int) -> Answer:
        """The answer to *identifier*; others that come meanwhile are passed over.  Raises RpcError."""
        while True:
            message, attachments = self.receive()
            if message.get("id") == identifier:
                if "error" in message:
                    assert not attachments
                    raise RpcError(message["error"])
                return Answer(message["result"], attachments)

    def call(self, method: str, params: Any = None, *attachments: bytes) -> Answer:
        """Raises RpcError."""
        return self.answer(self.send(method, params if params is not None else {}, *attachments))

    def run(self, *attachments: bytes, model: str = "demo", **params: Any) -> Answer:
        """``rkllm.run``.  Raises RpcError."""
        return self.call("rkllm.run", {"model": model, **params}, *attachments)

    def text(self, model: str, prompt: str = "tell me", **params: Any) -> str:
        """The text of a run."""
        return str(self.run(model=model, prompt=prompt, **params)["text"])

    def texts(self, model: str, count: int, **params: Any) -> set[str]:
        """The texts of *count* runs at once: with as many workers, one of each."""
        sent = [self.send("rkllm.run", {"model": model, "prompt": "tell me", **params}) for _ in range(count)]
        return {self.answer(one)["text"] for one in sent}

    def pids(self, model: str = "demo") -> list[int]:
        """Of the workers of *model*."""
        return [one["pid"] for one in self.server.workers() if one["name"].startswith(f"{model}:")]

    def replace(self, model: str) -> None:
        """Kill every worker of *model*; back when others run in their places."""
        old = self.pids(model)
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        self.server.wait_until(lambda: self._is_replaced(model, old), "new workers")

    def _is_replaced(self, model: str, old: Sequence[int]) -> bool:
        workers = [one for one in self.server.workers() if one["name"].startswith(f"{model}:")]
        return all(one["state"] == "RUNNING" and one["pid"] not in old for one in workers)

    def close(self) -> None:
        """Close the connection."""
        self._client.socket.close()
