"""Where the server is: from what the user said, the environment, or a configuration file, in this order (design §11).

It reads one table of the file and refuses to know the rest; ``rkvisord --check-config`` judges files.  rkvisorctl must
start fast, so it does without pathlib and dataclasses, which would cost it a quarter of its time.
"""

# ruff: noqa: PTH100, PTH110, PTH116, PTH118, PTH120, PTH123

from __future__ import annotations

import errno
import os
from typing import Any, NamedTuple

from rkvisor.client.errors import BadEndpoint, NoEndpoint

SYSTEM_FILE = "/etc/rkvisor/rkvisor.toml"
LOCAL_FILE = "rkvisor.toml"


class Door(NamedTuple):
    """A kind of socket of rkvisord.  variable: of the environment.  key: in ``[listen]``.  default: of that key."""

    variable: str
    key: str
    default: str


CLIENTS = Door("RKVISOR_ENDPOINT", "clients", "ipc://run/client.sock")
ADMIN = Door("RKVISOR_ADMIN_ENDPOINT", "admin", "ipc://run/private/admin.sock")


def find(door: Door, explicit: str | None = None, config: str | None = None) -> str:
    """The endpoint to connect to.

    explicit: from ``-s``.  config: from ``-c``; it must exist then.

    Raises:
        NoEndpoint: naming all places looked at.
        BadEndpoint: saying what is wrong with the place found.
    """
    if explicit is not None:
        return checked(explicit, "-s")
    value = os.environ.get(door.variable)
    if value:
        return checked(value, f"${door.variable}")
    if config is not None:
        return from_file(config, door)
    for path in (LOCAL_FILE, SYSTEM_FILE):
        if os.path.exists(path):
            return from_file(path, door)
    raise NoEndpoint(
        f"cannot tell where rkvisord is: no -s ENDPOINT, no ${door.variable}, no -c FILE, "
        f"no {os.path.abspath(LOCAL_FILE)}, no {SYSTEM_FILE}",
        component="client",
    )


def checked(endpoint: str, source: str) -> str:
    """The endpoint as it is, when it has a transport this client speaks.  Raises BadEndpoint."""
    transport, separator, address = endpoint.partition("://")
    if separator and address and (transport == "ipc" or (transport == "tcp" and ":" in address)):
        return endpoint
    text = f"cannot use the endpoint {endpoint!r} of {source}: it must be tcp://HOST:PORT or ipc://PATH"
    raise BadEndpoint(text, component="client")


def from_file(path: str, door: Door) -> str:
    """The door that a configuration file opens; ``listen.clients`` may name several, the first counts.

    Raises:
        BadEndpoint: the file cannot be read, is no TOML, or names no usable endpoint.
    """
    import tomllib

    try:
        with open(path, "rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        raise BadEndpoint(f"cannot read {path}: {os.strerror(error.errno or 0)}", component="client") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadEndpoint(f"cannot read {path}: {error}", component="client") from error
    listen = content.get("listen", {})
    value: Any = listen.get(door.key) if isinstance(listen, dict) else None
    if isinstance(value, list) and value:
        value = value[0]
    if value is None:
        value = door.default
    if not isinstance(value, str):
        raise BadEndpoint(f"cannot use listen.{door.key} of {path}: it names no endpoint", component="client")
    return _reachable(checked(value, f"listen.{door.key} of {path}"), os.path.dirname(os.path.abspath(path)))


def _reachable(endpoint: str, folder: str) -> str:
    """The endpoint as seen from a client: ipc paths absolute, wildcard addresses as loopback."""
    transport, _, address = endpoint.partition("://")
    if transport == "ipc":
        return f"ipc://{address}" if address.startswith("@") else f"ipc://{os.path.join(folder, address)}"
    host, _, port = address.rpartition(":")
    if host in ("*", "0.0.0.0"):
        host = "127.0.0.1"
    elif host == "[::]":
        host = "[::1]"
    return f"tcp://{host}:{port}"


def why_unreachable(endpoint: str) -> int:
    """The errno of a connection that was refused: ENOENT, EACCES … or else ECONNREFUSED.  ZeroMQ does not tell."""
    transport, _, address = endpoint.partition("://")
    if transport == "ipc" and not address.startswith("@"):
        try:
            os.stat(address)
        except OSError as error:
            return error.errno or errno.EIO
        if not os.access(address, os.W_OK):
            return errno.EACCES
    return errno.ECONNREFUSED
