"""The Python client of rkvisor: ``Client`` blocks, ``AsyncClient`` runs in asyncio; both share one pure core.

    from rkvisor.client import Client

    with Client("ipc:///run/rkvisor/client.sock") as client:
        for token in client.stream(model="demo", prompt="Hello"):
            print(token.text, end="")

The names below are imported when first used: ``rkvisorctl`` needs ``client.endpoint`` alone and must start fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rkvisor.client.aio import AsyncClient, AsyncStream
    from rkvisor.client.blocking import Client, Stream
    from rkvisor.client.errors import CallTimeout, ConnectionLost, NoServer, UnreadableReply
    from rkvisor.client.replies import Progress, Token
    from rkvisor.client.session import AsyncSession, Session
    from rkvisor.client.tensors import Result, Tensor
    from rkvisor.client.wire import Keys
    from rkvisor.protocol.errors import RkvisorError
    from rkvisor.protocol.run import RunResult

__all__ = [
    "AsyncClient",
    "AsyncSession",
    "AsyncStream",
    "CallTimeout",
    "Client",
    "ConnectionLost",
    "Keys",
    "NoServer",
    "Progress",
    "Result",
    "RkvisorError",
    "RunResult",
    "Session",
    "Stream",
    "Tensor",
    "Token",
    "UnreadableReply",
]

_HOMES = {
    "AsyncClient": "rkvisor.client.aio",
    "AsyncSession": "rkvisor.client.session",
    "AsyncStream": "rkvisor.client.aio",
    "CallTimeout": "rkvisor.client.errors",
    "Client": "rkvisor.client.blocking",
    "ConnectionLost": "rkvisor.client.errors",
    "Keys": "rkvisor.client.wire",
    "NoServer": "rkvisor.client.errors",
    "Progress": "rkvisor.client.replies",
    "Result": "rkvisor.client.tensors",
    "RkvisorError": "rkvisor.protocol.errors",
    "RunResult": "rkvisor.protocol.methods",
    "Session": "rkvisor.client.session",
    "Stream": "rkvisor.client.blocking",
    "Tensor": "rkvisor.client.tensors",
    "Token": "rkvisor.client.replies",
    "UnreadableReply": "rkvisor.client.errors",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)
