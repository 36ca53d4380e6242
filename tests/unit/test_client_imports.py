"""What the client's modules may import."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import rkvisor.client

MAY_BLOCK = {
    "zmq",
    "os",
    "subprocess",
    "time",
    "socket",
    "select",
    "asyncio",
    "threading",
    "random",
    "loguru",
    "signal",
}


#: The modules that decide, and know neither sockets nor clocks.
CORE = ("dialogue", "exchange", "replies", "errors", "tensors")


def imported(module: str) -> set[str]:
    """Top-level names that a module imports anywhere, and rkvisor's own modules in full."""
    path = importlib.import_module(module).__file__
    assert path is not None
    names: set[str] = set()
    for node in ast.walk(ast.parse(Path(path).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("module", CORE)
def test_the_core_imports_nothing_that_can_block(module: str) -> None:
    names = imported(f"rkvisor.client.{module}")
    assert not {name.partition(".")[0] for name in names} & MAY_BLOCK
    own = {name for name in names if name.startswith("rkvisor.client")}
    assert own <= {f"rkvisor.client.{pure}" for pure in CORE}


def test_the_package_offers_what_it_names() -> None:
    for name in rkvisor.client.__all__:
        assert getattr(rkvisor.client, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = rkvisor.client.Nothing  # type: ignore[attr-defined]
