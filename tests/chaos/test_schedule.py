"""The schedule of faults: what it covers, and that a seed is enough to play it again."""

from itertools import islice

import pytest

from chaos.rules import BYSTANDER, POISON, RUNTIME_ERROR, TEXT, Heard, Rule, marker, problems_of, rule_of
from chaos.schedule import (
    BEHEADING,
    ERRORS,
    KILLERS,
    KINDS,
    RUN_PHASES,
    SIGNALS,
    UNLIMITED,
    Scenario,
    matrix,
    phases_of,
    schedule,
)

pytestmark = pytest.mark.resilience
SEEDS = (0, 1, 20261122)


def first(count: int, seed: int = 0) -> list[Scenario]:
    return list(islice(schedule(seed), count))


def test_every_kind_of_the_simulator_every_signal_and_the_beheading_are_there() -> None:
    simulated = [
        "segv",
        "abrt",
        "fpe",
        "bus",
        "ill",
        "stack",
        "exit",
        "hang",
        "slow",
        "error",
        "errcb",
        "nofinish",
        "utf8",
        "leak",
        "fdleak",
        "oom",
    ]
    assert set(KINDS) == {*simulated, "SIGKILL", "SIGSTOP", "SIGSEGV", "kill-9"}
    assert len(KINDS) == 20


@pytest.mark.parametrize("seed", SEEDS)
def test_a_thousand_scenarios_hold_every_cell_of_the_matrix(seed: int) -> None:
    cells = {(one.kind, one.phase, one.resume, one.stream, one.clients) for one in first(1000, seed)}
    assert cells == set(matrix())


def test_the_matrix_is_kind_by_phase_by_resume_by_streaming_by_concurrency() -> None:
    assert len(matrix()) == len(set(matrix())) == sum(len(phases_of(kind)) for kind in KINDS) * 2 * 2 * 2


@pytest.mark.parametrize("seed", SEEDS)
def test_sixty_scenarios_meet_every_kind_and_every_phase(seed: int) -> None:
    slice_ = first(60, seed)
    assert {one.kind for one in slice_} == set(KINDS)
    assert {"init", "prefill", "token", "callback", "destroy"} <= {one.phase for one in slice_}


@pytest.mark.parametrize("seed", SEEDS)
def test_about_one_in_twentyfive_kills_rkvisord_itself(seed: int) -> None:
    assert 30 <= sum(one.kind == BEHEADING for one in first(1000, seed)) <= 60


def test_a_seed_gives_the_same_scenario_whatever_is_played_of_it() -> None:
    assert first(40, 7) == first(300, 7)[:40]
    assert first(40, 7) != first(40, 8)
    assert [one.number for one in first(300, 7)] == list(range(300))


def test_faults_strike_once_or_for_ever_and_never_behind_the_last_token() -> None:
    scenarios = first(1500)
    for one in scenarios:
        assert one.times in (1, UNLIMITED)
        assert 0 <= one.after <= one.length
        if one.times == UNLIMITED:
            assert one.phase in RUN_PHASES
            assert one.after < one.length, "or there would be nothing to strike at a second time"
    assert {one.times for one in scenarios} == {1, UNLIMITED}


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({"kind": "segv", "times": 1}, TEXT),
        ({"kind": "hang", "times": 1}, TEXT),
        ({"kind": "segv", "times": UNLIMITED}, POISON),
        ({"kind": "slow", "ms": 2500, "times": UNLIMITED}, POISON),
        ({"kind": "slow", "ms": 8, "times": UNLIMITED}, TEXT),
        ({"kind": "errcb", "times": 1}, RUNTIME_ERROR),
        ({"kind": "error", "times": UNLIMITED}, RUNTIME_ERROR),
        ({"kind": "segv", "phase": "init"}, TEXT),
        ({"kind": "error", "phase": "destroy"}, TEXT),
        ({"kind": "SIGSTOP", "phase": "idle"}, TEXT),
    ],
)
def test_the_rules(changes: dict[str, object], end: str) -> None:
    assert rule_of(scenario(**changes)).end == end


def scenario(**changes: object) -> Scenario:
    calm = {
        "number": 3,
        "kind": "segv",
        "phase": "token",
        "resume": "forced",
        "stream": True,
        "clients": 1,
        "reserve": "spare",
        "after": 5,
        "times": 1,
        "length": 16,
        "prompt": 0,
        "storm": False,
        "ms": 0,
        "where": "heap",
    }
    return Scenario(**{**calm, **changes})  # type: ignore[arg-type]


def test_markers_say_what_the_scenario_says() -> None:
    assert marker(scenario(), "k") == "[[sim:segv at=token after=5 times=1 key=k0]]"
    assert marker(scenario(times=UNLIMITED), "k") == "[[sim:segv at=token after=5 key=k0]]"
    assert marker(scenario(kind="oom"), "k") == "[[sim:oom at=token after=5 bytes=8388608 times=1 key=k0]]"
    assert marker(scenario(kind="bus", phase="init", storm=True), "k").count("[[sim:bus at=init times=1 key=k") == 4
    assert marker(scenario(kind="SIGKILL"), "k") == ""


def test_what_kills_is_told_from_what_delays() -> None:
    assert all(scenario(kind=kind).is_deadly for kind in KILLERS)
    assert not any(scenario(kind=kind).is_deadly for kind in (*ERRORS, *SIGNALS, "slow", "leak"))


# The judge: each way to be wrong is seen.

TWIN = {"text": "a b", "token_ids": [1, 2], "finish_reason": "length"}
RESULT = {**TWIN, "resumed": 0, "resume": None}
TOKENS = [{"seq": 0, "text": "a "}, {"seq": 1, "text": "b"}]


def heard(*ends: dict[str, object], tokens: list[dict[str, object]] | None = None, is_stream: bool = True) -> Heard:
    return Heard(is_stream, list(TOKENS if tokens is None else tokens), list(ends))


def error(name: str, **data: object) -> dict[str, object]:
    return {"error": {"code": -1, "message": "", "data": {"name": name, "retryable": False, **data}}}


def test_the_right_answers_are_right() -> None:
    assert problems_of(heard({"result": RESULT}), BYSTANDER, TWIN) == []
    assert problems_of(heard({"result": RESULT}, tokens=[], is_stream=False), BYSTANDER, TWIN) == []
    again = {**RESULT, "resumed": 1, "resume": "exact"}
    assert problems_of(heard({"result": again}), Rule(TEXT, resumed=1), TWIN) == []
    assert problems_of(heard(error("POISON_REQUEST", text="a b")), Rule(POISON), TWIN) == []
    assert problems_of(heard(error("RKLLM_INFERENCE_ERROR", source="RKLLM")), Rule(RUNTIME_ERROR), TWIN) == []


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        (heard(), BYSTANDER),
        (heard({"result": RESULT}, {"result": RESULT}), BYSTANDER),
        (heard({"result": {**RESULT, "text": "a c"}}), BYSTANDER),
        (heard({"result": {**RESULT, "token_ids": [1, 3]}}), BYSTANDER),
        (heard({"result": {**RESULT, "finish_reason": "stop"}}), BYSTANDER),
        (heard({"result": {**RESULT, "resumed": 1}}), BYSTANDER),
        (heard({"result": RESULT}), Rule(TEXT, resumed=1)),
        (heard({"result": {**RESULT, "resume": "continued"}}), BYSTANDER),
        (heard({"result": RESULT}, tokens=TOKENS[:1]), BYSTANDER),
        (heard({"result": RESULT}, tokens=TOKENS[1:]), BYSTANDER),
        (heard({"result": RESULT}, tokens=[TOKENS[0], TOKENS[0], TOKENS[1]]), BYSTANDER),
        (heard({"result": RESULT}, is_stream=False), BYSTANDER),
        (heard({"result": RESULT}, tokens=[TOKENS[0], {"seq": 1, "text": "x"}]), BYSTANDER),
        (heard(error("WORKER_CRASHED")), BYSTANDER),
        (heard(error("WORKER_CRASHED")), Rule(POISON)),
        (heard(error("POISON_REQUEST", text="")), Rule(POISON)),
        (heard({"result": RESULT}), Rule(POISON)),
        (heard(error("WORKER_CRASHED")), Rule(RUNTIME_ERROR)),
    ],
)
def test_each_way_to_be_wrong_is_seen(wrong: Heard, rule: Rule) -> None:
    assert problems_of(wrong, rule, TWIN)
