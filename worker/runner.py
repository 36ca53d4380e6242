"""The thread that owns the model: it loads, runs, calls and unloads, one thing after another.

It never touches the socket.  The runtime is called with the GIL released; the callbacks copy and enqueue, and the
socket thread is woken through an eventfd.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from rkvisor.protocol import link
from rkvisor.protocol.errors import InternalError, NotSupported, RkllmFailure, RkvisorError
from rkvisor.protocol.page import Page
from rkvisor.protocol.run import RunParams
from rkvisor.worker.bounds import bound, end_tracker
from rkvisor.worker.crash import CrashNotes
from rkvisor.worker.interlude import Interlude

#: What the model's callbacks return from hidden and logits modes: release the output buffer (F5; else memory grows).
RELEASE = 2
#: The states of callbacks that bring a token: RKLLM_RUN_NORMAL and RKLLM_RUN_WAITING.
BRINGS_TOKEN = (0, 1)


class Runner:
    """results: (what, details …) for the socket thread, which ``wake_fd`` wakes.  name: of the worker, for errors."""

    def __init__(self, page: Page, notes: CrashNotes):
        self._page = page
        self._notes = notes
        self._progress = self._tokens_in = self._tokens_out = 0
        self._todo: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self.interlude = Interlude(self._todo)
        self._is_woken = False
        self._returns = 0
        self.results: deque[tuple[Any, ...]] = deque()
        self.wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.name = "spare"
        self.aborted_job = 0
        self.muted: Callable[[int, int], int] | None = None
        self._job = 0
        self._is_in_step = False
        self._step = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._serve, name="runner", daemon=True)

    # For the socket thread.

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, what: str, *details: Any) -> None:
        """Let the runner do *what*, after what it does already."""
        self._todo.put((what, *details))

    def rearm(self) -> None:
        """The socket thread is about to look at the results: from now on, new ones wake it again."""
        self._is_woken = False

    def go_on(self) -> None:
        """The token of a run in step was looked at: the runtime may go on to the next."""
        self._step.release()

    # The thread.

    def tick(self) -> None:
        """Progress that no callback tells of."""
        self._progress += 1
        self._page.step(self._progress, time.monotonic())

    def is_aborted(self) -> bool:
        """Whether somebody asked for the abort of the run at hand."""
        return self.aborted_job == self._job

    def _push(self, *item: Any) -> None:
        self.results.append(item)
        if not self._is_woken:
            self._is_woken = True
            os.eventfd_write(self.wake_fd, 1)

    def _on_result(self, state: int, item: int, token_id: int, text: bytes | None, extra: dict[str, Any] | None) -> int:
        self.tick()
        if text is not None:
            self._tokens_out += 1
        if extra is not None and "perf" in extra:
            self._tokens_in = extra["perf"][1]
        if self.muted is not None:
            return self.muted(state, token_id)
        self._push("token", state, item, token_id, text, extra)
        if self._is_in_step and state in BRINGS_TOKEN:
            self._step.acquire()
        return self.interlude.verdict(self._job, state) or self._returns

    def _serve(self) -> None:
        self._notes.cover_runner()
        model: Any = None
        prepared: Any = None
        while True:
            what, *details = self.interlude.next()
            if what == "prepare":
                prepared = self._prepare(details[0])
            elif what == "load":
                model, prepared = self._load(details[0], prepared), None
            elif what == "run":
                outcome = self._run(model, *details)
                self._page.served(*self._notes.resident(), self._tokens_in, self._tokens_out)
                self._count()
                self._push("done", outcome)
            elif what == "call":
                self._answer(model, *details)
            elif what == "ask":
                self._push("asked", details[0], self._ask(model, *details[1:]))
            elif what == "stop":
                if model is not None:
                    model.runtime.destroy()
                    end_tracker()
                details[0].set()

    def _prepare(self, load: link.Load) -> Any:
        """All of a load but the init; None where that fails: LOAD will meet it again, and tell."""
        from rkvisor.worker.loading import Prepared
        from rkvisor.worker.preflight import CannotLoad

        try:
            return Prepared(load, self._notes.refresh)
        except CannotLoad:
            return None

    def _load(self, load: link.Load, prepared: Any) -> Any:
        from rkvisor.worker.loading import Prepared
        from rkvisor.worker.model import Model
        from rkvisor.worker.preflight import CannotLoad

        bound(load)
        try:
            if prepared is None or prepared.load != msgspec.structs.replace(load, worker=prepared.load.worker):
                prepared = Prepared(load, self._notes.refresh)
            model = Model(prepared, self._on_result)
        except CannotLoad as error:
            body = error.error.to_object(time.time())
            self._push("failed", link.LoadFailed(error=body, is_permanent=error.is_permanent))
            return None
        self._notes.refresh()
        self._page.rest(*self._notes.resident())
        self._count()
        self._push("ready", model)
        return model

    def _run(
        self, model: Any, job: int, what: Any, params: RunParams, run: link.Run, limit: int, is_in_step: bool
    ) -> int | RkvisorError:
        self._job, self._is_in_step = job, is_in_step
        self._tokens_in = self._tokens_out = 0
        self.interlude.begin()
        if self.is_aborted():
            return 0
        self._tokens_in = about_tokens(what)
        self._page.begin(job)
        self._returns = RELEASE if params.mode != "generate" and model.runtime.family == "F5" else 0
        outcome: int | RkvisorError = self._guarded(
            lambda: model.run(what, params, run, limit, self), "run the request"
        )
        while outcome == 0 and self.interlude.number:
            outcome = self._rest(model, job, params, limit)
        return outcome

    def _rest(self, model: Any, job: int, params: RunParams, limit: int) -> int | RkvisorError:
        """The run is paused: wait, and let it go on to its end or to the next pause.  Its outcome."""
        text = None
        if not self.is_aborted():
            self._push("paused", self.interlude.number)
            text = self.interlude.wait(job, lambda *details: self._answer(model, *details))
        self.interlude.begin()
        if text is None:
            model.runtime.abort()  # else the next run would resume this one
            return 0
        outcome: int | RkvisorError = self._guarded(lambda: model.resume(text, params, limit), "resume the request")
        return outcome

    def _ask(self, model: Any, name: str, raw_params: bytes) -> bytes | RkvisorError:
        from rkvisor.worker.trials import Trials

        def mute(hears: Callable[[int, int], int] | None) -> None:
            self.muted = hears

        trials = Trials(model, self.name, self._notes.rss_bytes, mute)
        outcome = self._guarded(lambda: trials.perform(name, raw_params), name)
        return outcome if isinstance(outcome, RkvisorError) else msgspec.json.encode(outcome)

    def _answer(self, model: Any, number: int, *details: Any) -> None:
        self._push("called", number, self._call(model, *details))

    def _count(self) -> None:
        """Tell what this process holds by its own count; that takes a microsecond."""
        from rkvisor.cython_ext import _rkllm

        self._page.count(_rkllm.held()[1], sys.getallocatedblocks())

    def _call(self, model: Any, name: str, raw_params: bytes, attachments: list[bytes]) -> bytes | RkvisorError:
        outcome = self._guarded(lambda: model.chat.call(name, raw_params, attachments), f"call {name}")
        if isinstance(outcome, RkvisorError):
            return outcome
        return msgspec.json.encode(outcome)

    def _guarded(self, act: Any, what: str) -> Any:
        """The result of *act*, or the catalogue error that its exception stands for."""
        from rkvisor.cython_ext import _rkllm

        try:
            return act()
        except RkvisorError as error:
            return error
        except _rkllm.RkllmError as error:
            text = f"{error.function} returned {error.status}"
            return RkllmFailure("RKLLM_INFERENCE_ERROR", text, component=self.name)
        except _rkllm.NotSupported as error:
            return NotSupported(f"cannot {what}: {error}", component=self.name)
        except Exception as error:  # the loop guard: a fault of ours must not end as silence
            return InternalError(f"cannot {what}: {type(error).__name__}: {error}", component=self.name)


def about_tokens(what: Any) -> int:
    """How many tokens *what* prefills, until a runtime of F4 or later tells; a prompt has about 3 bytes a token."""
    items = what if isinstance(what, list) else [what]
    return sum(
        item.n_tokens or (len(item.tokens) if item.tokens is not None else len(item.prompt or "") // 3)
        for item in items
    )
