"""The rkvisord under test: four models, every process of it known, and what "back where it was" means."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import zmq

from chaos.conversation import Conversation
from chaos.schedule import LENGTHS, PROMPTS
from harness import processes
from harness.rkvisord import UNIT_S, Rkvisord

PATIENCE_S = 60 * UNIT_S
WORKERS = 2
#: A prefill long enough to be hit from outside, tokens slow enough to be hit between them.
MODEL = 'name = "chaos"\nvocab_size = 1024\nembedding_size = 64\nprefill_ms = 30.0\ntoken_ms = 2.0\n'
SUPERVISOR = f"""
fault_window_s = 0.3
budget_scale = {0.5 * UNIT_S}
"""
SECTION = """
[models.{name}]
runtime = "sim"
path = "chaos.toml"
workers = {workers}
spares = {spares}
standby = {standby}
force_tokens = {force}
faults = true
startsecs = 0.3
backoff_initial_s = 0.02
load_timeout_s = {load_s}
first_token_timeout_s = 2.0
token_timeout_s = 2.0
breaker_open_s = 0.5
param = {{ temperature = 0.0 }}
"""


def section(name: str) -> str:
    """The configuration of the model *name*, ``forced-spare`` …"""
    is_standby = name.endswith("standby")
    return SECTION.format(
        name=name,
        workers=WORKERS,
        spares=int(not is_standby),
        standby=int(is_standby),
        force="true" if name.startswith("forced") else "false",
        load_s=4 * UNIT_S,
    )


def daemon(folder: Path, names: tuple[str, ...]) -> Rkvisord:
    """An rkvisord in *folder* that serves the models *names*."""
    (folder / "chaos.toml").write_text(MODEL, encoding="utf-8")
    return Rkvisord("".join(section(name) for name in names), supervisor=SUPERVISOR, folder=folder)


NAMES = ("forced-spare", "forced-standby", "muted-spare", "muted-standby")


class Subject:
    """A running rkvisord.  twins: results of undisturbed runs.  rescues: workers that an operator had to start."""

    def __init__(self, folder: Path, names: tuple[str, ...] = NAMES):
        self.names = names
        self.folder = folder
        self.server = daemon(folder, names)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.twins: dict[tuple[str, int, int], dict[str, Any]] = {}
        self.rescues = 0
        self._baseline = 0
        self.start()

    def start(self) -> None:
        """Start it, and learn what it looks like when nothing is wrong."""
        self.server.start()
        self.clients = Conversation(self._context, self.server.endpoint)
        self.admin = Conversation(self._context, self.server.admin)
        self._baseline = 0
        self.admin.call("system.version", PATIENCE_S)
        for name in self.names:
            self.twin(name, 0, LENGTHS[0])  # the first request may open descriptors for good
        problem = self.settle()
        assert not problem, problem
        self._baseline = processes.descriptors(self.pid)

    @property
    def pid(self) -> int:
        return self.server.pid

    def twin(self, model: str, prompt: int, length: int) -> dict[str, Any]:
        """The result of the undisturbed run."""
        key = (model, prompt, length)
        if key not in self.twins:
            params = {"model": model, "prompt": PROMPTS[prompt], "max_new_tokens": length}
            self.twins[key] = self.clients.call("rkllm.run", PATIENCE_S, **params)
        return self.twins[key]

    def workers(self, model: str | None = None) -> list[dict[str, Any]]:
        """Of *model*, or all, as ``system.status`` lists them."""
        models = self.admin.call("system.status", PATIENCE_S)["models"]
        return [worker for one in models if model in (None, one["name"]) for worker in one["workers"]]

    def reserve_pids(self) -> list[int]:
        """Its processes that are no worker: spares and standbys of all models."""
        workers = {worker["pid"] for worker in self.workers()}
        return [pid for pid in processes.children(self.pid) if pid not in workers]

    # Back to where it was.

    def unsettled(self) -> str:
        """What is not yet as it was; "" when all is."""
        status = self.admin.call("system.status", PATIENCE_S)
        workers = [worker for model in status["models"] for worker in model["workers"]]
        down = [f"{worker['name']} is {worker['state']}" for worker in workers if worker["state"] != "RUNNING"]
        if down:
            return ", ".join(down)
        if any(model["queue"] for model in status["models"]):
            return "requests wait"
        return self._wrong_processes({worker["pid"] for worker in workers}) or self._wrong_descriptors()

    def _wrong_processes(self, workers: set[int]) -> str:
        pids = processes.children(self.pid)
        wanted = len(self.names) * (WORKERS + 1)
        titles = sorted(processes.title(pid) for pid in pids)
        if len(pids) != wanted or not workers <= set(pids):
            return f"{len(pids)} processes and not {wanted}: {titles}"
        blank = sum(name.endswith("spare") for name in self.names)
        stopped = [processes.title(pid) for pid in pids if processes.parent_and_state(pid)[1] == "T"]
        if stopped:
            return f"stopped and not yet found out: {stopped}"
        is_calm = sum("[blank]" in one for one in titles) == blank and sum("[ready]" in one for one in titles)
        return "" if is_calm == wanted - blank else f"processes are busy: {titles}"

    def _wrong_descriptors(self) -> str:
        gone = processes.watched(self.pid) - set(processes.children(self.pid))
        if gone:
            return f"processes that are gone are still watched: {sorted(gone)}"
        count = processes.descriptors(self.pid)
        if not self._baseline or count == self._baseline:
            return ""
        return f"{count} descriptors and not {self._baseline}"

    def armed(self) -> list[Path]:
        """Faults of init and destroy that wait for their moment."""
        folder = self.folder / "state" / "sim"
        return [file for kind in ("init", "destroy") for file in folder.glob(f"{kind}-*") if file.suffix != ".new"]

    def note(self, text: str) -> None:
        """Write a line into the log of rkvisord, to find one's place there."""
        with self.server.log.open("a", encoding="utf-8") as log:
            log.write(f"===== {text}\n")

    def settle(self) -> str:
        """Wait until all is as it was, starting what gave up; "" or what is still wrong when patience ends."""
        until_s = time.monotonic() + PATIENCE_S
        problem = self.unsettled()
        while problem and time.monotonic() < until_s:
            for worker in self.workers():
                if worker["state"] == "FATAL":
                    self.rescues += 1
                    self.admin.call("admin.start", PATIENCE_S, names=[worker["name"]])
            self.clients.listen(lambda: False, 0.02)
            problem = self.unsettled()
        return problem

    def refuses(self) -> str:
        """Wait until every model takes requests, for a circuit may be open; "" or which of them never did."""
        params = {"prompt": PROMPTS[0], "max_new_tokens": 1}
        until_s = time.monotonic() + PATIENCE_S
        left = list(self.names)
        while left and time.monotonic() < until_s:
            asked = {name: self.clients.ask("rkllm.run", model=name, **params) for name in left}
            self.clients.await_ends(list(asked.values()), PATIENCE_S)
            left = [name for name, one in asked.items() if one.error is not None or not one.ends]
            self.clients.listen(lambda: False, 0.05 if left else 0)
        return f"requests are refused by {left}" if left else ""

    def restart(self) -> None:
        """Give up on this one and begin anew."""
        self.clients.close()
        self.admin.close()
        self.server.kill()
        self.start()

    def close(self) -> int:
        """Stop it in good order; its exit status."""
        self.clients.close()
        self.admin.close()
        status = self.server.stop()
        self._context.destroy(linger=0)
        self.server.__exit__(None, None, None)
        return status
