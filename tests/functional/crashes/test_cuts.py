"""A stream may be cut anywhere and goes on as if nothing had happened: random places, both ways, and a real model.

``RKVISOR_CUTS`` is how often with the simulator, for each way (default 30); ``RKVISOR_LLAMA_CUTS`` how often with the
real model (default 5).  ``RKVISOR_SEED`` repeats a run; every failure names its seed.
"""

from __future__ import annotations

import os
import random
import signal
from typing import Any

import pytest

from harness.llama import runtime_or_skip
from harness.rkvisord import Client, Rkvisord

pytestmark = pytest.mark.resilience

CUTS = int(os.environ.get("RKVISOR_CUTS", "30"))
LLAMA_CUTS = int(os.environ.get("RKVISOR_LLAMA_CUTS", "5"))
SEED = int(os.environ.get("RKVISOR_SEED", random.SystemRandom().randrange(10**6)))
#: Every death is charged to its request, not to a common cause: here each has its own.
SUPERVISOR = "fault_window_s = 0"
SIMULATED = """
[models.demo]
runtime = "sim"
path = "builtin:tiny"
workers = 1
spares = 2
faults = true
force_tokens = {force}
param = {{ temperature = 0.0 }}
"""
KINDS = ("segv", "abrt", "fpe", "bus", "ill", "exit")
#: Where the fault strikes: between tokens, or while the runtime calls back.
PHASES = ("token", "callback")
LENGTH = 60


def check(tokens: list[dict[str, Any]], stormy: dict[str, Any], calm: dict[str, Any]) -> None:
    """The stream has no gap and no repetition, and is what it would have been."""
    assert [token["seq"] for token in tokens] == list(range(len(tokens)))
    ids = [one for token in tokens for one in token.get("token_ids", [token["token_id"]])]
    assert ids == stormy["token_ids"] == calm["token_ids"]
    assert "".join(token["text"] for token in tokens) == stormy["text"] == calm["text"]
    assert stormy["finish_reason"] == calm["finish_reason"]


@pytest.mark.timeout(60 + 4 * CUTS)
@pytest.mark.parametrize("way", ["forced", "muted"])
def test_a_simulated_stream_survives_cuts_at_random_places(way: str) -> None:
    print(f"RKVISOR_SEED={SEED}")
    chance = random.Random(f"{SEED} {way}")
    models = SIMULATED.format(force=str(way == "forced").lower())
    with Rkvisord(models, supervisor=SUPERVISOR) as server, server.client() as client:
        for cut in range(CUTS):
            prompt = f"story {chance.randrange(10**6)}"
            place, kind, phase = chance.randrange(LENGTH), chance.choice(KINDS), chance.choice(PHASES)
            marker = f"[[sim:{kind} at={phase} after={place} times=1 key={cut}]]"
            case = f"seed {SEED}, cut {cut}: {marker}{prompt}"
            _, calm = client.stream(model="demo", prompt=prompt, max_new_tokens=LENGTH)
            tokens, stormy = client.stream(model="demo", prompt=marker + prompt, max_new_tokens=LENGTH)
            try:
                check(tokens, stormy, calm)
                assert stormy["resumed"] == 1
            except AssertionError as error:
                raise AssertionError(case) from error


@pytest.mark.timeout(60 + 4 * CUTS)
@pytest.mark.parametrize("way", ["forced", "muted"])
def test_a_simulated_stream_survives_kills_at_random_moments(way: str) -> None:
    """The kill comes from outside, when so many tokens have been seen; where it cuts is left to the machine."""
    print(f"RKVISOR_SEED={SEED}")
    chance = random.Random(f"{SEED} {way} outside")
    models = SIMULATED.format(force=str(way == "forced").lower()).replace("workers = 1", "workers = 1\nstandby = 1")
    with Rkvisord(models, supervisor=SUPERVISOR) as server, server.client() as client:
        for cut in range(max(1, CUTS // 6)):
            prompt = f"story {chance.randrange(10**6)}"
            _, calm = client.stream(model="demo", prompt=prompt, max_new_tokens=LENGTH)
            slow = {"model": "demo", "prompt": f"[[sim:slow ms=4]]{prompt}", "max_new_tokens": LENGTH}
            cut_from_outside(server, client, slow, calm, chance, f"cut {cut}")


def cut_from_outside(
    server: Rkvisord, client: Client, params: dict[str, Any], calm: dict[str, Any], chance: random.Random, case: str
) -> None:
    """Stream *params*, kill the worker when some tokens have been seen, and compare with *calm*."""
    place = chance.randrange(1, len(calm["token_ids"]) * 2 // 3)
    number = chance.choice([signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])

    def kill(seen: int) -> None:
        if seen == place:
            (worker,) = server.workers()
            os.kill(worker["pid"], number)

    tokens, stormy = client.stream(kill, **params)
    try:
        check(tokens, stormy, calm)
        assert stormy["resumed"] == 1
        assert stormy["resume"] == "exact"
    except AssertionError as error:
        raise AssertionError(f"seed {SEED}, {case}: {number.name} after {place} of {params}") from error


@pytest.mark.llama
@pytest.mark.timeout(120 + 20 * LLAMA_CUTS)
def test_the_answer_of_a_real_model_survives_kills_at_random_moments() -> None:
    _, gguf = runtime_or_skip()
    print(f"RKVISOR_SEED={SEED}")
    chance = random.Random(f"{SEED} llama")
    models = f"""
[models.demo]
runtime = "llama"
path = "{gguf}"
standby = 1
param = {{ temperature = 0.0, max_context_len = 512, enabled_cpus_num = 1, enabled_cpus_mask = 1 }}
"""
    questions = [
        f"Tell me about {what}." for what in ("rivers", "Paris", "bees", "the moon", "trains", "salt", "winter")
    ]
    calm: dict[str, Any] = {}
    with Rkvisord(models, supervisor=SUPERVISOR) as server, server.client() as client:
        for cut in range(LLAMA_CUTS):
            params = {"model": "demo", "prompt": chance.choice(questions), "max_new_tokens": 48}
            if params["prompt"] not in calm:
                _, calm[params["prompt"]] = client.stream(**params)
            cut_from_outside(server, client, params, calm[params["prompt"]], chance, f"cut {cut}")
