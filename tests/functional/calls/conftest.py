"""One server a family for all tests of a module, with models that nobody has configured yet."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.api import FAMILIES, Api, model
from harness.configured import loaded
from harness.rkvisord import Rkvisord

#: Models that nobody has configured; each test takes the next one.
FRESH = 24
SLOW = 'name = "slow"\nvocab_size = 1024\nembedding_size = 64\ntoken_ms = 40.0\n'


@dataclass
class Running:
    """A server, and the names of the models that are left."""

    server: Rkvisord
    family: str
    names: Iterator[str]


@pytest.fixture(scope="module", params=FAMILIES)
def running(request: pytest.FixtureRequest) -> Iterator[Running]:
    family: str = request.param
    folder = Path(tempfile.mkdtemp(prefix="rkva"))  # sockets need a short path
    for name in ("lora", "caches"):
        (folder / name).mkdir()
    (folder / "lora" / "a.bin").write_bytes(b"adapter")
    (folder / "slow.toml").write_text(SLOW)
    models = "".join(model(f"m{i}", family, "workers = 2\nautostart = false") for i in range(FRESH))
    slow = model("slow", family, "workers = 2\nautostart = false").replace("builtin:tiny", "slow.toml")
    models += slow.replace("max_new_tokens = 8", "max_new_tokens = 200")
    models += model("bare", family, "autostart = false").replace("lora_dir", "#").replace("prompt_cache_dir", "#")
    with Rkvisord(models, folder=folder, supervisor="fault_window_s = 0") as server:
        yield Running(server, family, iter([f"m{i}" for i in range(FRESH)]))
    shutil.rmtree(folder)


@pytest.fixture
def api(running: Running) -> Iterator[Api]:
    connection = Api(running.server, running.family)
    yield connection
    connection.close()


@pytest.fixture
def fresh(api: Api, running: Running) -> Iterator[str]:
    """A model of two workers that nobody configured yet."""
    yield from loaded(api, next(running.names))


@pytest.fixture
def slow(api: Api) -> Iterator[str]:
    """A model of two workers that takes 8 s for an answer."""
    yield from loaded(api, "slow")
