"""Errors that arise in the client, beside those the server sends (``protocol.errors``).

    RkvisorError
    ├── ClientError
    │   └── NoEndpoint         nobody said where the server is
    │       └── BadEndpoint    what was said about it cannot be used
    └── SupervisorError
        ├── ConnectionLost     the connection went away and the call cannot go on; also a builtin ConnectionError
        │   └── NoServer       nobody answered at the endpoint
        ├── CallTimeout        no answer within the call's own time; also a builtin TimeoutError
        └── UnreadableReply    the answer is none of the protocol

They never cross the wire, so their JSON-RPC number is that of an internal error.
"""

from __future__ import annotations

from rkvisor.protocol.errors import ClientError, SupervisorError


class NoEndpoint(ClientError):
    name, severity = "NO_ENDPOINT", "error"


class BadEndpoint(NoEndpoint):
    name = "BAD_ENDPOINT"


class ConnectionLost(SupervisorError, ConnectionError):
    """Whether the request ran is unknown: send it again only if running it twice does no harm."""

    code, name, severity = -32603, "CONNECTION_LOST", "error"


class NoServer(ConnectionLost):
    name = "NO_SERVER"


class CallTimeout(SupervisorError, TimeoutError):
    """The request was aborted on the server, as far as the server can be reached."""

    code, name = -32603, "CALL_TIMEOUT"


class UnreadableReply(SupervisorError):
    code, name, severity, is_retryable = -32603, "UNREADABLE_REPLY", "error", False
