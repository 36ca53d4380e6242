"""A stand-in for rkvisord's client socket: a ROUTER in a thread that answers by script and can vanish at will.

``reply_to(prompt)`` is what a greedy model would say, a function of the prompt; with ``is_sampled`` it also depends on
the epoch.  ``stop`` is a crash: nothing more is sent, and a later ``start`` has a new epoch.  ``drop`` only cuts the
connections: epoch, and answers by request_key, stay.
"""

from __future__ import annotations

import json
import socket
import threading
import uuid
from typing import Any

import zmq

POLL_MS = 5


def free_tcp_endpoint() -> str:
    """An endpoint that nobody uses at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


def reply_to(prompt: str, flavour: str = "") -> list[str]:
    """The words of the model's answer."""
    return [f"{flavour}{word}{index} " for index, word in enumerate(prompt.split() * 3)]


class Job:
    """A run of the fake: its words, how many were streamed, and who listens under which id."""

    def __init__(self, words: list[str], is_held: bool) -> None:
        self.words = words
        self.is_held = is_held
        self.sent = 0
        self.is_aborted = False
        self.listeners: list[tuple[bytes, Any, bool]] = []


class FakeServer:
    """hold_after: streams pause after so many tokens until ``release`` (None: never).  deaf: methods never answered.

    progress: told one by one, a poll apart, to streams that have no token yet.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.epoch = ""
        self.is_sampled = False
        self.hold_after: int | None = None
        self.deaf: set[str] = set()
        self.errors: dict[str, dict[str, Any]] = {}
        self.received: list[tuple[str, dict[str, Any]]] = []
        self.models = ["demo"]
        self.curve_secret: bytes | None = None
        self.progress: list[dict[str, Any]] = []
        self.jobs: dict[str, Job] = {}
        self._wish = ""
        self._thread: threading.Thread | None = None
        self._news = threading.Condition()

    def __enter__(self) -> FakeServer:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> None:
        self.epoch = uuid.uuid4().hex
        self.jobs.clear()
        self._wish = ""
        bound = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(bound,), daemon=True)
        self._thread.start()
        assert bound.wait(10)

    def stop(self) -> None:
        """Die, as by kill -9."""
        self._do("stop")
        if self._thread is not None:
            self._thread.join(10)
            self._thread = None

    def drop(self) -> None:
        """Cut every connection; the work goes on."""
        self._do("drop")

    def release(self) -> None:
        """Let held streams run on."""
        self._do("release")

    def count(self, method: str) -> int:
        return sum(name == method for name, _ in self.received)

    def wait_for(self, method: str, times: int = 1) -> dict[str, Any]:
        """Block until *method* was received so often; the last params."""
        with self._news:
            assert self._news.wait_for(lambda: self.count(method) >= times, 10), (method, self.received)
        return [params for name, params in self.received if name == method][times - 1]

    def _do(self, wish: str) -> None:
        with self._news:
            if self._thread is None:
                return
            self._wish = wish
            assert self._news.wait_for(lambda: self._wish == "", 10)

    def _serve(self, bound: threading.Event) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        router = self._bind(context)
        bound.set()
        while True:
            if router.poll(POLL_MS):
                self._take(router)
            for job in self.jobs.values():
                self._advance(router, job)
            with self._news:
                wish, self._wish = self._wish, ""
                if wish == "release":
                    self.hold_after = None
                    for job in self.jobs.values():
                        job.is_held = False
                if wish == "drop":
                    router.close(linger=0)
                    router = self._bind(context)
                if wish:
                    self._news.notify_all()
            if wish == "stop":
                break
        router.close(linger=0)
        context.term()

    def _bind(self, context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
        router = context.socket(zmq.ROUTER)
        router.setsockopt(zmq.LINGER, 0)
        if self.curve_secret is not None:
            router.setsockopt(zmq.CURVE_SERVER, 1)
            router.setsockopt(zmq.CURVE_SECRETKEY, self.curve_secret)
        for job in self.jobs.values():
            job.listeners.clear()
        deadline = threading.Event()
        for _ in range(200):
            try:
                router.bind(self.endpoint)
            except zmq.ZMQError:  # the old socket's thread has not let go of the address yet
                deadline.wait(0.01)
            else:
                return router
        raise AssertionError(f"cannot bind {self.endpoint}")

    def _take(self, router: zmq.Socket[bytes]) -> None:
        peer, text = router.recv_multipart()
        message = json.loads(text)
        method, params, identifier = message["method"], message.get("params", {}), message.get("id")
        self._handle(router, peer, identifier, method, params)
        with self._news:
            self.received.append((method, params))
            self._news.notify_all()

    def _handle(self, router: zmq.Socket[bytes], peer: bytes, identifier: Any, method: str, params: Any) -> None:
        if method in self.deaf:
            return
        if method in self.errors:
            self._send(router, peer, {"id": identifier, "error": self.errors[method]})
        elif method == "rkllm.run":
            self._run(router, peer, identifier, params)
        elif method == "rkllm.abort":
            self._send(router, peer, {"id": identifier, "result": {"aborted": self._abort(peer, params)}})
        else:
            self._send(router, peer, {"id": identifier, "result": self._answer(method)})

    def _answer(self, method: str) -> Any:
        if method == "system.version":
            return {"version": "0", "protocol": "1.0", "node": "n", "epoch": self.epoch}
        if method == "system.status":
            return {"node": "n", "epoch": self.epoch, "models": []}
        if method == "model.list":
            entry = {"runtime": "sim", "path": "builtin:tiny", "state": "ready", "family": "F5", "workers": 1}
            return {"models": [{"name": name, "runtime_version": None, **entry} for name in self.models]}
        if method == "session.open":
            return {"session": f"s-{self.epoch}-1", "model": "demo", "idle_timeout_s": 60.0, "max_turns": 10}
        if method == "session.close":
            return {"closed": True}
        return {"method": method}

    def _run(self, router: zmq.Socket[bytes], peer: bytes, identifier: Any, params: dict[str, Any]) -> None:
        flavour = self.epoch[:4] if self.is_sampled else ""
        words = reply_to(params["prompt"], flavour)[: params.get("max_new_tokens", 1000)]
        job = self.jobs.setdefault(params["request_key"], Job(words, self.hold_after is not None))
        is_stream = bool(params.get("stream"))
        job.listeners.append((peer, identifier, is_stream))
        for seq in range(job.sent if is_stream else 0):  # a replay
            self._send_token(router, peer, identifier, job, seq)

    def _abort(self, peer: bytes, params: dict[str, Any]) -> bool:
        for key, job in self.jobs.items():
            is_meant = params.get("request_key") == key or any(
                (peer, params.get("request")) == (who, what) for who, what, _ in job.listeners
            )
            if is_meant and not job.is_aborted:
                job.is_aborted = True
                return True
        return False

    def _advance(self, router: zmq.Socket[bytes], job: Job) -> None:
        while job.sent < len(job.words) and not job.is_aborted:
            if job.is_held and job.sent == self.hold_after:
                self._tell_progress(router, job)
                return
            for peer, identifier, is_stream in job.listeners:
                if is_stream:
                    self._send_token(router, peer, identifier, job, job.sent)
            job.sent += 1
        result = {
            "text": "".join(job.words[: job.sent]),
            "token_ids": list(range(job.sent)),
            "finish_reason": "abort" if job.is_aborted else "length",
            "perf": None,
            "worker": "demo:0",
        }
        for peer, identifier, _ in job.listeners:
            self._send(router, peer, {"id": identifier, "result": result})
        job.listeners.clear()

    def _tell_progress(self, router: zmq.Socket[bytes], job: Job) -> None:
        if self.progress:
            news = self.progress.pop(0)
            for peer, identifier, _ in job.listeners:
                self._send(router, peer, {"method": "rkvisor.progress", "params": {"request": identifier, **news}})

    def _send_token(self, router: zmq.Socket[bytes], peer: bytes, identifier: Any, job: Job, seq: int) -> None:
        params = {"request": identifier, "seq": seq, "text": job.words[seq], "token_id": seq}
        self._send(router, peer, {"method": "rkllm.token", "params": params})

    def _send(self, router: zmq.Socket[bytes], peer: bytes, message: dict[str, Any]) -> None:
        router.send_multipart([peer, json.dumps({"jsonrpc": "2.0", **message}).encode()], zmq.NOBLOCK)
