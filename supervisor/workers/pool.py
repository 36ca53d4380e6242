"""The processes of one model: which of them fill its workers, which wait as blank spares or loaded standbys.

A blank spare has its interpreter and imports up, but no model; a standby has the model too.  A dead worker is refilled
from a standby, else from a spare, else by a new process; what was taken is replenished once the worker runs, so that
the new process does not compete with it.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

from loguru import logger

from rkvisor.protocol import link
from rkvisor.protocol.link import Header, Kind, LoadFailed
from rkvisor.supervisor.clock import Clock
from rkvisor.supervisor.config import ModelSection
from rkvisor.supervisor.front.events import Events
from rkvisor.supervisor.rate import Limiter, untold
from rkvisor.supervisor.requests.dispatcher import Dispatcher
from rkvisor.supervisor.requests.jobs import Job
from rkvisor.supervisor.workers.budgets import load_timeout_s
from rkvisor.supervisor.workers.fleet import Fleet
from rkvisor.supervisor.workers.init_gate import InitGate
from rkvisor.supervisor.workers.lifecycle import Phase, Start
from rkvisor.supervisor.workers.processes import Exit, Process
from rkvisor.supervisor.workers.slot import Slot
from rkvisor.supervisor.workers.turnover import Turnover

#: Phases in which the slot is being filled, so that the pool keeps out of its way.
FILLING = (Phase.STARTING,)
#: How long the reserve waits after a worker changed its state, seconds: starting a process keeps the loop for
#: milliseconds, and its interpreter then competes with the worker that goes on with a cut stream.
REPLENISH_S = 0.05
#: Reserve processes that died unready in a row, after which no more are started until a worker runs again.
MAX_RESERVE_FAILURES = 3


class Pool:
    """name: of the model.  dispatcher: its queue.  gate: through which those go whose init must be alone.

    is_closing: no reserve is started any more.  on_change: called when a worker changed its state.
    wishes: of an operator, by worker: whether it is to be up, whatever ``autostart`` says.
    on_model_loaded: called when a process of the model became ready, with the model's name.  on_crash: told of
    each death (``Crashes.died``).
    has_tracker: its processes log the native buffers that they hand to the runtime.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        draw: Callable[[], float],
        name: str,
        section: ModelSection,
        state_dir: str,
        fleet: Fleet,
        dispatcher: Dispatcher,
        gate: InitGate,
        events: Events,
    ):
        self.name = name
        self.section = section
        self.dispatcher = dispatcher
        self._loop = loop
        self._fleet = fleet
        self._state_dir = state_dir
        self._gate = gate
        self._events = events
        self.on_model_loaded: Callable[[str, Process], None] = lambda model, process: None
        self.on_change: Callable[[], None] = lambda: None
        self.on_crash: Callable[..., None] = lambda *_, **__: None
        self.slots = [Slot(loop, clock, draw, f"{name}:{i}", section, self) for i in range(section.workers)]
        self.spares: list[Process] = []
        self.standbys: list[Process] = []
        self._failures = 0
        self._clock = clock
        self._limiter = Limiter(burst=10, every_s=10.0)
        self.is_closing = False
        self.wishes: dict[str, bool] = {}
        self.has_tracker = False
        self.turnover = Turnover(loop, self, events)
        dispatcher.attach(self.slots, self.standbys)

    def autostart(self) -> None:
        """Start the workers, if the model or the operator says so, and the reserve behind them."""
        for slot in self.slots:
            if self.wishes.get(slot.name, self.section.autostart):
                slot.feed(Start())
            elif self.section.autostart:
                logger.warning("{} stays down: an operator stopped it; rkvisorctl start {}", slot.name, slot.name)

    def replenish(self) -> None:
        """Bring spares and standbys to their number, unless a worker is still being filled."""
        if self.is_closing or self._failures >= MAX_RESERVE_FAILURES:
            return
        if not any(slot.phase is Phase.RUNNING for slot in self.slots):
            return
        if any(slot.phase in FILLING for slot in self.slots):
            return
        while len(self.standbys) < self.section.standby:
            self.add_standby()
        while len(self.spares) < self.section.spares:
            self.spares.append(self._fleet.spawn(self))

    def add_standby(self) -> None:
        """Let one more process load, in reserve."""
        process = self._take_reserve() or self._fleet.spawn(self)
        process.owner = self
        self.standbys.append(process)
        self._watch_load(process)
        if process.has_hello:
            self.load(process, f"{self.name}:standby")

    def _watch_load(self, process: Process) -> None:
        """Look again when the standby *process* could be late with its load; end it when it is."""
        if process not in self.standbys or process.ready is not None:
            return
        left_s = process.load_time_left_s(self._clock.monotonic(), load_timeout_s(self.section))
        if left_s > 0:
            self._loop.call_later(left_s, self._watch_load, process)
            return
        process.dump()

    def _take_reserve(self) -> Process | None:
        """The spare that is furthest: up, else starting."""
        for process in self.spares:
            if process.has_hello and not process.is_doomed:
                self.spares.remove(process)
                return process
        return self.spares.pop(0) if self.spares else None

    def release(self) -> None:
        """End the reserve: the model is being stopped."""
        replacements = [slot.replacement for slot in self.slots if slot.replacement is not None]
        for process in (*self.spares, *self.standbys, *replacements):
            process.send_signal(signal.SIGTERM)

    # For the slots (slot.Keeper).

    def take(self, slot: Slot) -> Process:
        """The process that is furthest: a standby that is ready, a spare, or a new one."""
        if slot.replacement is not None and not slot.replacement.is_doomed:
            process, slot.replacement = slot.replacement, None
            return process
        for process in self.standbys:
            if process.ready is not None and not process.is_doomed:
                self.standbys.remove(process)
                return process
        return self._take_reserve() or self._fleet.spawn(slot)

    def prepare(self, slot: Slot) -> None:
        """See ``Turnover``."""
        self.turnover.prepare(slot)

    def retire(self, slot: Slot, process: Process) -> None:
        """See ``Turnover``."""
        self.turnover.retire(slot, process)

    def on_turn(self, slot: Slot) -> None:
        """A worker came further on its way to a new process, or left it."""
        if self.turnover.on_turn(slot):
            self._loop.call_later(REPLENISH_S, self.replenish)
        if slot.phase is Phase.RUNNING:
            self.dispatcher.on_phase(slot)

    def cut_short(self, slot: Slot) -> None:
        """See ``Dispatcher``."""
        self.dispatcher.cut_short(slot)

    def load(self, process: Process, worker: str) -> None:
        """Let *process* load the model as *worker*."""
        body, section = self._load_body(worker), self.section
        is_serial = section.serialise_init
        if is_serial if is_serial is not None else section.runtime == "rknpu":
            self._gate.enter(process, lambda: self._send_load(process, body))
        else:
            self._send_load(process, body)

    def _load_body(self, worker: str) -> link.Load:
        section = self.section
        return link.Load(
            worker=worker,
            runtime=section.runtime,
            path=resolve_builtin(section.path),
            library=section.library,
            abi=section.abi,
            state_dir=self._state_dir,
            force_tokens=section.force_tokens,
            faults=section.faults,
            embedding_size=section.embedding_size,
            vocab_size=section.vocab_size,
            tokenizer=section.tokenizer,
            chat_template=section.chat_template,
            preflight=section.preflight,
            tracker=self.has_tracker,
            memory_limit=int(section.memory_limit),
            param=section.param,
        )

    def _send_load(self, process: Process, body: link.Load) -> None:
        process.loading_s = self._clock.monotonic()
        if process.is_gone or not self._fleet.send(process, Kind.LOAD, link.encode_body(body)):
            self._gate.leave(process)

    def on_phase(self, slot: Slot, before: Phase) -> None:
        """A worker changed its state."""
        suppressed = self._limiter.admit((slot.name, slot.phase), self._clock.monotonic())
        level = "DEBUG" if suppressed is None else "INFO"
        text = f"{slot.name}: {before.name} → {slot.phase.name} {slot.spawn_error}"
        logger.log(level, "{}{}", text, untold(suppressed or 0))
        if slot.phase is Phase.RUNNING:
            self._failures = 0
        self.turnover.on_phase(slot, before)
        members = {"worker": slot.name, "state": slot.phase.name, "before": before.name, "pid": slot.pid}
        self._events.publish("worker", **members, error=slot.spawn_error)
        self.dispatcher.on_phase(slot)
        self._loop.call_later(REPLENISH_S, self.replenish)
        self.on_change()

    def on_settled(self, slot: Slot) -> None:
        """A worker stayed up, or answered."""
        self.dispatcher.recovery.count_success()

    def on_loaded(self, process: Process) -> None:
        """*process* has loaded its model."""
        self._gate.leave(process)
        self.on_model_loaded(self.name, process)

    def on_death(
        self, slot: Slot, process: Process, job: Job | None, exit_: Exit, *, was_stopping: bool, was_loading: bool
    ) -> None:
        """A worker's process is gone."""
        self._gate.leave(process)
        self.dispatcher.on_death(slot, process, job, exit_, was_stopping=was_stopping, was_loading=was_loading)
        is_asked = was_stopping or self.is_closing
        self.on_crash(slot.name, self.section, process, exit_, job=job, was_stopping=is_asked)

    # For the reserve (processes.Owner); on_job also for the slots.

    def on_hello(self, process: Process) -> None:
        """A reserve process is up; a future standby loads now."""
        if process in self.standbys:
            self.load(process, f"{self.name}:standby")

    def on_ready(self, process: Process) -> None:
        """A standby is ready."""
        self._failures = 0
        self.on_loaded(process)
        self.turnover.hand_over()

    def on_load_failed(self, process: Process, failed: LoadFailed) -> None:
        """A standby could not load; it will exit."""
        logger.warning("standby of {}: {}", self.name, failed.error.get("message"))

    def on_job(self, process: Slot | Process, header: Header, parts: list[bytes]) -> None:
        """About a request.  From the reserve there can be none."""
        if isinstance(process, Slot):
            self.dispatcher.on_message(process, header, parts)

    def on_sign(self, process: Slot | Process) -> None:
        """One that is dying, told so by its lifeline.  ``take`` passes over one of the reserve."""
        if not isinstance(process, Slot):
            return
        self.dispatcher.on_sign(process)
        heir = next((one for one in self.spares if one.has_hello and not one.is_doomed), None)
        if heir is not None and not self.standbys:  # the kernel takes milliseconds to free what the dying one has
            self._fleet.send(heir, Kind.PREPARE, link.encode_body(self._load_body(process.name)))

    def on_exit(self, process: Process, exit_: Exit) -> None:
        """A reserve process is gone: replaced, unless they keep dying."""
        self._gate.leave(process)
        for reserve in (self.spares, self.standbys):
            if process in reserve:
                reserve.remove(process)
        if not self.is_closing:
            self._failures += process.ready is None
            self.turnover.miss(process)
            logger.debug("a reserve process of {} ended with {}", self.name, exit_.describe())
            self.replenish()
        is_asked = self.is_closing or signal.SIGTERM in process.sent
        self.on_crash(f"{self.name}:reserve", self.section, process, exit_, was_stopping=is_asked)


def resolve_builtin(path: str) -> str:
    """The file behind ``builtin:NAME``; any other path as it is."""
    if not path.startswith("builtin:"):
        return path
    import rkvisor.etc

    return str(Path(rkvisor.etc.__file__).parent / "models" / f"{path.removeprefix('builtin:')}.toml")
