"""Requests that were given up, and what of them and of crash reports survives a kill of rkvisord (design §8)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.crashing import NO_WINDOW, crashes, ctl, run
from harness.rkvisord import Rkvisord, RpcError

pytestmark = pytest.mark.resilience


def test_reports_and_quarantine_survive_a_kill_of_rkvisord(tmp_path: Path) -> None:
    marker = "[[sim:segv after=2]]"
    with Rkvisord(supervisor=NO_WINDOW, folder=tmp_path) as server:
        with server.client() as client, pytest.raises(RpcError) as caught:
            run(client, marker)
        assert caught.value.name == "POISON_REQUEST"
        before = crashes(server, 2)
        assert len(server.admin_call("admin.dead_letters")["dead_letters"]) == 1
        server.kill()
        server.start()
        assert crashes(server, 2) == before
        with server.client() as client, pytest.raises(RpcError) as caught:
            run(client, marker)
        assert caught.value.name == "POISON_REQUEST"
        assert 0 < caught.value.error["data"]["quarantined_s"] <= 3600
        assert len(crashes(server, 2)) == 2  # it was refused, not run
        group = server.call("system.crashes")["groups"][0]
        assert group["count"] == 2


def test_a_request_that_is_released_runs_again() -> None:
    marker = "[[sim:segv after=2 times=2]]"
    with Rkvisord(supervisor=NO_WINDOW) as server, server.client() as client:
        for _ in range(2):
            with pytest.raises(RpcError) as caught:
                run(client, marker)
            assert caught.value.name == "POISON_REQUEST"
        (letter,) = server.admin_call("admin.dead_letters")["dead_letters"]
        assert (letter["deaths"], letter["model"], letter["payload"]) == (2, "demo", None)
        assert 3500 < letter["quarantined_s"] <= 3600
        status, out = ctl(server, "deadletters")
        assert (status, letter["digest"][:16] in out) == (0, True)
        status, out = ctl(server, "deadletters", "show", letter["digest"][:8])
        assert status == 0
        assert letter["digest"] in out
        assert ctl(server, "deadletters", "release", letter["digest"][:8])[0] == 0
        assert run(client, marker)["resumed"] == 0  # its two faults are used up
        assert ctl(server, "deadletters", "release", letter["digest"])[0] == 1
        assert server.admin_call("admin.dead_letters")["dead_letters"][0]["quarantined_s"] == 0
        assert "1 dead letter" in ctl(server, "deadletters", "purge")[1]
        assert server.admin_call("admin.dead_letters")["dead_letters"] == []
        server.kill()
        server.start()
        with server.client() as client_:
            assert run(client_, marker)["resumed"] == 0  # the release survived too


def test_payloads_are_kept_only_where_the_operator_says_so() -> None:
    with Rkvisord(supervisor=f"{NO_WINDOW}\nstore_prompts = true") as server, server.client() as client:
        with pytest.raises(RpcError):
            run(client, "[[sim:segv after=2]]", prompt="keep me")
        (letter,) = server.admin_call("admin.dead_letters")["dead_letters"]
        assert "keep me" in json.loads(letter["payload"])["prompt"]


def test_dead_letters_are_the_operators_only() -> None:
    with Rkvisord() as server:
        for method in ("admin.dead_letters", "admin.purge"):
            with pytest.raises(RpcError) as caught:
                server.call(method)
            assert caught.value.name == "NOT_AUTHORISED"
        with pytest.raises(RpcError, match="no"):
            server.admin_call("admin.dead_letter", {"digest": "abcd"})


def test_a_damaged_state_file_does_not_keep_rkvisord_from_serving(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "state.db").write_bytes(b"no database" * 1000)
    with Rkvisord(supervisor=NO_WINDOW, folder=tmp_path) as server, server.client() as client:
        run(client, "[[sim:segv after=3 times=1]]")
        crashes(server, 1)
    assert len(list((tmp_path / "state").glob("state.db.damaged-*"))) == 1
