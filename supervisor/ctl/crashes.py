"""rkvisorctl's verbs about deaths: ``crashes``, ``crash show``, ``deadletters``.

Loaded only for these verbs: a status command must be cheap.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rkvisor.protocol.crashes import MAX_CRASHES, MIN_DIGEST_CHARS
from rkvisor.supervisor.ctl.link import UPCHECK_S, AdminLink
from rkvisor.supervisor.ctl.verbs import Exit

Report = dict[str, Any]
#: Reports that ``crashes`` shows without a number.
SHOWN = 20
#: Letters of a digest in a table; enough of them for ``release``.
DIGEST_CHARS = 16


def _when(wall: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(wall))


def _table(rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as they need to be; the last is not padded."""
    all_rows = list(rows)
    widths = [max(len(row[column]) for row in all_rows) for column in range(len(all_rows[0]) - 1)]
    for row in all_rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]))


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count else "unknown"


def crashes(link: AdminLink, words: list[str]) -> int:
    """``crashes [N] [WORKER]``."""
    try:
        params = _wanted(words)
    except ValueError as error:
        print(f"Error: {error}")
        return Exit.INVALID_ARGS
    found = link.call("system.crashes", params)
    if not found["crashes"]:
        print("no crashes")
        return Exit.OK
    counts = {group["signature"]: group["count"] for group in found["groups"]}
    rows = [("ID", "TIME", "WORKER", "END", "CLASS", "COUNT", "SIGNATURE")]
    for report in found["crashes"]:
        end, count = report["signal"] or f"exit {report['status']}", counts.get(report["signature"], 1)
        where = report["signature"].removeprefix(end).strip()
        rows.append((report["id"], _when(report["time"]), report["worker"], end, report["class"], str(count), where))
    _table(rows)
    return Exit.OK


def _wanted(words: list[str]) -> dict[str, Any]:
    """The params that ``[N] [WORKER]`` means.  Raises ValueError, saying what is wrong."""
    params: dict[str, Any] = {}
    for word in words:
        if word.startswith("-"):
            raise ValueError(f"crashes does not know {word}")
        key = "limit" if word.isdecimal() else "worker"
        if key in params:
            raise ValueError("crashes takes one number and one worker at most")
        if key == "limit" and not 1 <= int(word) <= MAX_CRASHES:
            raise ValueError(f"crashes takes a number of 1 or more, up to {MAX_CRASHES}")
        params[key] = int(word) if key == "limit" else word
    return {"limit": SHOWN, **params}


def crash(link: AdminLink, words: list[str]) -> int:
    """``crash show ID``."""
    if len(words) != 2 or words[0] != "show":
        print("Error: crash takes show and an id, as in: crash show 1a2b3c4d")
        return Exit.INVALID_ARGS
    found = link.call("system.crashes", {"id": words[1], "limit": 2})["crashes"]
    if len(found) != 1:
        print(f"ERROR: {'more than one crash' if found else 'no crash'} has an id that begins with {words[1]}")
        return Exit.GENERIC
    _show(found[0])
    return Exit.OK


def _show(report: Report) -> None:
    print(f"{report['error']}\n")
    fields = [
        ("id", report["id"]),
        ("time", f"{_when(report['time'])} (boot {report['boot_id'][:8]})"),
        ("class", f"{report['class']}: {report['hint']}"),
        ("signature", report["signature"]),
        ("severity", report["severity"]),
        ("signal", _signal(report)),
        ("model", report["model"]),
        ("runtime", " ".join(filter(None, (report["runtime"], report["family"], report["runtime_version"])))),
        ("process", f"{report['pid']}, incarnation {report['incarnation']}"),
        ("uptime", f"{report['uptime_s']:.1f} s, {report['requests']} request(s) done"),
        ("phase", report["phase"]),
        ("request", report["request_digest"] or "none"),
        ("memory", f"{_size(report['rss_bytes'])}, at most {_size(report['peak_rss_bytes'])}"),
        ("out of memory", report["oom"]),
        ("trouble", report["trouble"]),
        *((f"npu {name}", str(value)) for name, value in report["npu"].items()),
    ]
    for name, value in fields:
        if value:
            print(f"{name + ':':<15}{value}")
    _section("native stack, innermost first", report["frames"])
    _section("native stack of the thread that the signal reached", report["other_frames"])
    _section("files, for addr2line -e FILE 0xOFFSET", [f"{name}: {path}" for name, path in report["files"].items()])
    _section("registers", [f"{name:<7}{value}" for name, value in report["registers"].items()])
    _section("Python stacks", report["python_stacks"])
    _section("last lines of the runtime", report["log"])


def _signal(report: Report) -> str:
    if report["signal"] is None:
        return f"none, exit status {report['status']}"
    parts = [report["signal"], report["code"] or ""]
    if report["address"] is not None:
        parts.append(f"at address {report['address']}")
    if report["sender"] is not None:
        parts.append(f"sent by process {report['sender']}")
    return " ".join(filter(None, parts))


def _section(title: str, lines: list[str]) -> None:
    if lines:
        print(f"\n{title}:")
        for line in lines:
            print(f"  {line}")


def deadletters(link: AdminLink, words: list[str]) -> int:
    """``deadletters [show|release|purge] [DIGEST]``."""
    action, *rest = words or ["list"]
    takes = {"list": (0, 0), "show": (1, 1), "release": (1, 1), "purge": (0, 1)}
    if action not in takes:
        print(f"Error: deadletters does not know {action}")
        return Exit.INVALID_ARGS
    least, most = takes[action]
    if not least <= len(rest) <= most:
        print(f"Error: deadletters {action} takes {'a digest' if least else 'at most a digest' if most else 'nothing'}")
        return Exit.INVALID_ARGS
    if rest and len(rest[0]) < MIN_DIGEST_CHARS:
        print(f"Error: deadletters {action} takes at least {MIN_DIGEST_CHARS} characters of a digest")
        return Exit.INVALID_ARGS
    link.call("system.version", timeout_s=UPCHECK_S)
    actions: dict[str, Callable[..., int]] = {"list": _list, "show": _letter, "release": _release, "purge": _purge}
    return actions[action](link, *rest)


def _list(link: AdminLink) -> int:
    letters = link.call("admin.dead_letters")["dead_letters"]
    if not letters:
        print("no dead letters")
        return Exit.OK
    rows = [("DIGEST", "TIME", "MODEL", "PRINCIPAL", "DEATHS", "REFUSED")]
    for one in letters:
        left = f"for {one['quarantined_s']:.0f} s" if one["quarantined_s"] else "no more"
        digest = one["digest"][:DIGEST_CHARS]
        rows.append((digest, _when(one["time"]), one["model"], one["principal"], str(one["deaths"]), left))
    _table(rows)
    return Exit.OK


def _letter(link: AdminLink, digest: str) -> int:
    letter = link.call("admin.dead_letter", {"digest": digest})
    error = letter.pop("error")
    letter["time"] = _when(letter["time"])
    letter["payload"] = letter["payload"] or "not kept (store_prompts = false)"
    for name, value in letter.items():
        print(f"{name + ':':<15}{value}")
    print(f"{'error:':<15}{error.get('message', '')}")
    return Exit.OK


def _release(link: AdminLink, digest: str) -> int:
    released = link.call("admin.release", {"digest": digest})["released"]
    for one in released:
        print(f"{one[:DIGEST_CHARS]}: released")
    if not released:
        print(f"ERROR: nothing is refused whose digest begins with {digest}")
        return Exit.GENERIC
    return Exit.OK


def _purge(link: AdminLink, digest: str | None = None) -> int:
    purged = link.call("admin.purge", {"digest": digest} if digest else {})["purged"]
    print(f"{purged} dead letter(s) purged")
    return Exit.OK
