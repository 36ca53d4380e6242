"""The worker process: one thread owns the socket, one runs the model (``runner.py``).

The socket thread serves pings, aborts and the lifeline whatever the runtime does.  The process ends when its lifeline
does: rkvisord is gone then.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import setproctitle
import zmq

from rkvisor.protocol import link
from rkvisor.protocol.errors import RkvisorError
from rkvisor.protocol.link import Kind
from rkvisor.protocol.page import SIZE_BYTES, Page
from rkvisor.protocol.params import decode_params
from rkvisor.protocol.run import RunParams
from rkvisor.worker.bootstrap import bootstrap
from rkvisor.worker.generation import Generation
from rkvisor.worker.history import dressed
from rkvisor.worker.runner import BRINGS_TOKEN, Runner
from rkvisor.worker.stream import Group

#: Bytes of an attachment from which on ZeroMQ takes the buffer itself instead of a copy.
ZERO_COPY_BYTES = 65_536


_SNDMORE = int(zmq.SNDMORE)


class Worker:
    """socket: DEALER, connected.  lifeline: descriptor of the socketpair's end.  sigterm: see ``hear_sigterm``."""

    def __init__(self, socket: zmq.Socket[bytes], incarnation: int, lifeline: int, sigterm: int, runner: Runner):
        self._socket = socket
        below: Any = super(zmq.Socket, socket)  # without pyzmq's conveniences
        self._send_frame: Callable[[bytes, int], Any] = below.send
        self._sigterm = sigterm
        self._incarnation = incarnation
        self._lifeline = lifeline
        self._runner = runner
        self._model: Any = None
        self._job = 0
        self._generation: Generation | None = None

    def serve(self) -> NoReturn:
        """Serve until the lifeline ends or a STOP comes."""
        self._runner.start()
        self._title("blank")
        start_time = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        hello = link.Hello(pid=os.getpid(), start_time=start_time, incarnation=self._incarnation, epoch=sys.argv[3])
        self._send(Kind.HELLO, link.encode_body(hello))
        poller = zmq.Poller()
        for source in (self._socket, self._runner.wake_fd, self._lifeline, self._sigterm):
            poller.register(source, zmq.POLLIN)
        while True:
            ready = dict(poller.poll())
            if self._lifeline in ready:
                os._exit(0)  # nobody is left to serve, and the runtime may hang in destroy
            if self._sigterm in ready:
                self._terminate()
            if self._runner.wake_fd in ready:
                self._drain_results()
            if self._socket in ready:
                self._drain_socket()

    def _title(self, state: str) -> None:
        setproctitle.setproctitle(f"rkvisor: {self._runner.name} [{state}]")

    def _send(self, kind: Kind, *bodies: bytes, job: int = 0) -> None:
        self._send_parts(link.pack(kind, self._incarnation, job), *bodies)

    def _send_parts(self, *parts: bytes) -> None:
        """pyzmq's send_multipart costs ten times as much (seen)."""
        for part in parts[:-1]:
            self._send_frame(part, _SNDMORE)
        self._send_frame(parts[-1], 0)

    # What rkvisord says.

    def _drain_socket(self) -> None:
        with contextlib.suppress(zmq.Again):
            while True:
                parts = self._socket.recv_multipart(zmq.NOBLOCK)
                header = link.unpack(parts[0])
                if header.incarnation == self._incarnation:
                    self._on_message(header, parts[1:])

    def _on_message(self, header: link.Header, bodies: list[bytes]) -> None:
        match header.kind:
            case Kind.RUN:
                self._on_run(header.job, bodies[0], bodies[1], bodies[2:])
            case Kind.CONTROL:
                self._runner.put("call", header.job, link.decode_call(bodies[0]).name, bodies[1], bodies[2:])
            case Kind.ABORT:
                self._on_abort(header.job)
            case Kind.PAUSE:
                self._runner.interlude.ask(header.job, link.decode_pause(bodies[0]).number)
            case Kind.RESUME:
                resume = link.decode_resume(bodies[0])
                self._title("running")
                self._runner.put("resume", header.job, resume.number, resume.text)
            case Kind.ASK:
                self._on_ask(header.job, link.decode_call(bodies[0]).name, bodies[1])
            case Kind.PING:
                self._send(Kind.PONG)
            case Kind.LOAD:
                load = link.decode_load(bodies[0])
                self._runner.name = load.worker
                self._title("loading")
                self._runner.put("load", load)
            case Kind.PREPARE:
                self._runner.put("prepare", link.decode_load(bodies[0]))
            case Kind.STOP:
                self._leave(0)

    def _on_run(self, job: int, body: bytes, raw_params: bytes, attachments: Sequence[bytes]) -> None:
        from rkvisor.worker.inputs import build
        from rkvisor.worker.prompts import check_context

        run = link.decode_run(body)
        self._job = job
        self._runner.name = run.worker
        model = self._model
        try:
            params: RunParams = decode_params(RunParams, raw_params)
            if run.prompt_cache:
                params = msgspec.structs.replace(params, prompt_cache=run.prompt_cache)
            if run.session is not None:
                params = dressed(params, run.session)
            given, params = params, model.prompts.resolve(params, run)
            limit = model.limit(params)
            model.infer(params, limit)
            what = build(params, attachments, model.dimensions)
            length = model.prompts.measure(given, params, run)
            max_context = int(model.param.get("max_context_len", 2**31))
            check_context(length, max_context, self._runner.name)
        except RkvisorError as error:
            self._send_error(error)
            return
        if given.tokens is None and not length.is_estimate:
            self._send(Kind.PROMPT, link.encode_body(link.Prompt(tokens=length.tokens)), job=job)
        # A turn must end where its answer does, so that the KV cache holds what the history says: then each token is
        # looked at before the runtime goes on to the next.
        is_in_step = run.session is not None and (bool(params.stop) or not model.is_native(limit))
        self._generation = Generation(
            params, run, limit, max_context, self._send_group, self._abort_runtime, is_in_step=is_in_step, length=length
        )
        self._title("running")
        self._runner.aborted_job = 0  # the same job may have been aborted here as hung, and begin anew
        self._runner.put("run", job, what, params, run, limit, is_in_step)

    def _on_abort(self, job: int) -> None:
        if job == self._job and self._generation is not None:
            self._generation.is_aborted = True
            self._abort_runtime()

    def _abort_runtime(self) -> None:
        self._runner.aborted_job = self._job
        self._model.runtime.abort()
        if self._runner.interlude.number:
            self._runner.put("aborted", self._job)  # no callback of the runtime wakes a paused run

    def _send_group(self, seq: int, group: Group) -> None:
        head = link.pack(Kind.TOKEN, self._incarnation, self._job, seq, group.ids)
        self._send_parts(head, link.encode_fragment(seq, group.text, group.ids))

    def _send_error(self, error: RkvisorError) -> None:
        self._send(Kind.ERROR, msgspec.json.encode(error.to_object(time.time())), job=self._job)
        self._job, self._generation = 0, None

    def _on_ask(self, number: int, name: str, raw_params: bytes) -> None:
        """A question about this process's memory; only tests need the thread that runs the model."""
        from rkvisor.worker.trials import tracker_state

        if name == "memory_tracker_status":
            self._send(Kind.ANSWER, msgspec.json.encode(tracker_state()), b"", job=number)
        else:
            self._runner.put("ask", number, name, raw_params)

    # What the runner says.

    def _drain_results(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._runner.wake_fd)
        self._runner.rearm()
        results = self._runner.results
        while results:
            what, *details = results.popleft()
            if what == "token":
                if self._generation is not None:
                    self._generation.on_result(*details)
                    if self._generation.is_in_step and details[0] in BRINGS_TOKEN:
                        self._runner.go_on()
            elif what == "done":
                self._on_done(details[0])
            elif what == "called":
                self._on_called(Kind.CONTROL_RESULT, *details)
            elif what == "asked":
                self._on_called(Kind.ANSWER, *details)
            elif what == "paused":
                self._title("paused")
                self._send(Kind.PAUSED, link.encode_body(link.Pause(number=details[0])), job=self._job)
            elif what == "ready":
                self._model = details[0]
                self._title("ready")
                self._send(Kind.READY, link.encode_body(self._model.ready))
            elif what == "failed":
                self._send(Kind.LOAD_FAILED, link.encode_body(details[0]))
                self._leave(1)

    def _on_done(self, outcome: int | RkvisorError) -> None:
        generation = self._generation
        if generation is None:
            return
        self._title("ready")
        generation.is_restored, generation.filled = self._model.conversation.is_restored, self._model.conversation.size
        answer = generation.finish(outcome, self._runner.name)
        if isinstance(answer, RkvisorError):
            self._send_error(answer)
            return
        job, self._job, self._generation = self._job, 0, None
        if (turn := generation.turn_end()) is not None:
            self._model.conversation.commit(generation.session, job, generation.ids)
            self._send(Kind.TURN, link.encode_body(turn), job=job)
        parts = [link.pack(Kind.RESULT, self._incarnation, job), answer, *generation.attachments]
        self._socket.send_multipart(parts, copy=all(len(part) < ZERO_COPY_BYTES for part in parts))

    def _on_called(self, kind: Kind, number: int, outcome: bytes | RkvisorError) -> None:
        if isinstance(outcome, RkvisorError):
            error = msgspec.json.encode(outcome.to_object(time.time()))
            self._send(kind, b"", error, job=number)
        else:
            self._send(kind, outcome, b"", job=number)

    # The end.

    def _leave(self, status: int) -> NoReturn:
        """Send what was said, then exit without the interpreter's teardown: the runtime's threads may still live."""
        self._socket.close(linger=500)
        self._socket.context.term()
        os._exit(status)

    def _terminate(self) -> NoReturn:
        """SIGTERM: unload the model if it is idle, then exit."""
        print("rkvisor: ending because of SIGTERM", file=sys.stderr, flush=True)
        if self._generation is None:
            done = threading.Event()
            self._runner.put("stop", done)
            done.wait(5.0)
        os._exit(0)


def hear_sigterm() -> int:
    """From now on SIGTERM does nothing but make the returned descriptor readable.

    A handler that raises would be lost where it runs between the last look at signals and the wait behind it, or where
    another thread is chosen to take the signal: the socket thread would then wait for ever.
    """
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    return read_fd


def main() -> NoReturn:
    """Become a worker process; see ``__main__.py`` for the arguments."""
    endpoint, incarnation, _epoch, lifeline, parent, page_fd = sys.argv[1:7]
    notes = bootstrap(int(parent), int(lifeline))
    sigterm = hear_sigterm()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.set(zmq.ROUTING_ID, b"p%d" % int(incarnation))
    socket.set(zmq.LINGER, 0)
    socket.set(zmq.SNDHWM, 0)  # the stream of one request is bounded by the longest context
    socket.connect(endpoint)
    import rkvisor.worker.inputs
    import rkvisor.worker.model  # noqa: F401  a spare has its imports up

    decode_params(RunParams, b'{"model":"-","prompt":""}')  # and its decoder made: a cut stream would wait for it, 2 ms

    runner = Runner(Page(mmap.mmap(int(page_fd), SIZE_BYTES)), notes)
    Worker(socket, int(incarnation), int(lifeline), sigterm, runner).serve()
