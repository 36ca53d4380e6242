"""rkvisorctl's verbs against a scripted link: supervisorctl's words and exit statuses, observed of supervisor 4.3.0."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from rkvisor.supervisor.ctl import help as ctl_help
from rkvisor.supervisor.ctl import main as ctl
from rkvisor.supervisor.ctl.link import AdminLink, Refused, Unreachable
from rkvisor.supervisor.ctl.verbs import VERBS, full_name, split, unreachable_status


def process(
    name: str, state: str = "RUNNING", description: str = "pid 7, uptime 0:00:01", pid: int = 7
) -> dict[str, Any]:
    group, _, number = name.partition(":")
    return {"group": group, "name": number or group, "statename": state, "description": description, "pid": pid}


def row(name: str, status: int, description: str = "") -> dict[str, Any]:
    group, _, number = name.partition(":")
    return {"group": group, "name": number or group, "status": status, "description": description}


class Script(AdminLink):
    """answers: by method; a list of names picks by the first name asked for.  An exception is raised."""

    def __init__(self, **answers: Any) -> None:
        super().__init__("ipc:///x")
        self.answers = {"system.version": {"version": "1.2.3"}} | {
            name.replace("_", "."): value for name, value in answers.items()
        }
        self.asked: list[tuple[str, list[str]]] = []

    def call(self, method: str, params: dict[str, Any] | None = None, *, timeout_s: float | None = None) -> Any:
        names = (params or {}).get("names", [])
        self.asked.append((method, names))
        answer = self.answers[method]
        if isinstance(answer, Exception):
            raise answer
        return answer[names[0]] if names else answer


TWO = [process("demo:0"), process("demo:1", pid=8)]


@pytest.mark.parametrize(
    ("states", "code"),
    [
        (["RUNNING", "RUNNING"], 0),
        (["STARTING", "BACKOFF", "STOPPING"], 0),
        (["RUNNING", "STOPPED"], 3),
        (["EXITED"], 3),
        (["FATAL"], 3),
        ([], 0),
    ],
)
def test_status_is_3_where_something_is_down(states: list[str], code: int) -> None:
    link = Script(admin_processes=[process(f"demo:{index}", state) for index, state in enumerate(states)])
    assert VERBS["status"](link, []) == code


def test_status_lines_are_padded_as_supervisorctl_pads_them(capsys: pytest.CaptureFixture[str]) -> None:
    VERBS["status"](Script(admin_processes=[process("demo:0"), process("same", "STARTING", "")]), [])
    assert capsys.readouterr().out == (
        "demo:0                           RUNNING   pid 7, uptime 0:00:01\n"
        "same                             STARTING  \n"
    )


def test_status_columns_widen_with_the_longest_name(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 40
    VERBS["status"](Script(admin_processes=[process("demo:0"), process(f"{long}:0")]), [])
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("demo:0" + " " * 39 + "RUNNING")
    assert second.startswith(f"{long}:0   RUNNING")


@pytest.mark.parametrize(
    ("names", "lines", "code"),
    [
        (["demo:1"], ["demo:1"], 0),
        (["demo:*"], ["demo:0", "demo:1"], 0),
        (["demo:"], ["demo:0", "demo:1"], 0),
        (["demo"], ["demo:0", "demo:1"], 0),
        (["nope", "all"], ["demo:0", "demo:1", "solo"], 3),
        (["nope"], ["nope: ERROR (no such process)"], 4),
        (["demo:9"], ["demo:9: ERROR (no such process)"], 4),
        (["nope:*"], ["nope: ERROR (no such group)"], 4),
        (["demo:0", "nope"], ["nope: ERROR (no such process)", "demo:0"], 4),
        (["solo", "nope"], ["nope: ERROR (no such process)", "solo"], 3),
        (["demo:1", "demo:1"], ["demo:1"], 0),
    ],
)
def test_status_of_names(names: list[str], lines: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    link = Script(admin_processes=[*TWO, process("solo", "STOPPED", "Not started", 0)])
    assert VERBS["status"](link, names) == code
    shown = capsys.readouterr().out.splitlines()
    assert [line if "ERROR" in line else line.split()[0] for line in shown] == lines


@pytest.mark.parametrize(
    ("verb", "status", "line", "code"),
    [
        ("start", 80, "demo:0: started", 0),
        ("start", 60, "demo:0: ERROR (already started)", 0),
        ("start", 50, "demo:0: ERROR (spawn error)", 7),
        ("start", 40, "demo:0: ERROR (abnormal termination)", 7),
        ("start", 20, "demo:0: ERROR (no such file)", 1),
        ("start", 10, "demo:0: ERROR (no such process)", 1),
        ("stop", 80, "demo:0: stopped", 0),
        ("stop", 70, "demo:0: ERROR (not running)", 0),
        ("stop", 10, "demo:0: ERROR (no such process)", 1),
        ("start", 99, "demo:0: ERROR (what happened)", 1),
    ],
)
def test_start_and_stop_of_one(
    verb: str, status: int, line: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    link = Script(**{f"admin_{verb}": {"demo:0": [row("demo:0", status, "what happened")]}})
    assert VERBS[verb](link, ["demo:0"]) == code
    assert capsys.readouterr().out == line + "\n"


@pytest.mark.parametrize(("verb", "quiet", "code"), [("start", 60, 2), ("stop", 70, 1)])
def test_of_many_those_that_are_there_already_are_not_told(
    verb: str, quiet: int, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row("demo:0", quiet), row("demo:1", 80)]
    link = Script(**{f"admin_{verb}": {"demo:*": rows, "all": rows, "nope:*": [row("nope:*", 10)]}})
    done = {"start": "started", "stop": "stopped"}[verb]
    assert VERBS[verb](link, ["demo:*"]) == 0
    assert VERBS[verb](link, ["x", "all"]) == 0
    assert capsys.readouterr().out == f"demo:1: {done}\n" * 2
    assert VERBS[verb](link, ["nope:*"]) == code
    assert capsys.readouterr().out == "nope: ERROR (no such group)\n"


def test_names_are_done_one_after_the_other_and_the_last_failure_counts(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {"a": [row("a", 50)], "b": [row("b", 10)], "c": [row("c", 80)]}
    link = Script(admin_start=rows)
    assert VERBS["start"](link, ["a", "b", "c"]) == 1
    assert VERBS["start"](link, ["b", "a", "c"]) == 7
    assert [names for method, names in link.asked if method == "admin.start"][:3] == [["a"], ["b"], ["c"]]
    assert capsys.readouterr().out.splitlines()[:3] == [
        "a: ERROR (spawn error)",
        "b: ERROR (no such process)",
        "c: started",
    ]


def test_restart_stops_all_before_it_starts_any(capsys: pytest.CaptureFixture[str]) -> None:
    link = Script(
        admin_stop={"a": [row("a", 70)], "b": [row("b", 80)]}, admin_start={"a": [row("a", 80)], "b": [row("b", 50)]}
    )
    assert VERBS["restart"](link, ["a", "b"]) == 7
    assert capsys.readouterr().out.splitlines() == [
        "a: ERROR (not running)",
        "b: stopped",
        "a: started",
        "b: ERROR (spawn error)",
    ]


@pytest.mark.parametrize(
    ("names", "lines", "code"),
    [
        ([], ["4711"], 0),
        (["all"], ["7", "8", "0"], 0),
        (["demo:1"], ["8"], 0),
        (["demo:1", "solo"], ["8", "0"], 7),
        (["nope", "demo:0"], ["No such process nope", "7"], 1),
        (["demo:*"], ["No such process demo:*"], 1),
    ],
)
def test_pid(names: list[str], lines: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    link = Script(admin_pid=4711, admin_processes=[*TWO, process("solo", "STOPPED", "", 0)])
    assert VERBS["pid"](link, names) == code
    assert capsys.readouterr().out.splitlines() == lines


@pytest.mark.parametrize(
    ("answer", "line", "code"),
    [
        (True, "Shut down", 0),
        (Unreachable("ipc:///x", errno.ENOENT), "ERROR: ipc:///x no such file (already shut down?)", 1),
        (Unreachable("ipc:///x", errno.ECONNREFUSED), "ERROR: ipc:///x refused connection (already shut down?)", 1),
        (Unreachable("ipc:///x", errno.ECONNRESET), "Shut down", 0),
        (Refused({"message": "x", "data": {"name": "SHUTTING_DOWN"}}), "ERROR: already shutting down", 0),
    ],
)
def test_shutdown(answer: Any, line: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert VERBS["shutdown"](Script(admin_shutdown=answer), []) == code
    assert capsys.readouterr().out == line + "\n"


@pytest.mark.parametrize(
    ("number", "words", "code"),
    [
        (errno.ENOENT, "no such file", 7),
        (errno.ECONNREFUSED, "refused connection", 4),
        (errno.EACCES, "permission denied", 4),
        (errno.ETIMEDOUT, "does not answer (waited 5 s)", 1),
        (errno.ECONNRESET, "closed the connection", 1),
    ],
)
def test_a_server_that_cannot_be_reached(
    number: int, words: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    problem = Unreachable("ipc:///x", number)
    assert problem.reason == f"ipc:///x {words}"
    assert unreachable_status(problem) == code
    assert VERBS["status"](Script(system_version=problem), []) == 4
    assert capsys.readouterr().out == f"ipc:///x {words}\n"
    with pytest.raises(Unreachable):
        VERBS["start"](Script(system_version=problem), ["demo:0"])


def test_names() -> None:
    assert split("demo:0") == ("demo", "0")
    assert split("demo:*") == split("demo:") == ("demo", None)
    assert split("demo") == ("demo", "demo")
    assert full_name(process("demo:0")) == "demo:0"
    assert full_name(process("same")) == "same"


@pytest.mark.parametrize(
    ("words", "line", "code"),
    [
        (["start"], "Error: start requires a process name", 2),
        (["stop"], "Error: stop requires a process name", 1),
        (["restart"], "Error: restart requires a process name", 1),
        (["version", "x"], "Error: version accepts no arguments", 1),
        (["shutdown", "x"], "Error: shutdown accepts no arguments", 1),
        (["frobnicate", "x"], "*** Unknown syntax: frobnicate x", 1),
        (["help", "nothing"], "*** No help on nothing", 1),
        (["help", "start"], ctl_help.TOPICS["start"].splitlines()[0], 0),
        (["-h"], "rkvisorctl -- look after rkvisord and its workers.", 0),
        ([], "rkvisorctl -- look after rkvisord and its workers.", 2),
    ],
)
def test_usage(words: list[str], line: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(words) == (0 if words[:1] == ["help"] else code)
    assert capsys.readouterr().out.splitlines()[0] == line


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(["help"]) == 0
    shown = capsys.readouterr().out.split()
    assert set(VERBS) <= set(shown)
    assert set(VERBS) | {"help"} == set(ctl_help.TOPICS)


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--foo"], "Error: option --foo not recognized"), (["-s", "x", "status"], "cannot use the endpoint 'x' of -s")],
)
def test_wrong_options_are_exit_2_on_stderr(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert message in shown.err
    assert "For help, use rkvisorctl -h" in shown.err


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["1", "2", "3"], "one number"),
        (["demo:0", "demo:1"], "one worker"),
        (["-1"], "does not know -1"),
        (["0"], "1 or more"),
    ],
)
def test_crashes_takes_one_number_and_one_worker_and_nothing_else(
    words: list[str], wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    link = Script()
    assert VERBS["crashes"](link, words) == 2
    assert wrong in capsys.readouterr().out
    assert link.asked == []


@pytest.mark.parametrize("words", [["show", "abc"], ["release", "x"], ["purge", "abc"]])
def test_a_digest_that_is_too_short_is_refused_in_an_operators_words(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert VERBS["deadletters"](Script(), words) == 2
    assert capsys.readouterr().out == f"Error: deadletters {words[0]} takes at least 4 characters of a digest\n"
