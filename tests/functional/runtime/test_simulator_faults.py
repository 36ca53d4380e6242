"""Faults that the simulator commits on demand; each fatal one in a process of its own."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest

from harness import sim_driver
from harness.child import tell
from harness.leaked import RUNS
from harness.places import TESTS
from harness.sim_driver import ERROR, FINISH, NORMAL, WAITING, Simulator
from harness.sim_vocabulary import tokenise

pytestmark = pytest.mark.resilience
DRIVER = str(Path(sim_driver.__file__))
FATAL = {
    "segv": -signal.SIGSEGV,
    "abrt": -signal.SIGABRT,
    "fpe": -signal.SIGFPE,
    "bus": -signal.SIGBUS,
    "ill": -signal.SIGILL,
    "stack": -signal.SIGSEGV,
    "exit": 1,
    "oom": -signal.SIGKILL,
}


@pytest.fixture(autouse=True)
def _faults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RKVISOR_SIM_FAULTS", "1")
    monkeypatch.setenv("RKVISOR_SIM_TIME_SCALE", "0")
    # Under AddressSanitizer a signal must kill as it does without.
    handlers = ("segv", "sigbus", "sigfpe", "sigill", "abort")
    options = [os.environ.get("ASAN_OPTIONS", ""), *(f"handle_{name}=0" for name in handlers), "detect_leaks=0"]
    monkeypatch.setenv("ASAN_OPTIONS", ":".join(filter(None, options)))


class Child:
    """A finished process that ran the driver: its status, callbacks, run statuses and log."""

    def __init__(self, *runs: Any, family: str = "f5", state: Path | None = None, **request: Any) -> None:
        body = {"family": family, "model": "builtin:tiny", "params": {"max_new_tokens": 20}, "runs": runs, **request}
        environment = {**os.environ, **({"RKVISOR_SIM_STATE": str(state)} if state else {})}
        done = subprocess.run(
            [sys.executable, "-P", DRIVER], input=json.dumps(body), capture_output=True, text=True, env=environment
        )
        self.status, self.log = done.returncode, done.stderr
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        self.callbacks = [line for line in lines if "state" in line]
        self.tokens = [line["id"] for line in self.callbacks if line["state"] in (0, 1)]
        self.statuses = [line["status"] for line in lines if "status" in line]
        self.destroyed = [line["destroyed"] for line in lines if "destroyed" in line]


def undisturbed(prompt: str = "a", n: int = 20) -> Any:
    with Simulator(max_new_tokens=n) as sim:
        return sim.run(prompt)


@pytest.mark.parametrize("kind", FATAL)
def test_a_fatal_fault_kills_the_process_in_its_own_way_after_n_tokens(kind: str) -> None:
    child = Child(f"[[sim:{kind} after=3 bytes=4194304]]a")
    assert child.status == FATAL[kind]
    assert child.tokens == undisturbed().ids[:3]
    assert child.statuses == []


@pytest.mark.parametrize("family", ["f1", "f3", "f4"])
def test_faults_work_in_every_family(family: str) -> None:
    assert Child("[[sim:segv after=2]]a", family=family).status == -signal.SIGSEGV


def test_an_abort_leaves_an_assertion_in_the_log() -> None:
    assert "Assertion" in Child("[[sim:abrt]]a").log


def test_a_fault_before_the_first_token_and_one_in_prefill_come_before_any_callback() -> None:
    for marker in ("[[sim:segv]]", "[[sim:segv after=0]]", "[[sim:segv at=prefill after=9]]"):
        child = Child(marker + "a")
        assert (child.status, child.callbacks) == (-signal.SIGSEGV, [])


def test_a_callback_fault_strikes_behind_the_callback_of_its_token() -> None:
    assert len(Child("[[sim:segv at=callback after=3]]a").tokens) == 3
    assert len(Child("[[sim:segv at=token after=3]]a").tokens) == 3
    assert len(Child("[[sim:segv at=callback]]a").tokens) == 1
    whole = Child("[[sim:segv at=callback after=20]]a")
    assert len(whole.tokens) == 20
    assert whole.callbacks[-1]["state"] == NORMAL, "it strikes before FINISH"


def test_forced_tokens_count_and_a_passed_mark_fires_at_the_first_new_token() -> None:
    ids = undisturbed().ids
    assert Child("[[sim:segv after=7]]a", forced=ids[:4]).tokens == ids[4:7]
    assert Child("[[sim:segv after=3]]a", forced=ids[:4]).tokens == []


def test_a_marker_is_taken_out_whether_or_not_it_fires() -> None:
    assert undisturbed("te[[sim:segv after=999]]ll[[sim:hang after=50 key=x]]").ids == undisturbed("tell").ids


def test_a_marker_in_a_multimodal_prompt_counts_too() -> None:
    with Simulator(max_new_tokens=20) as sim:
        given = sim.abi.RKLLMInput(input_type=sim.abi.RKLLM_INPUT_MULTIMODAL)
        given.multimodal_input.prompt = b"[[sim:error after=2]]a"
        assert sim.run(given).status == -1
        assert sim.current.ids == undisturbed().ids[:2]


@pytest.mark.security
def test_without_permission_a_marker_is_ordinary_text(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("0", "", "yes"):
        monkeypatch.setenv("RKVISOR_SIM_FAULTS", value)
        outcome = undisturbed("[[sim:segv]]a")
        assert len(outcome.ids) == 20
        assert outcome.ids != undisturbed("a").ids


@pytest.mark.parametrize(
    "marker",
    [
        "[[sim:]]",
        "[[sim:nonsense]]",
        "[[sim:segv after=x]]",
        "[[sim:segv after=-1]]",
        "[[sim:segv at=noon]]",
        "[[sim:segv where=here]]",
        "[[sim:segv colour=red]]",
        "[[sim:segv after]]",
        "[[sim:segv key=]]",
        "[[sim:utf8 at=init]]",
        "[[sim:segv " + "after=1 " * 50 + "]]",
    ],
)
def test_a_malformed_marker_warns_and_is_absent(marker: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert undisturbed(marker + "a").ids == undisturbed("a").ids
    assert "W rkllm: malformed fault marker" in capfd.readouterr().err


def test_a_marker_without_an_end_stays_text(capfd: pytest.CaptureFixture[str]) -> None:
    assert undisturbed("a[[sim:segv").status == 0
    assert "W rkllm: malformed fault marker" in capfd.readouterr().err


def test_error_returns_without_a_callback_and_errcb_with_one() -> None:
    with Simulator(max_new_tokens=20) as sim:
        failed = sim.run("[[sim:error after=2]]a")
        assert (failed.status, failed.states) == (-1, [NORMAL, NORMAL])
        failed = sim.run("[[sim:errcb after=2]]a")
        assert (failed.status, failed.states) == (-1, [NORMAL, NORMAL, ERROR])
        sim.clear()
        assert sim.run("a").ids == undisturbed().ids, "the handle stays usable"


def test_a_callback_with_tensors_counts_as_that_of_the_first_token() -> None:
    with Simulator() as sim:
        assert sim.run("[[sim:error]]a", mode=1).states == []
        assert sim.run("[[sim:error at=callback]]a", mode=1).states == [NORMAL]
        assert sim.run("[[sim:error after=1]]a", mode=1).states == [NORMAL, FINISH]


def test_nofinish_omits_finish_only() -> None:
    outcome = undisturbed("[[sim:nofinish]]a")
    assert (outcome.status, outcome.ids) == (0, undisturbed().ids)
    assert FINISH not in outcome.states


def test_utf8_delivers_both_pieces_of_a_split_character_raw() -> None:
    calm, raw = undisturbed("a", 300), undisturbed("[[sim:utf8 after=100]]a", 300)
    assert raw.ids == calm.ids
    assert raw.text == calm.text
    assert raw.states[:100] == calm.states[:100]
    pieces = [event.texts[0] or b"" for event in raw.steps[100:]]
    assert any(piece and not piece.decode(errors="ignore") for piece in pieces)
    assert all(event.state == NORMAL for event in raw.steps[101:])


def test_utf8_that_begins_inside_a_character_lets_it_be_whole() -> None:
    calm = undisturbed("a", 300)
    cut = calm.states.index(WAITING)
    raw = undisturbed(f"[[sim:utf8 after={cut + 1}]]a", 300)
    assert raw.steps[cut + 1].texts == calm.steps[cut + 1].texts
    assert raw.text == calm.text


def test_slow_delays_every_later_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RKVISOR_SIM_TIME_SCALE", "1")
    perf = undisturbed("[[sim:slow ms=40 after=10]]a").events[-1].perf
    assert perf is not None
    assert perf[2] >= 9 * 40


def test_hang_ignores_abort_and_ends_by_a_killing_signal() -> None:
    body = {"model": "builtin:tiny", "runs": ["[[sim:hang after=2]]a"], "params": {"max_new_tokens": 20}}
    with subprocess.Popen([sys.executable, "-P", DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps(body).encode())
        child.stdin.close()
        lines = [line for line in (child.stdout.readline() for _ in range(4)) if line.startswith(b"{")]
        assert len(lines) == 2
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.3)
        child.kill()
    assert child.returncode == -signal.SIGKILL


def test_times_is_counted_over_processes_that_share_a_directory(tmp_path: Path) -> None:
    prompt = "[[sim:segv after=1 times=2]]a"
    statuses = [Child(prompt, state=tmp_path).status for _ in range(3)]
    assert statuses == [-signal.SIGSEGV, -signal.SIGSEGV, 0]
    assert Child(prompt, state=tmp_path / "other").status == -signal.SIGSEGV


def test_without_a_key_the_marker_itself_is_the_key(tmp_path: Path) -> None:
    assert Child("[[sim:segv times=1]]a", state=tmp_path).status == -signal.SIGSEGV
    assert Child("[[sim:segv times=1]]b", state=tmp_path).status == 0
    assert Child("[[sim:abrt times=1]]a", state=tmp_path).status == -signal.SIGABRT
    assert Child("[[sim:segv times=1 key=k]]a", state=tmp_path).status == -signal.SIGSEGV
    assert Child("[[sim:abrt times=1 key=k]]a", state=tmp_path).status == 0


def test_without_a_directory_each_process_counts_for_itself() -> None:
    child = Child(*["[[sim:error times=2]]a"] * 4)
    assert child.statuses == [-1, -1, 0, 0]
    assert Child("[[sim:error times=2]]a").statuses == [-1]


def test_a_process_that_counts_waits_for_every_other_one(tmp_path: Path) -> None:
    body = {"model": "builtin:tiny", "runs": ["[[sim:error times=1]]a"], "params": {"max_new_tokens": 1}}
    environment = {**os.environ, "RKVISOR_SIM_STATE": str(tmp_path)}
    with (
        (tmp_path / "lock").open("w") as lock,
        subprocess.Popen([sys.executable, "-P", DRIVER], stdin=PIPE, stdout=PIPE, env=environment) as child,
    ):
        fcntl.flock(lock, fcntl.LOCK_SH)  # waited for by an exclusive lock only
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps(body).encode())
        child.stdin.close()
        assert b"loading" in child.stdout.readline(), "init comes next, and it looks for armed faults"
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.3)
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert b'{"status": -1}' in child.stdout.read()
    assert child.returncode == 0


@pytest.mark.parametrize("shared", [True, False])
def test_an_init_fault_strikes_the_next_init_once_per_marker(shared: bool, tmp_path: Path) -> None:
    state = tmp_path if shared else None
    first = Child("[[sim:segv at=init]]a", state=state)
    assert (first.status, first.statuses) == (0, [0])
    second = Child("a", state=state)
    assert second.status == (-signal.SIGSEGV if shared else 0)
    assert Child("a", state=state).status == 0


def test_an_init_fault_is_ignored_by_processes_without_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Child("[[sim:exit at=init]]a", state=tmp_path)
    monkeypatch.setenv("RKVISOR_SIM_FAULTS", "0")
    assert Child("a", state=tmp_path).status == 0
    monkeypatch.setenv("RKVISOR_SIM_FAULTS", "1")
    assert Child("a", state=tmp_path).status == 1


def test_init_and_destroy_can_fail_without_dying() -> None:
    with Simulator(max_new_tokens=1) as sim:
        sim.run("[[sim:error at=init times=1]]a")
        with pytest.raises(RuntimeError):
            Simulator()
        sim.run("[[sim:error at=destroy times=1]]a")
        assert sim.library.rkllm_destroy(sim.handle) == -1
        assert sim.library.rkllm_destroy(sim.handle) == -1, "the handle is gone all the same"
        sim.handle.value = None


def test_a_destroy_fault_kills_in_destroy() -> None:
    child = Child("[[sim:abrt at=destroy]]a")
    assert (child.status, child.statuses, child.destroyed) == (-signal.SIGABRT, [0], [])


@pytest.mark.parametrize(
    ("marker", "name", "bytes_each"),
    [
        ("[[sim:leak bytes=1048576]]", "RssAnon", 1048576),
        ("[[sim:leak bytes=1048576 where=mmap]]", "RssAnon", 1048576),
        ("[[sim:leak bytes=1048576 where=shmem]]", "RssShmem", 1048576),
        ("[[sim:leak bytes=1048576 where=memfd]]", "RssShmem", 1048576),
        ("[[sim:fdleak]]", "descriptors", 1),
        ("[[sim:leak where=memfd]]", "descriptors", 1),
    ],
)
def test_a_leak_shows_in_its_own_series_with_its_size_per_run(marker: str, name: str, bytes_each: int) -> None:
    grown = json.loads(tell("harness.leaked", marker))[name]
    assert RUNS * bytes_each <= grown <= 1.3 * RUNS * bytes_each


def test_destroying_a_running_handle_is_fatal() -> None:
    code = (
        f"import sys; sys.argv=['x']; sys.path.insert(0, {str(TESTS)!r})\n"
        "from harness.sim_driver import Simulator\n"
        "sim = Simulator(answer=lambda event: sim.library.rkllm_destroy(sim.handle) and 0)\n"
        "sim.run('a')\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True)
    assert done.returncode == -signal.SIGSEGV


def test_version_1_2_3_aborts_on_logits_of_tokens_with_history() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(TESTS)!r})\n"
        "from harness.sim_driver import Simulator\n"
        "with Simulator(sys.argv[1]) as sim: sim.run([5], mode=2, keep_history=1)\n"
    )
    ends = [subprocess.run([sys.executable, "-P", "-c", code, f], capture_output=True).returncode for f in ("f4", "f5")]
    assert ends == [-signal.SIGABRT, 0]


MARK = "[[sim:error after=2 times=1 key={key}]]"


@pytest.mark.parametrize(
    ("before", "between", "after"),
    [([], None, tokenise(" tell")), (tokenise("ab."), None, []), ([1, 3], [2, 7, 300], [500, 2])],
)
def test_a_marker_spelt_in_tokens_is_obeyed_and_taken_out(
    before: list[int], between: list[int] | None, after: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a run goes on behind a prompt and the tokens that it gave (design §6)."""
    monkeypatch.setenv("RKVISOR_SIM_STATE", str(tmp_path))
    marked = [*before, *tokenise(MARK.format(key="one"))]
    plain = [*before, *after] or [9]
    if between is not None:
        marked += [*between, *tokenise(MARK.format(key="two"))]
        plain = [*before, *between, *after]
    marked += after
    with Simulator(max_new_tokens=6) as sim:
        calm = sim.run(plain)
        sim.clear()
        for _ in range(1 if between is None else 2):
            cut = sim.run(marked)
            assert (cut.status, cut.ids) == (-1, calm.ids[:2])
            sim.clear()
        assert sim.run(marked).ids == calm.ids


def test_half_a_marker_in_tokens_is_a_prompt_like_any_other() -> None:
    for text in ("[[sim:segv after=0", "sim:segv]]", "]] [[sim:"):
        with Simulator(max_new_tokens=4) as sim:
            assert len(sim.run(tokenise(text)).ids) == 4
