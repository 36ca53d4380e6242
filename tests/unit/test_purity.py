"""What must stay free of the outside world is, as its imports show (house style, "Shape")."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PURE = [
    *sorted((ROOT / "protocol").glob("*.py")),
    *(
        ROOT / "supervisor" / f"{name}.py"
        for name in (
            "workers/lifecycle",
            "workers/backoff",
            "workers/recycling",
            "memory/proc",
            "memory/history",
            "memory/attribution",
            "config/sizes",
            "requests/degradation",
            "requests/fairqueue",
            "requests/ladder",
            "requests/answers",
            "requests/faults",
            "requests/quarantine",
            "calls/configured",
            "calls/owed",
            "rate",
            "backlog",
            "store/stamps",
            "crashes/classes",
            "crashes/report",
            "crashes/signature",
            "memory/sample",
            "memory/slope",
            "memory/thinning",
            "memory/explained",
            "memory/growth",
            "memory/search",
            "memory/estimate",
            "memory/standing",
            "memory/pace",
            "memory/limits",
        )
    ),
    *(ROOT / "supervisor" / "sessions" / f"{name}.py" for name in ("affinity", "history", "lost", "store")),
    ROOT / "worker" / "stream.py",
    ROOT / "worker" / "replay.py",
    *(ROOT / "worker" / "checks" / f"{name}.py" for name in ("finding", "heads", "memory", "npu", "parameters")),
    ROOT / "client" / "doctor" / "report.py",
]
#: All that a pure module may import from outside; a new one must be thought about, so this is a list of the allowed.
HARMLESS = {
    "__future__",
    "array",
    "codecs",
    "collections",
    "contextlib",
    "dataclasses",
    "difflib",
    "enum",
    "functools",
    "itertools",
    "math",
    "re",
    "struct",
    "textwrap",
    "typing",
    "msgspec",
}


def modules() -> dict[str, Path]:
    """Every module of rkvisor by its dotted name."""
    found = {}
    for folder in ("protocol", "supervisor", "worker", "client", "batch", "cython_ext"):
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(["rkvisor", *(part for part in parts if part != "__init__")])] = path
    return found


def imports(path: Path) -> set[str]:
    """The modules that *path* imports when it runs, wherever in it; those for type checkers only do not count."""
    found: set[str] = set()
    todo: list[ast.AST] = [ast.parse(path.read_text())]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            todo += node.orelse
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found.add(node.module or "")
            known = modules()
            found |= {name for alias in node.names if (name := f"{node.module}.{alias.name}") in known}
        todo += ast.iter_child_nodes(node)
    return found


@pytest.mark.parametrize("path", PURE, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_pure_module_imports_nothing_that_can_block_or_differ(path: Path) -> None:
    known = modules()
    todo, seen = [path], set()
    while todo:
        one = todo.pop()
        seen.add(one)
        for name in imports(one):
            if name.partition(".")[0] == "rkvisor":
                todo += [known[name]] if name in known and known[name] not in seen else []
            else:
                where = one.relative_to(ROOT)
                assert name.partition(".")[0] in HARMLESS, f"{path.name} reaches {name}, by way of {where}"


def test_this_test_sees_an_import_inside_a_function_and_passes_over_one_for_type_checkers(tmp_path: Path) -> None:
    module = tmp_path / "m.py"
    module.write_text("if TYPE_CHECKING:\n    import zmq\nelse:\n    import re\ndef f():\n    import os.path\n")
    assert imports(module) == {"re", "os.path"}


def loaded_after(statement: str) -> set[str]:
    """The modules in a fresh interpreter after *statement*."""
    code = f"{statement}\nimport sys\nprint(*sys.modules, sep='\\n')"
    return set(
        subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )


def test_rkvisord_never_loads_the_binding() -> None:
    """The crash domain is the process: what can segfault stays out of the supervisor."""
    loaded = loaded_after("import rkvisor.supervisor.daemon, rkvisor.supervisor.server")
    assert "rkvisor.supervisor.requests.dispatcher" in loaded
    assert [name for name in loaded if name.startswith(("rkvisor.cython_ext", "rkvisor.worker"))] == []


def test_a_worker_loads_the_libraries_of_tokenizers_only_when_it_needs_them() -> None:
    """They take more memory than the rest of a process (design §10)."""
    loaded = loaded_after("import rkvisor.worker.main, rkvisor.worker.model")
    assert "rkvisor.worker.prompts" in loaded
    assert not loaded & {"tokenizers", "jinja2"}


def test_no_module_is_loaded_a_second_time_under_its_folders_name() -> None:
    import rkvisor.protocol.errors
    import rkvisor.supervisor.daemon  # noqa: F401

    files: dict[str, str] = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file is None or not str(Path(file).resolve()).startswith(str(ROOT)):
            continue
        if ".venv" in Path(file).parts:
            continue
        place = str(Path(file).resolve())
        assert files.setdefault(place, name) == name, f"{place} is loaded as {name} and as {files[place]}"
    assert sum(name.startswith("rkvisor.") for name in files.values()) > 10
