"""The client's pure core against a model of rkvisord, over any order of tokens, answers, losses and restarts."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from rkvisor.client.dialogue import Dialogue, Phase
from rkvisor.client.errors import ConnectionLost
from rkvisor.client.exchange import Exchange

LENGTH = 6


class Job:
    """A run on the server.  sent: how many of its tokens are out.  listeners: ids on the present connection."""

    def __init__(self, prompt: str, key: str | None, flavour: str, length: int) -> None:
        self.prompt = prompt
        self.key = key
        self.flavour = flavour
        self.length = length
        self.sent = 0
        self.is_done = False
        self.is_aborted = False
        self.listeners: list[int] = []

    def token(self, request: int, seq: int) -> dict[str, Any]:
        text = f"{self.flavour}{seq} "
        return {"method": "rkllm.token", "params": {"request": request, "seq": seq, "text": text, "token_id": seq}}

    def answer(self, request: int) -> dict[str, Any]:
        return {"id": request, "result": {"tokens": self.sent}}


class Model(RuleBasedStateMachine):
    """The server answers honestly: a key is run once an epoch, and replayed to whoever asks again.

    Greedy keys begin with "g" and say the same in every epoch; sampled ones begin with "s" and do not; those that
    begin with "t" say the same, but less of it.
    """

    exchanges: Bundle[Exchange] = Bundle("exchanges")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.talk = Dialogue("ipc:///x", connect_timeout_s=None, reconnect_timeout_s=None)
        self.is_connected = True
        self.talk.connected(self.now)
        self.epoch = 1
        self.counter = 0
        self.jobs: list[Job] = []
        self.in_flight: list[bytes] = []
        self.late: list[bytes] = []
        self.taken: dict[Exchange, list[str]] = {}
        self.left: set[Exchange] = set()
        self.must_be_aborted: set[str] = set()
        self.ended: list[Exchange] = []

    # The user

    @rule(target=exchanges, kind=st.sampled_from(["g", "g", "s", "t", ""]), steps=st.integers(0, LENGTH))
    def ask(self, kind: str, steps: int) -> Exchange:
        self.counter += 1
        key = f"{kind}{self.counter}" if kind else None
        params = {"prompt": str(self.counter), **({"request_key": key} if key else {})}
        exchange = self.talk.ask("rkllm.run", params, now=self.now)
        self.taken[exchange] = []
        self.work(steps)
        return exchange

    @rule(exchange=exchanges)
    def take(self, exchange: Exchange) -> None:
        while exchange.tokens:
            self.taken[exchange].append(exchange.tokens.popleft().text)

    @rule(exchange=consumes(exchanges))
    def leave(self, exchange: Exchange) -> None:
        self.take(exchange)
        if not exchange.is_over:
            self.left.add(exchange)
            if exchange.wire_id is not None:
                self.must_be_aborted.add(json.loads(b"{%b}" % exchange.body)["params"]["prompt"])
        self.talk.leave(exchange)

    # The wire

    @rule()
    def connect(self) -> None:
        if not self.is_connected:
            self.is_connected = True
            self.talk.connected(self.now)

    @rule()
    def lose(self) -> None:
        """The connection is cut; what the server had sent may be lost, or come late."""
        if self.is_connected:
            self.is_connected = False
            self.late += self.in_flight
            self.in_flight.clear()
            self.must_be_aborted.clear()  # a server aborts by itself what a vanished client asked
            for job in self.jobs:
                job.listeners.clear()
            self.talk.disconnected(self.now)

    @rule(is_restart=st.booleans())
    def interrupt(self, is_restart: bool) -> None:
        """A cut, or a kill -9 of rkvisord, and the reconnect."""
        self.lose()
        if is_restart:
            self.epoch += 1
            self.jobs.clear()
        self.connect()

    @rule()
    def deliver_late(self) -> None:
        while self.late:
            self.talk.received(self.late.pop(0))

    @rule()
    def work_on(self) -> None:
        self.work(2)

    def work(self, steps: int) -> None:
        """Everything goes well for a while."""
        for _ in range(steps):
            self.deliver_to_server()
            self.deliver_to_client(1000)
            for job in [job for job in self.jobs if not job.is_done]:
                self._step(job)
            self.deliver_to_client(1000)

    @rule()
    def deliver_to_server(self) -> None:
        while self.is_connected and self.talk.outgoing:
            self._serve(json.loads(self.talk.outgoing.popleft()))

    @rule(count=st.integers(1, 5))
    def deliver_to_client(self, count: int) -> None:
        for _ in range(min(count, len(self.in_flight))):
            self.talk.received(self.in_flight.pop(0))

    # The server

    def _send(self, message: dict[str, Any]) -> None:
        self.in_flight.append(json.dumps({"jsonrpc": "2.0", **message}).encode())

    def _serve(self, request: dict[str, Any]) -> None:
        if request["method"] == "system.version":
            self._send({"id": request["id"], "result": {"epoch": str(self.epoch)}})
        elif request["method"] == "rkllm.abort":
            self._abort(request)
        else:
            self._run(request)

    def _abort(self, request: dict[str, Any]) -> None:
        for job in self.jobs:
            if request["params"]["request"] in job.listeners:
                job.is_aborted = True
        self._send({"id": request["id"], "result": {"aborted": True}})

    def _run(self, request: dict[str, Any]) -> None:
        key = request["params"].get("request_key")
        job = next((one for one in self.jobs if key is not None and one.key == key), None)
        if job is None:
            flavour = f"e{self.epoch}." if (key or "").startswith("s") else ""
            length = max(1, LENGTH - self.epoch) if (key or "").startswith("t") else LENGTH
            job = Job(request["params"]["prompt"], key, flavour, length)
            self.jobs.append(job)
        for seq in range(job.sent):
            self._send(job.token(request["id"], seq))
        if job.is_done:
            self._send(job.answer(request["id"]))
        else:
            job.listeners.append(request["id"])

    @rule(index=st.integers(0, 20))
    def generate(self, index: int) -> None:
        running = [job for job in self.jobs if not job.is_done]
        if not running:
            return
        self._step(running[index % len(running)])

    def _step(self, job: Job) -> None:
        """One more token, or the answer."""
        if job.sent < job.length and not job.is_aborted:
            for request in job.listeners:
                self._send(job.token(request, job.sent))
            job.sent += 1
            return
        job.is_done = True
        for request in job.listeners:
            self._send(job.answer(request))

    # What must hold

    @invariant()
    def the_caller_sees_one_unbroken_stream(self) -> None:
        for exchange, texts in self.taken.items():
            seen = texts + [token.text for token in exchange.tokens]
            assert [text.rstrip().rpartition(".")[2] for text in seen] == [str(index) for index in range(len(seen))]
            assert len({text.partition(".")[0] for text in seen if "." in text}) <= 1, "two epochs in one stream"

    @invariant()
    def greedy_streams_with_a_key_are_never_lost(self) -> None:
        for exchange in self.taken:
            if (exchange.key or "").startswith("g"):
                assert exchange.error is None

    @invariant()
    def what_has_no_key_is_asked_once(self) -> None:
        assert all(exchange.asks <= 1 for exchange in self.taken if exchange.key is None)

    @invariant()
    def an_answer_is_the_end_of_the_very_stream_that_was_seen(self) -> None:
        for exchange, texts in self.taken.items():
            if exchange.result is not None:
                assert json.loads(exchange.result)["tokens"] == len(texts) + len(exchange.tokens)

    @invariant()
    def the_epoch_is_asked_for_before_anything_else(self) -> None:
        if self.talk.phase is Phase.GREETING:
            assert all(b"system.version" in message for message in self.talk.outgoing)

    @invariant()
    def only_a_loss_ends_a_call_without_an_answer(self) -> None:
        for exchange in self.taken:
            assert exchange.error is None or isinstance(exchange.error, ConnectionLost)

    @invariant()
    def a_call_ends_once(self) -> None:
        self.ended += [exchange for exchange in self.talk.take_changed() if exchange.is_over]
        assert len(self.ended) == len(set(self.ended))
        assert not self.left.intersection(self.ended)

    @invariant()
    def nothing_waits_to_be_sent_without_a_connection(self) -> None:
        if not self.is_connected:
            assert not self.talk.outgoing
            assert self.talk.phase is Phase.OFFLINE

    def teardown(self) -> None:
        """Left alone with a sound server, every call comes to an end, and left ones do not run on."""
        self.connect()
        self.deliver_late()
        self.work(LENGTH + 4)
        assert all(exchange.is_over for exchange in self.taken)
        self.the_caller_sees_one_unbroken_stream()
        self.an_answer_is_the_end_of_the_very_stream_that_was_seen()
        self.a_call_ends_once()
        assert all(job.is_aborted for job in self.jobs if job.prompt in self.must_be_aborted)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
