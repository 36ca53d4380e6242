"""Everything of one rkvisord, put together; and its stop in good order."""

from __future__ import annotations

import asyncio
import random
import signal

import zmq
from loguru import logger

from rkvisor.supervisor.admin import Admin
from rkvisor.supervisor.calls.setup import Setup
from rkvisor.supervisor.clock import SystemClock
from rkvisor.supervisor.config import Config, worker_endpoint
from rkvisor.supervisor.front.events import Events
from rkvisor.supervisor.front.frontend import Frontend
from rkvisor.supervisor.memory.asking import Asking
from rkvisor.supervisor.memory.probe import available_bytes
from rkvisor.supervisor.memory.watch import Memory
from rkvisor.supervisor.requests.admission import Requests
from rkvisor.supervisor.requests.dispatcher import Dispatcher
from rkvisor.supervisor.requests.endings import Endings
from rkvisor.supervisor.requests.faults import FaultWindow
from rkvisor.supervisor.requests.features import Features
from rkvisor.supervisor.service import Service
from rkvisor.supervisor.sessions.methods import SessionMethods
from rkvisor.supervisor.sessions.room import Sessions
from rkvisor.supervisor.status import Status
from rkvisor.supervisor.store.state import State
from rkvisor.supervisor.version import version
from rkvisor.supervisor.workers import order
from rkvisor.supervisor.workers.fleet import Fleet
from rkvisor.supervisor.workers.guard import Guard
from rkvisor.supervisor.workers.init_gate import InitGate
from rkvisor.supervisor.workers.lifecycle import Phase, Stop
from rkvisor.supervisor.workers.pool import Pool
from rkvisor.supervisor.workers.processes import Process
from rkvisor.supervisor.workers.recycler import Recycler

#: How long the last messages may take to reach clients before the sockets close, seconds.
FAREWELL_S = 0.5
#: How often the stop looks whether the workers are down, seconds.
LOOK_S = 0.01


class Server:
    """Opens the sockets when made (zmq.ZMQError where that fails).  stopped: done when the stop is complete."""

    def __init__(self, loop: asyncio.AbstractEventLoop, config: Config, node: str, epoch: str, chance: random.Random):
        self._loop = loop
        self._config = config
        self.stopped: asyncio.Future[None] = loop.create_future()
        self._is_stopping = False
        clock = SystemClock()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, 65_000)
        faults = FaultWindow(config.supervisor.fault_window_s)
        self._fleet = Fleet(loop, self._context, worker_endpoint(config), epoch)
        dispatchers: dict[str, Dispatcher] = {}
        self._requests = requests = Requests(config, clock, dispatchers)
        self.pools: dict[str, Pool] = {}
        self._events = events = Events(loop, clock, self._context, config.listen.events, node, epoch)
        self._state = State(loop, clock, config, requests, events)
        endings = Endings(clock, faults, requests.finish, self._pump_all)
        self._sessions = requests.sessions = sessions = Sessions(loop, clock, config, epoch, events)
        endings.on_session_end = sessions.on_end
        gate = InitGate()
        state_dir = config.supervisor.state_dir
        for name, section in config.models.items():
            guard = Guard(loop, clock, section, self._fleet, config.supervisor.budget_scale)
            dispatcher = Dispatcher(loop, clock, name, section, faults, endings, events, self._fleet.send, guard)
            dispatchers[name], dispatcher.sessions = dispatcher, sessions
            self.pools[name] = pool = Pool(
                loop, clock, chance.random, name, section, state_dir, self._fleet, dispatcher, gate, events
            )
            pool.on_change = self._on_change
        self._state.attach(self.pools)
        for name, section in config.models.items():
            dispatchers[name].fallback = dispatchers.get(section.fallback or "")
        self._levels = order.levels(
            {name: section.depends_on for name, section in config.models.items()},
            {name: section.priority for name, section in config.models.items()},
        )
        self._unstarted: list[str] = []
        self._features = Features(loop, clock, self.pools, events)
        admin = Admin(loop, clock, self.pools, self.stop, self._state.keep_wish)
        setup = Setup(loop, clock, self._fleet, self.pools)
        setup.on_configured = sessions.on_configured
        self._asking = Asking(clock, self._fleet, self.pools, sessions.on_configured)
        recycler = Recycler(loop, clock, chance.random, self.pools, available_bytes)
        rows = self._state.take_memory()
        self._memory = Memory(loop, clock, config.memory, epoch, self.pools, self._state.store, events, recycler, rows)
        setup.on_done = self._memory.on_call
        self._fleet.on_call_result, self._fleet.on_gone = setup.on_result, self._on_gone
        self._setup = setup
        setup.on_trouble = lambda worker, name, text: events.error(name, text, worker, "error")
        for pool in self.pools.values():
            pool.on_model_loaded = self._on_loaded
            pool.has_tracker = config.memory.tracker
        status = Status(clock, self.pools)
        status.troubles = setup.troubles
        service = Service(
            version(),
            node,
            epoch,
            requests,
            status,
            admin,
            self._state.crashes,
            self._state.letters,
            self._memory,
            setup,
            self._asking,
            SessionMethods(clock, config.models, sessions, requests.check_model, self._processes_of),
            has_diagnostics=config.diagnostics.enabled,
        )
        limits = config.limits

        def frontend(endpoints: list[str], *, is_admin: bool) -> Frontend:
            return Frontend(
                loop,
                clock,
                self._context,
                endpoints,
                service.handle,
                is_admin=is_admin,
                outbox_bytes=limits.outbox_bytes,
                message_bytes=limits.message_bytes,
                max_connections=limits.connections,
            )

        self._frontends = [
            frontend(config.listen.clients, is_admin=False),
            frontend([config.listen.admin], is_admin=True),
        ]
        clients = self._frontends[0].connections
        events.count_clients = lambda: len(clients)

    def _processes_of(self, model: str) -> list[Process]:
        return [slot.process for slot in self.pools[model].slots if slot.process is not None]

    def _on_loaded(self, model: str, process: Process) -> None:
        self._setup.on_loaded(model, process)
        self._memory.on_loaded()

    def _on_gone(self, process: Process) -> None:
        self._setup.on_gone(process)
        self._sessions.on_gone(process)
        self._memory.on_gone(process)
        self._asking.on_gone(process)

    def _pump_all(self) -> None:
        for pool in self.pools.values():
            self._loop.call_soon(pool.dispatcher.pump)

    def start(self) -> None:
        """Start the workers, by what their models depend on and by priority."""
        self._memory.start()
        self._unstarted = [name for level in self._levels for name in level]
        self._start_dependants()

    def _on_change(self) -> None:
        self._start_dependants()
        self._features.look()

    def _start_dependants(self) -> None:
        """Start the models that wait for nothing any more."""
        for name in list(self._unstarted):
            needed = self.pools[name].section.depends_on
            if name in self._unstarted and all(self._is_running(other) for other in needed):
                self._unstarted.remove(name)
                self.pools[name].autostart()

    def _is_running(self, name: str) -> bool:
        return any(slot.phase is Phase.RUNNING for slot in self.pools[name].slots)

    def log_state(self) -> None:
        """Write what runs and waits to the log (SIGUSR1, SIGUSR2)."""
        logger.info("{} request(s), {} process(es)", self._requests.live, len(self._fleet.processes))
        for name, pool in self.pools.items():
            circuit = pool.dispatcher.recovery.breaker.circuit.value
            logger.info("model {}: {} waiting, circuit {}", name, len(pool.dispatcher.queue), circuit)
            for slot in pool.slots:
                job = f"job {slot.job.number}" if slot.job is not None else "idle"
                logger.info("{}: {} pid {} {} {}", slot.name, slot.phase.name, slot.pid, job, slot.trouble)

    def stop(self) -> None:
        """Stop admitting, let requests finish, end the workers; a second call does not wait for requests."""
        if self._is_stopping:
            logger.warning("stopping at once")
            self._requests.abort_all()
            for process in list(self._fleet.processes.values()):
                process.send_signal(signal.SIGKILL)
            return
        self._is_stopping = True
        logger.info("stopping: {} request(s) may finish", self._requests.live)
        self._unstarted = []
        text = "rkvisord is shutting down, please reconnect after restart"
        self._events.error("SERVER_SHUTDOWN", text, "rkvisord", "critical")
        self._requests.is_closing = True
        for pool in self.pools.values():
            pool.is_closing = True
        self._wait_for_requests(self._loop.time() + max(pool.section.stopwaitsecs for pool in self.pools.values()))

    def _wait_for_requests(self, until_s: float) -> None:
        if self._requests.live and self._loop.time() < until_s:
            self._loop.call_later(LOOK_S, self._wait_for_requests, until_s)
            return
        self._requests.abort_all()
        self._stop_level(list(self._levels))

    def _stop_level(self, left: list[list[str]]) -> None:
        """Stop the models of the last level that is left, then those below."""
        level = [self.pools[name] for name in (left.pop() if left else ())]
        for pool in level:
            pool.release()
            for slot in pool.slots:
                slot.feed(Stop())
        self._wait_for_level(level, left)

    def _wait_for_level(self, level: list[Pool], left: list[list[str]]) -> None:
        if any(slot.phase is Phase.STOPPING for pool in level for slot in pool.slots):
            self._loop.call_later(LOOK_S, self._wait_for_level, level, left)
        elif left:
            self._stop_level(left)
        else:
            self._wait_for_processes()

    def _wait_for_processes(self) -> None:
        if self._fleet.processes:
            self._loop.call_later(LOOK_S, self._wait_for_processes)
            return
        self._wait_for_clients(self._loop.time() + FAREWELL_S)

    def _wait_for_clients(self, until_s: float) -> None:
        if self._loop.time() < until_s and not all(frontend.is_flushed for frontend in self._frontends):
            self._loop.call_later(LOOK_S, self._wait_for_clients, until_s)
            return
        for frontend in self._frontends:
            frontend.close()
        for pool in self.pools.values():
            pool.dispatcher.close()
        self._sessions.shut()
        self._features.close()
        self._events.close()
        self._memory.close()
        self._fleet.close()
        self._context.term()
        self._state.close()
        logger.info("stopped")
        if not self.stopped.done():
            self.stopped.set_result(None)
