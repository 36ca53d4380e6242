"""Crash reports: collected at each death, grouped, told of at a limited rate, stored.  ``report.py`` concludes.

A report waits for its turn on the loop: it is put together after the slot was refilled and its request sent again.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections import deque
from dataclasses import replace
from typing import Any

import msgspec
from loguru import logger

from rkvisor.protocol.crashes import CrashGroup, CrashReport, Phase
from rkvisor.protocol.errors import InvalidParams
from rkvisor.protocol.methods import CrashesParams
from rkvisor.protocol.nearest import no_such
from rkvisor.supervisor.clock import Clock
from rkvisor.supervisor.config import ModelSection
from rkvisor.supervisor.crashes import kernel
from rkvisor.supervisor.crashes.classes import Context
from rkvisor.supervisor.crashes.report import Death, conclude, gather, phase_of
from rkvisor.supervisor.crashes.signature import signature
from rkvisor.supervisor.front.events import Events
from rkvisor.supervisor.front.replies import Reply
from rkvisor.supervisor.rate import Limiter, untold
from rkvisor.supervisor.requests.jobs import Job
from rkvisor.supervisor.store.database import Store
from rkvisor.supervisor.store.rows import add_to_group
from rkvisor.supervisor.workers.processes import Exit, Process

#: Of the model's parameters, those that say how it uses the NPU (requirements S3.7).
_NPU_PARAM = ("base_domain_id", "enabled_cpus_num", "enabled_cpus_mask", "n_batch")


class Crashes:
    """fault_window_s: deaths of several workers within it have one cause.  groups: of the reports before this start.

    workers: those that are configured.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        store: Store,
        events: Events,
        fault_window_s: float,
        groups: dict[str, CrashGroup],
    ):
        self._loop = loop
        self._clock = clock
        self._store = store
        self._events = events
        self._window_s = fault_window_s
        self.groups = groups
        self.workers: set[str] = set()
        self._limiter = Limiter()
        self._boot_id = kernel.boot_id()
        self._oom = kernel.OomKills()
        self._driver = kernel.npu_driver()
        self._deaths: deque[tuple[float, str, bytes | None]] = deque()

    def died(
        self,
        worker: str,
        section: ModelSection,
        process: Process,
        exit_: Exit,
        *,
        job: Job | None = None,
        was_stopping: bool = False,
    ) -> None:
        """*process* is gone; *job* is what it had been given.  was_stopping: it had been asked to end."""
        if process.has_failed and exit_.signal is None:
            return  # it said itself why it could not load
        if was_stopping and (exit_.signal is None or exit_.signal in process.sent) and not exit_.note:
            return  # as asked
        begun = job is not None and process.last.job == job.number
        phase = phase_of(
            process.last,
            None if job is None else job.number,
            was_told=process.taken_s > 0 or process.ready is not None,
            is_ready=process.ready is not None,
            was_stopping=was_stopping,
        )
        death = self._death(worker, section, process, exit_, phase)
        self._loop.call_soon(self._report, death, job if begun else None)

    def _death(self, worker: str, section: ModelSection, process: Process, exit_: Exit, phase: Phase) -> Death:
        """What is known of it by now."""
        ready, was_ours, trouble = process.ready, exit_.signal in process.sent, process.trouble
        if was_ours and phase == "loading":
            trouble = trouble or "hung: its model was not loaded within its budget"
        return Death(
            worker=worker,
            model=worker.partition(":")[0],
            pid=process.pid,
            incarnation=process.incarnation,
            status=exit_.status,
            how=exit_.describe(),
            note=exit_.note,
            log=list(process.log),
            trouble=trouble,
            phase=phase,
            uptime_s=self._clock.monotonic() - (process.taken_s or process.started_s),
            requests=process.last.served,
            rss_bytes=process.last.rss_bytes,
            peak_rss_bytes=exit_.peak_rss_bytes,
            supervisor_pid=os.getpid(),
            was_ours=was_ours,
            runtime=section.runtime,
            family=ready.family if ready is not None else section.abi,
            runtime_version=ready.version if ready is not None else None,
            npu=self._npu(section, process),
        )

    def _npu(self, section: ModelSection, process: Process) -> dict[str, Any]:
        if section.runtime != "rknpu":
            return {}
        param = process.ready.param if process.ready is not None else section.param
        return {"driver_version": self._driver} | {name: param[name] for name in _NPU_PARAM if name in param}

    def _report(self, death: Death, job: Job | None) -> None:
        oom_kills = self._oom.since_last() if death.how == "SIGKILL" else None
        death = replace(death, digest=job.digest if job is not None else None, oom_kills=oom_kills)
        evidence = gather(death)
        key = signature(evidence)
        known = self.groups.get(key)
        context = Context(earlier=known.count if known else 0, others=self._count_others(death))
        report = conclude(
            evidence,
            context,
            id=secrets.token_hex(4),
            time=self._clock.wall(),
            boot_id=self._boot_id,
            key=key,
        )
        add_to_group(self.groups, report)
        self._store.put_crash(report.id, report.worker, report.signature, msgspec.json.encode(report))
        self._tell(report)

    def _count_others(self, death: Death) -> int:
        """Other workers that died just now, of something else than the same request."""
        now_s = self._clock.monotonic()
        while self._deaths and now_s - self._deaths[0][0] > self._window_s:
            self._deaths.popleft()
        others = {
            worker
            for _, worker, digest in self._deaths
            if worker != death.worker and (digest is None or digest != death.digest)
        }
        self._deaths.append((now_s, death.worker, death.digest))
        return len(others)

    def _tell(self, report: CrashReport) -> None:
        how = report.signal or f"exit status {report.status}"
        suppressed = self._limiter.admit((how, report.worker), self._clock.monotonic())
        if suppressed is None:
            logger.debug("{} [{}]", report.error, report.id)
            return
        text = f"{report.error}; {report.class_}: {report.hint}; crash {report.id}"
        logger.warning("{}{}", text, untold(suppressed))
        self._events.error(
            "WORKER_CRASHED",
            report.error,
            report.worker,
            report.severity,
            report.signature,
            {"id": report.id, "class": report.class_, "pid": report.pid, "suppressed": suppressed},
        )

    def list(self, params: CrashesParams, reply: Reply) -> None:
        """``system.crashes``.  Raises InvalidParams for a worker neither configured nor known to have died."""
        known = {*self.workers, *(name for group in self.groups.values() for name in group.workers)}
        if params.worker is not None and params.worker not in known:
            why = no_such("worker", params.worker, sorted(known))
            raise InvalidParams(f"cannot list the crashes of {params.worker!r}: {why}")
        groups = msgspec.json.encode(list(reversed(self.groups.values())))

        def tell(bodies: list[bytes] | None) -> None:
            reply.result(b'{"crashes":[%b],"groups":%b}' % (b",".join(bodies or ()), groups))

        self._store.list_crashes(params.limit, params.worker, params.id, tell)
