"""Acts out one scenario against the running rkvisord, and says what was not as it must be."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

from chaos.rules import Heard, Rule, bystander_rule, marker, problems_of, rule_of
from chaos.schedule import MODEL_PHASES, PROMPTS, SIGNALS, UNLIMITED, Scenario
from chaos.simstate import times_fired
from chaos.subject import PATIENCE_S, Subject
from harness import processes

#: How often a client asks again that was refused, before it calls that an outage.
MAX_ASKS = 200
#: How long a load takes that shall be hit.
LOADING_MS = 500


class _Client:
    """One request, asked again while it is refused with "retryable" and the rule allows for that."""

    def __init__(self, subject: Subject, params: dict[str, Any], rule: Rule, twin: dict[str, Any]):
        self._subject = subject
        self._params = params
        self._rule = rule
        self._twin = twin
        self._asks = 0
        self._again_s = 0.0
        self.heard = self._ask()

    def _ask(self) -> Heard:
        self._asks += 1
        return self._subject.clients.ask("rkllm.run", **self._params)

    def is_done(self) -> bool:
        """Whether its end is known; asks again where that is due."""
        if not self.heard.ends:
            return False
        if not (self._rule.may_refuse and self.heard.is_refusal and self._asks < MAX_ASKS):
            return True
        if not self._again_s:
            self._again_s = time.monotonic() + 0.05
        elif time.monotonic() >= self._again_s:
            self._again_s = 0.0
            self.heard = self._ask()
        return False

    def problems(self) -> list[str]:
        return problems_of(self.heard, self._rule, self._twin)


class Drill:
    """One scenario.  key: tells its fault from those of all others that share the state directory."""

    def __init__(self, subject: Subject, scenario: Scenario, key: str):
        self._subject = subject
        self._scenario = scenario
        self._key = key
        self._clients: list[_Client] = []

    def run(self) -> list[str]:
        """Act it out; what was wrong, nothing if all was well."""
        scenario = self._scenario
        self._subject.note(scenario.line())
        for place in range(scenario.clients):
            self._subject.twin(scenario.model, self._prompt(place), scenario.length)
        act = self._signal if scenario.kind in SIGNALS else self._arm if scenario.phase in MODEL_PHASES else self._fault
        problems = list(act())
        if not self._subject.clients.listen(self._is_done, PATIENCE_S):
            problems.append("not every request was answered")
        for place, client in enumerate(self._clients):
            problems += [f"request {place}: {problem}" for problem in client.problems()]
        if not problems and scenario.times == UNLIMITED and scenario.is_deadly:
            problems += self._poison_is_refused()
        return problems + self._aftermath()

    # The requests.

    def _prompt(self, place: int) -> int:
        return (self._scenario.prompt + place) % len(PROMPTS)

    def _params(self, place: int, mark: str = "") -> dict[str, Any]:
        scenario = self._scenario
        params = {"model": scenario.model, "prompt": mark + PROMPTS[self._prompt(place)]}
        return {**params, "max_new_tokens": scenario.length, "stream": scenario.stream}

    def _begin(self, place: int, rule: Rule, mark: str = "") -> _Client:
        twin = self._subject.twin(self._scenario.model, self._prompt(place), self._scenario.length)
        client = _Client(self._subject, self._params(place, mark), rule, twin)
        self._clients.append(client)
        return client

    def _begin_all(self, rule: Rule, mark: str = "") -> None:
        """The disturbed request, which waits for nobody, and the bystanders."""
        self._begin(0, rule, mark)
        for place in range(1, self._scenario.clients):
            self._begin(place, bystander_rule(self._scenario))

    def _is_done(self) -> bool:
        return sum(client.is_done() for client in self._clients) == len(self._clients)  # each asks again by itself

    # The faults.

    def _fault(self) -> list[str]:
        """A fault of the simulator, in the run of the request that carries its marker."""
        self._begin_all(rule_of(self._scenario), marker(self._scenario, self._key))
        if not self._subject.clients.listen(self._is_done, PATIENCE_S):
            return []
        if self._scenario.times != UNLIMITED and self._fired(0) != 1:
            return [f"the fault struck {self._fired(0)} times and not once"]
        return []

    def _fired(self, strike: int) -> int:
        return times_fired(self._subject.folder, f"{self._key}{strike}")

    def _arm(self) -> list[str]:
        """A fault of the next init or destroy: a request arms it, then a worker is made to do that."""
        armer = self._begin(0, rule_of(self._scenario), marker(self._scenario, self._key))
        if not self._subject.clients.listen(armer.is_done, PATIENCE_S):
            return []
        armed = self._subject.armed()
        for place in range(self._scenario.clients):
            self._begin(place, bystander_rule(self._scenario))
        victim = f"{self._scenario.model}:0"
        if self._scenario.phase == "init":
            self._strike([self._worker_pids()[0]], signal.SIGKILL)
        else:
            self._operate("admin.stop", victim)
            self._operate("admin.start", victim)
        return [] if armed else ["the request armed nothing"]

    def _operate(self, verb: str, worker: str) -> None:
        """An operator's command, while the clients go on."""
        done = self._subject.admin.ask(verb, names=[worker])
        until_s = time.monotonic() + PATIENCE_S
        while not done.ends and time.monotonic() < until_s:
            self._subject.admin.listen(lambda: bool(done.ends), 0.01)
            self._subject.clients.listen(self._is_done, 0.01)

    def _signal(self) -> list[str]:
        """A signal from outside, at its moment."""
        number = signal.Signals[self._scenario.kind]
        if self._scenario.phase == "idle":
            self._strike(self._worker_pids() if self._scenario.storm else self._worker_pids()[:1], number)
            self._begin_all(rule_of(self._scenario))
        elif self._scenario.phase == "loading":
            self._strike_loading(number)
        elif self._scenario.phase == "reserve":
            self._strike(self._reserve_pids(), number)
            self._begin_all(rule_of(self._scenario))
            for name in self._subject.names:
                if name.endswith(self._scenario.reserve):
                    self._strike(self._worker_pids(name)[:1], signal.SIGKILL)
        else:
            self._begin_all(rule_of(self._scenario))
            self._await_moment()
            pids = self._worker_pids()
            running = [pid for pid in pids if processes.is_running(pid)]
            self._strike(pids if self._scenario.storm else (running or pids)[:1], number)
        return []

    def _strike_loading(self, number: signal.Signals) -> None:
        """Make the next load slow, cause it, and hit the process that loads."""
        armer = self._begin(0, rule_of(self._scenario), f"[[sim:slow at=init ms={LOADING_MS} times=1 key={self._key}]]")
        self._wait(armer.is_done)
        self._strike(self._worker_pids()[:1], signal.SIGKILL)
        for place in range(self._scenario.clients):
            self._begin(place, bystander_rule(self._scenario))
        loading: list[int] = []

        def is_loading() -> bool:
            pids = processes.children(self._subject.pid)
            loading[:] = [pid for pid in pids if "[loading]" in processes.title(pid)]
            return bool(loading) or not self._subject.armed()

        self._wait(is_loading)
        self._strike(loading, number)

    def _strike(self, pids: list[int], number: signal.Signals) -> None:
        for pid in pids:
            if pid:
                processes.send(pid, number)

    def _worker_pids(self, model: str | None = None) -> list[int]:
        return [worker["pid"] for worker in self._subject.workers(model or self._scenario.model)]

    def _reserve_pids(self) -> list[int]:
        """Of models that keep the same kind of reserve: a blank process does not tell whose it is."""
        mark = "[blank]" if self._scenario.reserve == "spare" else "[ready]"
        return [pid for pid in self._subject.reserve_pids() if mark in processes.title(pid)]

    def _await_moment(self) -> None:
        """Until a prefill is under way, or so many tokens were streamed, or should have been."""
        scenario, first = self._scenario, self._clients[0].heard
        pids = self._worker_pids()
        self._wait(lambda: bool(first.ends) or any(processes.is_running(pid) for pid in pids))
        if scenario.phase == "prefill":
            return
        if scenario.stream:
            self._wait(lambda: bool(first.ends) or len(first.tokens) >= scenario.after)
        else:
            self._subject.clients.listen(lambda: bool(first.ends), 0.03 + 0.002 * scenario.after)

    def _wait(self, is_so: Callable[[], bool]) -> None:
        self._subject.clients.listen(is_so, PATIENCE_S)

    # Afterwards.

    def _poison_is_refused(self) -> list[str]:
        """The same payload again: refused at once, without another process for it."""
        again = self._subject.clients.ask("rkllm.run", **self._params(0, marker(self._scenario, self._key)))
        self._wait(lambda: bool(again.ends))
        error = again.error
        is_kept_out = error is not None and error["data"]["name"] == "POISON_REQUEST" and not again.tokens
        return [] if is_kept_out else [f"poison was taken in again: {again.ends}"]

    def _aftermath(self) -> list[str]:
        """What holds after every scenario: nothing is left over, and all is as it was."""
        problem = self._subject.settle()
        if not problem and bystander_rule(self._scenario).may_refuse:
            problem = self._subject.refuses()
        problems = [f"it did not come back to where it was: {problem}"] if problem else []
        for file in self._subject.armed():
            problems.append(f"the fault was never met: {file.name}")
            file.unlink()
        problems += self._subject.clients.violations
        self._subject.clients.violations.clear()
        self._subject.clients.forget()
        self._subject.admin.forget()
        return problems
