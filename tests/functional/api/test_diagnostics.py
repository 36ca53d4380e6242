"""The ``test_*`` methods of the requirements S0.2–S0.7, S0.15, S0.16: served only where they are enabled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from harness.rkvisord import DEMO, Rkvisord, RpcError
from rkvisor.protocol.errors import CATALOGUE, RKLLM_CODES

pytestmark = pytest.mark.errors

NAMES = {"test_rkllm_error_mapping", "test_invalid_json", "test_concurrent_errors"}


@pytest.fixture(scope="module")
def server() -> Iterator[Rkvisord]:
    with Rkvisord(DEMO + "\n[diagnostics]\nenabled = true\n") as running:
        yield running


def error_of(server: Rkvisord, method: str, params: Any = None) -> RpcError:
    with pytest.raises(RpcError) as caught:
        server.call(method, params)
    return caught.value


@pytest.mark.parametrize("name", RKLLM_CODES)
def test_every_error_of_rkllm_is_mapped(server: Rkvisord, name: str) -> None:
    number, text = RKLLM_CODES[name]
    for given in (name, name.removeprefix("RKLLM_")):
        params = {"simulate_error": given, "expected_json_rpc_code": number}
        assert server.call("test_rkllm_error_mapping", params) == {
            "error_mapped_correctly": True,
            "json_rpc_code": number,
            "message": text,
            "rkllm_code": name,
        }
    wrong = server.call("test_rkllm_error_mapping", {"simulate_error": name, "expected_json_rpc_code": number - 1})
    assert wrong["error_mapped_correctly"] is False


@pytest.mark.parametrize("name", CATALOGUE)
def test_so_is_every_error_of_rkvisors_own(server: Rkvisord, name: str) -> None:
    params = {"simulate_error": name, "expected_json_rpc_code": CATALOGUE[name].code}
    assert server.call("test_rkllm_error_mapping", params)["error_mapped_correctly"] is True


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("test_rkllm_error_mapping", {}),
        ("test_rkllm_error_mapping", {"simulate_error": "RKLLM_INVALID_PARAM"}),
        ("test_rkllm_error_mapping", {"expected_json_rpc_code": -32602}),
        ("test_invalid_json", {}),
        ("test_concurrent_errors", {"client_id": 1}),
        ("test_concurrent_errors", {"error_scenario": 1}),
    ],
)
def test_missing_params_are_told_in_the_words_of_the_requirements(
    server: Rkvisord, method: str, params: dict[str, Any]
) -> None:
    error = error_of(server, method, params).error
    assert (error["code"], error["message"]) == (-32602, "Missing required parameters")


@pytest.mark.parametrize("name", ["RKLLM_NO_SUCH", "", "rkllm_invalid_param"])
def test_an_unknown_error_name_is_told_so(server: Rkvisord, name: str) -> None:
    error = error_of(
        server, "test_rkllm_error_mapping", {"simulate_error": name, "expected_json_rpc_code": -32602}
    ).error
    assert (error["code"], error["message"]) == (-32602, "Unknown error name")


BROKEN = ['{"jsonrpc": "2.0", "method": "test", "params": {', "{", "", "[1,", '{"a":}', "\x00"]


@pytest.mark.parametrize("text", BROKEN)
def test_invalid_json_is_a_parse_error(server: Rkvisord, text: str) -> None:
    assert error_of(server, "test_invalid_json", {"invalid_json": text}).code == -32700


@pytest.mark.parametrize("text", BROKEN)
def test_so_it_is_when_it_is_sent_and_the_answers_id_is_null(server: Rkvisord, text: str) -> None:
    with server.client() as client:
        client.send_raw(text.encode()) if text else client.send_raw(b" ")
        answer = client.receive()
        assert (answer["jsonrpc"], answer["id"], answer["error"]["code"]) == ("2.0", None, -32700)


def test_valid_json_is_no_invalid_one(server: Rkvisord) -> None:
    request = '{"jsonrpc":"2.0","id":1,"method":"system.version"}'
    assert error_of(server, "test_invalid_json", {"invalid_json": request}).code == -32602
    assert error_of(server, "test_invalid_json", {"invalid_json": "{}"}).code == -32600


def test_ten_clients_in_error_at_once_are_each_answered_with_their_own_id(server: Rkvisord) -> None:
    clients = [server.client() for _ in range(10)]
    for _ in range(5):
        sent = [
            client.send("test_concurrent_errors", {"client_id": i, "error_scenario": i % 3})
            for i, client in enumerate(clients)
        ]
        for i, client in reversed(list(enumerate(clients))):
            result = client.result(sent[i])
            assert (result["handled_gracefully"], result["client_id"]) == (True, i)
            assert result["json_rpc_code"] == (-32602, -32700, -32603)[i % 3]
    for client in clients:
        client.socket.close()
    assert server.call("test_concurrent_errors", {"client_id": "c", "error_scenario": 0})["client_id"] == "c"
    assert error_of(server, "test_concurrent_errors", {"client_id": 1, "error_scenario": 3}).code == -32602


def listed(server: Rkvisord) -> set[str]:
    return {method["name"] for method in server.call("rpc.discover")["methods"]} & NAMES


def test_they_are_listed_where_they_are_served(server: Rkvisord) -> None:
    assert listed(server) == NAMES


@pytest.mark.security
def test_they_are_neither_served_nor_listed_unless_they_are_enabled() -> None:
    with Rkvisord() as plain:
        assert listed(plain) == set()
        for name in NAMES:
            error = error_of(plain, name, {"client_id": 1, "error_scenario": 0, "invalid_json": "{"})
            assert error.name == "METHOD_NOT_FOUND"
            assert "did you mean" not in str(error)
            with pytest.raises(RpcError, match="no such method"):
                plain.admin_call(name)
