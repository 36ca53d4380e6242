"""rkvisorctl: administers rkvisord with supervisorctl's verbs, output and exit statuses.

A status command must be cheap, so everything is imported only when the verb is known to need it.
"""

from __future__ import annotations

import io
import sys
from getopt import GetoptError, getopt

from rkvisor.supervisor.ctl import help as ctl_help

_WITHOUT_NAMES = ("shutdown", "version")
#: Verbs that need at least one name, and the exit status where there is none; supervisorctl has it so.
_NEED_A_NAME = {"start": 2, "stop": 1, "restart": 1}


def main(argv: list[str] | None = None) -> int:
    """Run one verb.  Returns the exit status."""
    try:
        options, words = getopt(sys.argv[1:] if argv is None else argv, "c:s:h", ["config=", "server=", "help"])
    except GetoptError as error:
        print(f"Error: {error}\nFor help, use rkvisorctl -h", file=sys.stderr)
        return 2
    config = server = None
    for option, value in options:
        if option in ("-h", "--help"):
            print(ctl_help.USAGE)
            return 0
        if option in ("-c", "--config"):
            config = value
        else:
            server = value
    if not words:
        print(ctl_help.USAGE)
        return 2
    return _dispatch(words[0], words[1:], server, config)


def _dispatch(verb: str, names: list[str], server: str | None, config: str | None) -> int:
    if verb == "help":
        return _help(names)
    if verb not in ctl_help.TOPICS:
        print(f"*** Unknown syntax: {' '.join([verb, *names])}")
        return 1
    if verb in _NEED_A_NAME and not names:
        print(f"Error: {verb} requires a process name\n{ctl_help.TOPICS[verb]}")
        return _NEED_A_NAME[verb]
    if verb in _WITHOUT_NAMES and names:
        print(f"Error: {verb} accepts no arguments\n{ctl_help.TOPICS[verb]}")
        return 1
    return _run(verb, names, server, config)


def _help(names: list[str]) -> int:
    if not names:
        print(ctl_help.overview())
        return 0
    topic = ctl_help.TOPICS.get(names[0])
    print(topic or f"*** No help on {names[0]}")
    return 0


def _run(verb: str, names: list[str], server: str | None, config: str | None) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that lacks a letter must not cost the answer
    from rkvisor.client.endpoint import ADMIN, find
    from rkvisor.client.errors import BadEndpoint, NoEndpoint

    try:
        endpoint = find(ADMIN, server, config)
    except NoEndpoint as error:
        print(f"Error: {error}\nFor help, use rkvisorctl -h", file=sys.stderr)
        return 4 if verb == "status" and not isinstance(error, BadEndpoint) else 2
    from rkvisor.supervisor.ctl.link import AdminLink, Refused, Unreachable
    from rkvisor.supervisor.ctl.verbs import VERBS, unreachable_status

    try:
        return int(VERBS[verb](AdminLink(endpoint), names))
    except Unreachable as problem:
        print(problem.reason)
        return unreachable_status(problem)
    except Refused as problem:
        print(f"Error: {problem}")
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
