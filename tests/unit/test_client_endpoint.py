"""Where the client looks for the server."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from rkvisor.client import endpoint
from rkvisor.client.endpoint import ADMIN, CLIENTS, find, why_unreachable
from rkvisor.client.errors import BadEndpoint, NoEndpoint


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, no environment, no system file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(CLIENTS.variable, raising=False)
    monkeypatch.delenv(ADMIN.variable, raising=False)
    monkeypatch.setattr(endpoint, "SYSTEM_FILE", str(tmp_path / "system.toml"))
    return tmp_path


def write(path: Path, listen: str) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"[listen]\n{listen}\n")
    return str(path)


def test_each_place_is_looked_at_only_where_those_before_it_say_nothing(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(nowhere / "system.toml", 'clients = ["tcp://system:1"]')
    assert find(CLIENTS) == "tcp://system:1"
    write(nowhere / "rkvisor.toml", 'clients = ["tcp://local:1"]')
    assert find(CLIENTS) == "tcp://local:1"
    named = write(nowhere / "named.toml", 'clients = ["tcp://named:1", "tcp://second:1"]')
    assert find(CLIENTS, config=named) == "tcp://named:1"
    monkeypatch.setenv("RKVISOR_ENDPOINT", "tcp://variable:1")
    assert find(CLIENTS, config=named) == "tcp://variable:1"
    assert find(CLIENTS, "tcp://said:1", named) == "tcp://said:1"


def test_an_empty_variable_says_nothing(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(nowhere / "rkvisor.toml", 'clients = ["tcp://local:1"]')
    monkeypatch.setenv("RKVISOR_ENDPOINT", "")
    assert find(CLIENTS) == "tcp://local:1"


def test_the_admin_has_a_variable_and_a_key_of_its_own(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(nowhere / "rkvisor.toml", 'clients = ["tcp://local:1"]\nadmin = "ipc://run/a.sock"')
    monkeypatch.setenv("RKVISOR_ENDPOINT", "tcp://variable:1")
    assert find(ADMIN) == f"ipc://{nowhere}/run/a.sock"
    monkeypatch.setenv("RKVISOR_ADMIN_ENDPOINT", "ipc:///elsewhere")
    assert find(ADMIN) == "ipc:///elsewhere"


def test_ipc_paths_of_a_file_are_relative_to_its_folder(nowhere: Path) -> None:
    named = write(nowhere / "etc" / "x.toml", 'clients = ["ipc://run/c.sock"]')
    assert find(CLIENTS, config=named) == f"ipc://{nowhere}/etc/run/c.sock"
    assert find(CLIENTS, config=os.path.relpath(named)) == f"ipc://{nowhere}/etc/run/c.sock"
    assert find(CLIENTS, config=write(nowhere / "y", 'clients = ["ipc:///a/b"]')) == "ipc:///a/b"
    assert find(CLIENTS, config=write(nowhere / "z", 'clients = ["ipc://@abstract"]')) == "ipc://@abstract"


@pytest.mark.parametrize("text", ["", "[listen]\n", "[models.demo]\nruntime = 'sim'\n", "listen = 3\n"])
def test_a_file_that_does_not_say_means_rkvisords_own_defaults(nowhere: Path, text: str) -> None:
    (nowhere / "rkvisor.toml").write_text(text)
    assert find(CLIENTS) == f"ipc://{nowhere}/run/client.sock"
    assert find(ADMIN) == f"ipc://{nowhere}/run/private/admin.sock"


@pytest.mark.parametrize(
    ("bound", "reached"),
    [
        ("tcp://*:5570", "tcp://127.0.0.1:5570"),
        ("tcp://0.0.0.0:5570", "tcp://127.0.0.1:5570"),
        ("tcp://[::]:5570", "tcp://[::1]:5570"),
        ("tcp://192.168.1.2:5570", "tcp://192.168.1.2:5570"),
    ],
)
def test_an_address_that_can_only_be_bound_is_reached_by_loopback(nowhere: Path, bound: str, reached: str) -> None:
    assert find(CLIENTS, config=write(nowhere / "x", f'clients = ["{bound}"]')) == reached


def test_where_nobody_says_all_places_are_named(nowhere: Path) -> None:
    with pytest.raises(NoEndpoint) as caught:
        find(CLIENTS)
    assert not isinstance(caught.value, BadEndpoint)
    for place in ("-s ENDPOINT", "$RKVISOR_ENDPOINT", "-c FILE", f"{nowhere}/rkvisor.toml", endpoint.SYSTEM_FILE):
        assert place in caught.value.message


@pytest.mark.parametrize("bad", ["", "x", "tcp://", "tcp://host", "ipc://", "udp://h:1", "/run/x.sock"])
def test_what_is_no_endpoint_is_refused_with_the_place_that_said_it(bad: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadEndpoint, match="of -s: it must be tcp://HOST:PORT or ipc://PATH"):
        find(CLIENTS, bad)
    if bad:
        monkeypatch.setenv("RKVISOR_ENDPOINT", bad)
        with pytest.raises(BadEndpoint, match=r"of \$RKVISOR_ENDPOINT"):
            find(CLIENTS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[listen", "cannot read .*x.toml: "),
        (b"a = '\xff'", "cannot read .*x.toml: "),
        (b"[listen]\nclients = []", "names no endpoint"),
        (b"[listen]\nclients = [3]", "names no endpoint"),
        (b"[listen]\nclients = ['nowhere']", r"cannot use the endpoint 'nowhere' of listen\.clients of .*x\.toml"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(nowhere: Path, content: bytes, message: str) -> None:
    (nowhere / "x.toml").write_bytes(content)
    with pytest.raises(BadEndpoint, match=message):
        find(CLIENTS, config=str(nowhere / "x.toml"))


def test_a_named_file_that_is_not_there_is_an_error_though_others_are(nowhere: Path) -> None:
    write(nowhere / "rkvisor.toml", 'clients = ["tcp://local:1"]')
    with pytest.raises(BadEndpoint, match=r"cannot read none\.toml: No such file or directory"):
        find(CLIENTS, config="none.toml")


def test_why_a_connection_was_refused(nowhere: Path) -> None:
    assert why_unreachable(f"ipc://{nowhere}/none") == errno.ENOENT
    assert why_unreachable("tcp://127.0.0.1:1") == errno.ECONNREFUSED
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(nowhere / "stale"))
    assert why_unreachable(f"ipc://{nowhere}/stale") == errno.ECONNREFUSED
    assert why_unreachable(f"ipc://{nowhere}/stale/below") == errno.ENOTDIR
