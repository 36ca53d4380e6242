"""kill -9 of rkvisord (design §6): nothing is served twice, what has a key is asked again, the rest is ConnectionLost.

Each has an rkvisord of its own.  How often the simulator began a request is counted by a fault that does nothing: a
leak of no bytes, which counts how often it struck.
"""

from __future__ import annotations

import asyncio
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaos.schedule import PROMPTS, Scenario
from chaos.simstate import times_fired
from chaos.subject import PATIENCE_S, Subject, daemon
from harness import processes
from rkvisor.client.aio import AsyncClient
from rkvisor.client.dialogue import Phase
from rkvisor.client.errors import ConnectionLost
from rkvisor.protocol.errors import RkvisorError

#: Within this time after the end of rkvisord its workers are gone, hung or stopped ones too (seconds).
GONE_S = 2.0


@dataclass(slots=True, kw_only=True)
class _Asked:
    """A request with a key.  name: counts its runs.  texts: what its stream brought so far."""

    name: str
    twin: dict[str, Any]
    stream: bool
    prompt: str
    texts: list[str]


class Beheading:
    """One scenario.  subject: the long-lived rkvisord, which tells the undisturbed texts."""

    def __init__(self, subject: Subject, scenario: Scenario, key: str):
        self._scenario = scenario
        self._key = key
        self._twins = [
            subject.twin(scenario.model, self._prompt(place), scenario.length) for place in range(scenario.clients + 2)
        ]
        self._problems: list[str] = []

    def run(self) -> list[str]:
        """Act it out; what was wrong."""
        with tempfile.TemporaryDirectory(prefix="rkc") as folder:
            self._folder = Path(folder)
            with daemon(self._folder, (self._scenario.model,)) as self._server:
                asyncio.run(self._act())
                if status := self._server.stop():
                    self._problems.append(f"the new rkvisord ended with status {status}")
            if self._problems:
                kept = Path(tempfile.gettempdir()) / f"rkvisord-chaos-{self._key}.log"
                kept.write_bytes(self._server.log.read_bytes())
                self._problems.append(f"log of both rkvisords: {kept}")
        return self._problems

    def _prompt(self, place: int) -> int:
        return (self._scenario.prompt + place) % len(PROMPTS)

    def _asked(self, place: int, name: str, fault: str = "") -> _Asked:
        counter = f"[[sim:leak at=prefill bytes=0 times=1000 key={self._key}{name}]]"
        prompt = counter + fault + PROMPTS[self._prompt(place)]
        return _Asked(name=name, twin=self._twins[place], stream=self._scenario.stream, prompt=prompt, texts=[])

    def _params(self, asked: _Asked) -> dict[str, Any]:
        return {"model": self._scenario.model, "prompt": asked.prompt, "max_new_tokens": self._scenario.length}

    def _begun(self, asked: _Asked) -> int:
        return times_fired(self._folder, f"{self._key}{asked.name}")

    # The play.

    async def _act(self) -> None:
        scenario = self._scenario
        hang = f"[[sim:hang after={scenario.after} times=1 key={self._key}h]]" if scenario.phase == "hung" else ""
        early = self._asked(scenario.clients, "early")
        keyed = [self._asked(place, f"keyed{place}", "" if place else hang) for place in range(scenario.clients)]
        plain = self._asked(scenario.clients + 1, "plain")
        async with AsyncClient(self._server.endpoint, reconnect_timeout_s=PATIENCE_S) as client:
            await self._ask(client, early)
            tasks = [asyncio.create_task(self._ask(client, asked)) for asked in keyed]
            lost = asyncio.create_task(client.call("rkllm.run", self._params(plain), timeout_s=PATIENCE_S))
            await self._await_moment(keyed[0])
            old = processes.children(self._server.pid)
            if scenario.phase == "stopped":
                self._stop_processes(old)
            self._server.kill()
            await self._await_deaths(old)
            await self._await_disconnect(client)
            answered = [task.done() for task in tasks]
            is_plain_over = lost.done()
            before = [self._begun(asked) for asked in keyed]
            await asyncio.to_thread(self._server.start)
            await asyncio.gather(*tasks)
            await self._check_lost(lost, is_plain_over)
        self._check_counts(early, plain, keyed, before, answered)

    @staticmethod
    def _stop_processes(pids: list[int]) -> None:
        """SIGSTOP them, but for one whose interpreter is only starting: it could not yet ask to die with its parent.
        (Left to itself it would see, as the first thing it does, that its parent is gone.)"""
        for pid in pids:
            if processes.title(pid).startswith("rkvisor:"):
                processes.send(pid, signal.SIGSTOP)

    async def _ask(self, client: AsyncClient, asked: _Asked) -> None:
        """Ask to the end, and compare with the undisturbed run."""
        params = self._params(asked)
        try:
            if asked.stream:
                stream = client.stream(timeout_s=PATIENCE_S, **params)
                seen = 0
                async for token in stream:
                    if token.seq != seen:
                        self._problems.append(f"{asked.name}: token {token.seq} where {seen} was due")
                    seen = token.seq + 1
                    asked.texts.append(token.text)
                result = stream.result
                if "".join(asked.texts) != result.text:
                    self._problems.append(f"{asked.name}: the texts of the stream are not the result's text")
            else:
                result = await client.run(timeout_s=PATIENCE_S, **params)
        except RkvisorError as error:
            self._problems.append(f"{asked.name}: {type(error).__name__}: {error}")
            return
        if (result.text, result.token_ids) != (asked.twin["text"], asked.twin["token_ids"]):
            how = f"({result.finish_reason}, resumed {result.resumed} times, by {result.worker})"
            self._problems.append(f"{asked.name}: {result.text!r} {how} and not {asked.twin['text']!r}")

    async def _await_moment(self, first: _Asked) -> None:
        """Until the first request runs, and streamed as much as it shall or should have, or hangs."""
        scenario = self._scenario
        await self._await_count(lambda: self._begun(first))
        if scenario.phase == "hung":
            await self._await_count(lambda: times_fired(self._folder, f"{self._key}h"))
        elif scenario.phase != "prefill":
            await asyncio.sleep(0.03 + 0.002 * scenario.after)

    @staticmethod
    async def _await_count(count: Callable[[], int]) -> None:
        """Until there is something to count, for up to ``PATIENCE_S``."""
        for _ in range(int(PATIENCE_S * 1000)):
            if count():
                return
            await asyncio.sleep(0.001)

    async def _await_disconnect(self, client: AsyncClient) -> None:
        """Until the client knows, and so has read all that was answered before the end."""
        await self._await_count(lambda: client._dialogue.phase is not Phase.READY)
        await asyncio.sleep(0.01)  # whoever waits for an answer has it before a timer strikes

    async def _await_deaths(self, pids: list[int]) -> None:
        until_s = time.monotonic() + GONE_S
        while not all(processes.is_gone(pid) for pid in pids):
            if time.monotonic() > until_s:
                left = [processes.title(pid) for pid in pids if not processes.is_gone(pid)]
                self._problems.append(f"outlived rkvisord by {GONE_S} s: {left}")
                return
            await asyncio.sleep(0.005)

    # What must hold.

    async def _check_lost(self, lost: asyncio.Task[Any], is_over: bool) -> None:
        """What has no key is not asked again: its caller is told."""
        try:
            result = await lost
        except ConnectionLost:
            return
        except RkvisorError as error:
            self._problems.append(f"without a key: {type(error).__name__}: {error}")
            return
        if not is_over:
            self._problems.append(f"without a key, but answered after the kill: {result}")

    def _check_counts(
        self, early: _Asked, plain: _Asked, keyed: list[_Asked], before: list[int], answered: list[bool]
    ) -> None:
        """Nothing ran twice under one rkvisord, and nothing again that was answered or had no key."""
        if self._begun(early) != 1:
            self._problems.append(f"a request that was answered before began {self._begun(early)} times")
        if self._begun(plain) > 1:
            self._problems.append(f"a request without a key began {self._begun(plain)} times")
        for asked, first, is_over in zip(keyed, before, answered, strict=True):
            after = self._begun(asked) - first
            if first > 1 or after != (not is_over):
                self._problems.append(f"{asked.name} began {first} times before the kill and {after} times after it")
