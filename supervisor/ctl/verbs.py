"""The verbs of rkvisorctl: what each asks, prints and ends with, as supervisorctl has it (facts: supervisorctl 4.3).

A verb takes the link and its arguments, prints to stdout and returns the exit status.  It refuses to know options and
how the server was found.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from enum import IntEnum
from typing import Any

from rkvisor.supervisor.ctl.link import UPCHECK_S, AdminLink, Refused, Unreachable

Process = dict[str, Any]


class Exit(IntEnum):
    """Exit statuses of the LSB, as supervisorctl uses them."""

    OK = 0
    GENERIC = 1
    INVALID_ARGS = 2
    STATUS_NOT_RUNNING = 3
    INSUFFICIENT_PRIVILEGES = 4
    STATUS_UNKNOWN = 4
    NOT_RUNNING = 7


#: supervisord's fault numbers, in ``status`` of the rows that start and stop answer with.
SUCCESS, BAD_NAME = 80, 10
FAULTS = {
    10: "no such process",
    20: "no such file",
    21: "file is not executable",
    40: "abnormal termination",
    50: "spawn error",
    60: "already started",
    70: "not running",
}
ALREADY_STARTED, NOT_RUNNING = 60, 70
_DEAD = (40, 50, 70)
_DOWN = ("STOPPED", "EXITED", "FATAL", "UNKNOWN")


def full_name(row: Process) -> str:
    """``group:name``, or the name alone where both are the same."""
    name, group = str(row["name"]), str(row["group"])
    return name if name == group else f"{group}:{name}"


def split(name: str) -> tuple[str, str | None]:
    """Group and process that a NAME means; process None is the whole group."""
    group, colon, process = name.partition(":")
    if not colon:
        return group, group
    return group, None if process in ("", "*") else process


def upcheck(link: AdminLink) -> None:
    """Raises Unreachable unless a server answers."""
    link.call("system.version", timeout_s=UPCHECK_S)


def unreachable_status(problem: Unreachable) -> int:
    """The exit status of every verb but ``status``, where the server cannot be reached."""
    if problem.errno in (errno.ENOENT, errno.ENOTDIR):
        return Exit.NOT_RUNNING
    if problem.errno in (errno.ECONNREFUSED, errno.EACCES):
        return Exit.INSUFFICIENT_PRIVILEGES
    return Exit.GENERIC


def status(link: AdminLink, names: list[str]) -> int:
    try:
        upcheck(link)
        processes: list[Process] = link.call("admin.processes")
    except Unreachable as problem:
        print(problem.reason)
        return Exit.STATUS_UNKNOWN
    shown, code = processes, Exit.OK
    if names and "all" not in names:
        shown, code = select(processes, names)
    width = max([30, *(len(full_name(process)) for process in shown)]) + 3
    for process in shown:
        print(f"{full_name(process):<{width}}{process['statename']:<10}{process['description']}")
    down = any(process["statename"] in _DOWN for process in shown)
    return Exit.STATUS_NOT_RUNNING if down else code


def select(processes: list[Process], names: list[str]) -> tuple[list[Process], Exit]:
    """The processes that the names mean, in the order of the names; says which mean none."""
    shown: list[Process] = []
    code = Exit.OK
    for name in names:
        found = matching(processes, name)
        if not found:
            group, process = split(name)
            print(f"{group}: ERROR (no such group)" if process is None else f"{name}: ERROR (no such process)")
            code = Exit.STATUS_UNKNOWN
        shown += [process for process in found if process not in shown]
    return shown, code


def matching(processes: list[Process], name: str) -> list[Process]:
    """What a NAME means: one process, or all of a group; ``demo`` is a group where no process is called so."""
    group, process = split(name)
    members = [one for one in processes if one["group"] == group]
    if process is None:
        return members
    exact = [one for one in members if one["name"] == process]
    return exact or (members if name == group else [])


def start(link: AdminLink, names: list[str]) -> int:
    upcheck(link)
    return _change(link, "admin.start", names, "started", ignored=ALREADY_STARTED, no_group=Exit.INVALID_ARGS)


def stop(link: AdminLink, names: list[str]) -> int:
    upcheck(link)
    return _change(link, "admin.stop", names, "stopped", ignored=NOT_RUNNING, no_group=Exit.GENERIC)


def restart(link: AdminLink, names: list[str]) -> int:
    stopped = stop(link, names)
    started = start(link, names)
    return started or stopped


def _change(link: AdminLink, method: str, names: list[str], done: str, *, ignored: int, no_group: Exit) -> int:
    """Start or stop, name after name.  ignored: the fault that is no failure, and not told of where many were meant."""
    code: int = Exit.OK
    for name in ["all"] if "all" in names else names:
        is_many = name == "all" or split(name)[1] is None
        for row in link.call(method, {"names": [name]}):
            fault = row["status"]
            if is_many and fault == ignored:
                continue
            if fault == BAD_NAME and is_many:
                print(f"{split(name)[0]}: ERROR (no such group)")
                code = no_group
                continue
            shown = name if fault == BAD_NAME else full_name(row)
            print(f"{shown}: {done}" if fault == SUCCESS else f"{shown}: ERROR ({_fault_text(row)})")
            if fault not in (SUCCESS, ignored):
                code = Exit.NOT_RUNNING if fault in _DEAD else Exit.GENERIC
    return code


def _fault_text(row: Process) -> str:
    return FAULTS.get(row["status"]) or str(row.get("description") or f"fault {row['status']}")


def pid(link: AdminLink, names: list[str]) -> int:
    upcheck(link)
    if not names:
        print(link.call("admin.pid"))
        return Exit.OK
    processes: list[Process] = link.call("admin.processes")
    if "all" in names:
        for process in processes:
            print(process["pid"])
        return Exit.OK
    code: int = Exit.OK
    for name in names:
        found = [process for process in processes if full_name(process) == name]
        if not found:
            print(f"No such process {name}")
            code = Exit.GENERIC
        for process in found:
            print(process["pid"])
            if not process["pid"]:
                code = Exit.NOT_RUNNING
    return code


def version(link: AdminLink, names: list[str]) -> int:
    print(link.call("system.version", timeout_s=UPCHECK_S)["version"])
    return Exit.OK


def shutdown(link: AdminLink, names: list[str]) -> int:
    try:
        link.call("admin.shutdown")
    except Unreachable as problem:
        if problem.errno != errno.ECONNRESET:  # it was reached and is gone: so it did shut down
            print(f"ERROR: {problem.reason} (already shut down?)")
            return Exit.GENERIC
    except Refused as problem:
        if problem.name != "SHUTTING_DOWN":
            raise
        print("ERROR: already shutting down")
        return Exit.OK
    print("Shut down")
    return Exit.OK


Verb = Callable[[AdminLink, list[str]], int]


def _about_deaths(name: str) -> Verb:
    """A verb of ``ctl_crashes``, loaded when it is called."""

    def verb(link: AdminLink, names: list[str]) -> int:
        from rkvisor.supervisor.ctl import crashes as ctl_crashes

        return int(getattr(ctl_crashes, name)(link, names))

    return verb


def leaks(link: AdminLink, words: list[str]) -> int:
    from rkvisor.supervisor.ctl import leaks as ctl_leaks

    return ctl_leaks.leaks(link, words)


VERBS: dict[str, Verb] = {
    **{name: _about_deaths(name) for name in ("crash", "crashes", "deadletters")},
    "leaks": leaks,
    "pid": pid,
    "restart": restart,
    "shutdown": shutdown,
    "start": start,
    "status": status,
    "stop": stop,
    "version": version,
}
