"""``rkvisor doctor``: tell what is missing on this machine, and in a configuration, and how to mend it."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from rkvisor.client.doctor.report import Group, as_json, as_text, exit_status
from rkvisor.worker.checks import machine as machines

SUMMARY = "tell what is missing here, and how to mend it"
DESCRIPTION = "Look at this machine, and with -c FILE at a configuration and its models; load nothing, ask no server."
EPILOG = "Exit status: 0 nothing will fail, 1 a problem was found."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``rkvisor doctor``."""
    parser.epilog = EPILOG
    parser.add_argument("--json", action="store_true", help="print the findings as one line of JSON")
    parser.add_argument("--root", type=Path, default=machines.ROOT, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand.  Returns 0, or 1 where a problem was found."""
    groups = examine(args.config, args.root)
    if args.json:
        print(as_json(groups).decode(), flush=True)
    else:
        sys.stdout.write(as_text(groups, shutil.get_terminal_size((100, 24)).columns))
        sys.stdout.flush()
    return exit_status(groups)


def examine(config_file: str | None, root: Path = machines.ROOT) -> list[Group]:
    """The whole report.  config_file: from ``-c``, None for the machine alone.  root: where /proc, /sys, /dev lie."""
    from rkvisor.client.doctor import folders, installation, models, surroundings
    from rkvisor.supervisor.config import ConfigError
    from rkvisor.supervisor.daemon import read_config
    from rkvisor.worker.checks.finding import Finding

    machine = machines.read(root)
    groups = [
        Group(title="machine", findings=surroundings.check(root)),
        Group(title="installation", findings=installation.check()),
    ]
    config, about = None, []
    if config_file is not None:
        try:
            config = read_config(config_file)
            about = [Finding(about="file", level="ok", text=config.file), *folders.check(config)]
        except ConfigError as error:
            about = [Finding(about="file", level="problem", text=str(error))]
    needs_npu = config is not None and any(one.runtime == "rknpu" for one in config.models.values())
    found = surroundings.npu_findings(machine, os.uname().machine, is_needed=needs_npu)
    groups.append(Group(title="NPU", findings=found))
    if about:
        groups.append(Group(title="configuration", findings=about))
    if config is not None:
        groups[-1].findings.extend(models.shared_domains(config.models))
        for name, section in config.models.items():
            title = f"model {name} ({section.runtime})"
            groups.append(Group(title=title, findings=models.check(section, machine)))
    return groups
