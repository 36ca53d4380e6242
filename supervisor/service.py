"""The method table of rkvisord: each JSON-RPC method beside what it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from rkvisor.protocol import openrpc
from rkvisor.protocol.calls import CALLS
from rkvisor.protocol.constants import CONSTANTS
from rkvisor.protocol.diagnostics import DIAGNOSTICS
from rkvisor.protocol.errors import InvalidParams, MethodNotFound, NotAuthorised
from rkvisor.protocol.jsonrpc import Request
from rkvisor.protocol.limits import PROTOCOL_VERSION
from rkvisor.protocol.methods import METHODS, ModelParams, NamesParams, SystemVersion
from rkvisor.protocol.nearest import nearest
from rkvisor.protocol.params import Params, decode_params
from rkvisor.supervisor import diagnostics
from rkvisor.supervisor.admin import Admin
from rkvisor.supervisor.calls.setup import Setup
from rkvisor.supervisor.crashes.recorder import Crashes
from rkvisor.supervisor.front.replies import Reply
from rkvisor.supervisor.memory.asking import Asking
from rkvisor.supervisor.memory.watch import Memory
from rkvisor.supervisor.requests.admission import Requests
from rkvisor.supervisor.requests.deadletters import DeadLetters
from rkvisor.supervisor.sessions.methods import SessionMethods
from rkvisor.supervisor.status import Status

Act = Callable[[Any, Reply], Any]
#: Returned by a method that answers later.
LATER = object()


class Service:
    """node, epoch: identities.  version: of rkvisor.  has_diagnostics: serve the ``test_*`` methods."""

    def __init__(
        self,
        version: str,
        node: str,
        epoch: str,
        requests: Requests,
        status: Status,
        admin: Admin,
        crashes: Crashes,
        letters: DeadLetters,
        memory: Memory,
        setup: Setup,
        asking: Asking,
        sessions: SessionMethods,
        *,
        has_diagnostics: bool = False,
    ):
        self._requests = requests
        self._setup = setup
        self._status = status
        self._admin = admin
        identity = SystemVersion(version=version, protocol=PROTOCOL_VERSION, node=node, epoch=epoch)
        self._methods = METHODS | DIAGNOSTICS if has_diagnostics else METHODS
        self._acts: dict[str, Act] = {
            "rkllm.abort": lambda params, reply: {"aborted": requests.abort(params, reply.connection)},
            "rkllm.pause": self._answers(requests.pause),
            "rkllm.resume": lambda params, reply: {"resumed": requests.resume(params, reply.connection)},
            "rkllm.is_running": lambda params, reply: {"is_running": requests.is_running(params, reply.connection)},
            "rkllm.createDefaultParam": lambda params, _: requests.default_param(params.model),
            "rkllm.get_constants": lambda *_: CONSTANTS,
            "session.open": lambda params, reply: sessions.open(params, reply.connection.principal),
            "session.close": lambda params, reply: sessions.close(params, reply.connection.principal),
            "session.list": lambda _, reply: sessions.list(reply.connection.principal),
            "session.history": lambda params, reply: sessions.history(params, reply.connection.principal),
            "model.info": lambda params, _: status.info(requests.check_model(params.model)),
            "model.load": self._loads,
            "model.unload": self._unloads,
            "model.list": lambda *_: status.models(),
            "system.status": lambda *_: status.system(node, epoch),
            "system.version": lambda *_: identity,
            "rpc.discover": lambda *_: openrpc.document(version, has_diagnostics=has_diagnostics),
            "admin.processes": lambda *_: admin.processes(),
            "admin.pid": lambda *_: admin.pid(),
            "admin.shutdown": lambda *_: admin.shutdown(),
            "admin.start": self._later(admin.start),
            "admin.stop": self._later(admin.stop),
            "memory.report": self._answers(memory.report),
            "system.crashes": self._answers(crashes.list),
            "memory_tracker_status": self._answers(asking.tracker_status),
            "test_memory_leak_detection": self._answers(asking.leak_detection),
            "test_memory_cleanup": self._answers(asking.cleanup),
            "test_array_memory_handling": self._answers(asking.arrays),
            "admin.dead_letters": self._answers(letters.list),
            "admin.dead_letter": self._answers(letters.show),
            "admin.release": self._answers(letters.release),
            "admin.purge": self._answers(letters.purge),
            **{name: self._tests(act) for name, act in diagnostics.ACTS.items()},
        }

    @staticmethod
    def _later(act: Callable[[list[str], Callable[[Any], None]], None]) -> Act:
        def later(params: NamesParams, reply: Reply) -> Any:
            act(params.names, lambda result: reply.result(msgspec.json.encode(result)))
            return LATER

        return later

    def _loads(self, params: ModelParams, reply: Reply) -> Any:
        """Start every worker of the model; refused unless one of them runs in the end."""
        model = self._requests.check_model(params.model)

        def tell(_: Any) -> None:
            state = self._status.state(model)
            if state.state == "RUNNING":
                reply.result(msgspec.json.encode(state))
            else:
                reply.error(self._requests.unavailable(model))

        self._admin.start([model], tell)
        return LATER

    def _unloads(self, params: ModelParams, reply: Reply) -> Any:
        """Stop every worker of the model, once their requests are done."""
        model = self._requests.check_model(params.model)
        self._admin.stop([model], lambda _: reply.result(msgspec.json.encode(self._status.state(model))))
        return LATER

    @staticmethod
    def _tests(act: Callable[[Any], Any]) -> Act:
        return lambda params, _: act(params)

    @staticmethod
    def _answers(act: Callable[[Any, Reply], None]) -> Act:
        """Of a method that answers by itself, once the store has."""

        def later(params: Params, reply: Reply) -> Any:
            act(params, reply)
            return LATER

        return later

    def handle(self, request: Request, reply: Reply, attachments: list[bytes], is_admin: bool) -> None:
        """Do what *request* asks (frontend.Handler).  Raises catalogue errors."""
        if request.method == "rkllm.run":
            self._requests.run(request, reply, attachments)
            return
        method = self._methods.get(request.method)
        if method is None:
            raise self._unknown(request.method, is_admin)
        if method.admin and not is_admin:
            raise NotAuthorised(f"cannot call {request.method} here: it is served on the admin socket only")
        params: Params = decode_params(method.params, request.params)
        if request.method in CALLS:
            self._requests.check_model(params.model)  # type: ignore[attr-defined]
            self._setup.call(request.method, params, attachments, reply)
            return
        if attachments and reply.batch is None:
            raise InvalidParams(f"cannot take {len(attachments)} attachment frames: {request.method} refers to none")
        result = self._acts[request.method](params, reply)
        if result is not LATER:
            reply.result(msgspec.json.encode(result))

    def _unknown(self, name: str, is_admin: bool) -> MethodNotFound:
        known = [one for one, method in self._methods.items() if is_admin or not method.admin]
        near = nearest(name, known)
        hint = f"did you mean {near}?" if near else "rpc.discover lists the methods"
        shown = name if len(name) <= 64 else name[:64] + "…"
        return MethodNotFound(f"cannot call {shown!r}: no such method; {hint}")
