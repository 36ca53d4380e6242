"""A load that would fail or kill the worker is refused before the runtime sees it, unless the operator says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.rkvisord import Rkvisord, RpcError
from rkvisor.worker.checks import machine

pytestmark = [pytest.mark.validation, pytest.mark.resilience]

#: 64 GB, the most that a simulated model can ask for.
GREEDY = "vocab_size = 512\nembedding_size = 32\nresident_mb = 65536\n"
MODELS = """
[models.narrow]
runtime = "sim"
path = "builtin:tiny"
param = { max_context_len = 100 }
[models.unlooked]
runtime = "sim"
path = "builtin:tiny"
preflight = false
param = { max_context_len = 100 }
[models.fine]
runtime = "sim"
path = "builtin:tiny"
"""


def test_memory_that_is_not_there_is_refused_and_asked_for_again(tmp_path: Path) -> None:
    """The runtime would segfault at a second init without memory; the kernel would end something else."""
    if (machine.memory_bytes()[0] or 0) > 60 * 1024**3:
        pytest.skip("this machine has more memory than a simulated model can ask for")
    (tmp_path / "greedy.toml").write_text(GREEDY)
    with Rkvisord(f'[models.greedy]\nruntime = "sim"\npath = "{tmp_path}/greedy.toml"\nstartretries = 1\n') as server:
        (told,) = server.admin_call("admin.processes")
        assert told["statename"] == "FATAL"
        assert "64.0 GB" in told["description"]
        assert "greedy.toml" in told["description"]
        assert "SIG" not in told["description"], "nothing died of it"
        assert "greedy:0: STARTING → BACKOFF" in server.log.read_text(), "memory may be free another time"
        with pytest.raises(RpcError, match=r"64\.0 GB"):
            server.call("rkllm.run", {"model": "greedy", "prompt": "x"})


def test_a_refused_load_names_the_thing_the_limit_and_the_way_out() -> None:
    with Rkvisord(MODELS) as server:
        told = {one["group"]: one for one in server.admin_call("admin.processes")}
        assert told["narrow"]["statename"] == "FATAL"
        for part in ("max_context_len = 100", "multiple of 32", "max_context_len = 96"):
            assert part in told["narrow"]["description"]
        assert told["unlooked"]["statename"] == "FATAL"
        assert "rkllm_init" in told["unlooked"]["description"], "this one the runtime refused"
        assert "narrow:0: STARTING → BACKOFF" not in server.log.read_text()
        with pytest.raises(RpcError, match="max_context_len = 100"):
            server.call("rkllm.run", {"model": "narrow", "prompt": "x"})
        assert server.call("rkllm.run", {"model": "fine", "prompt": "x", "max_new_tokens": 2})["text"]
