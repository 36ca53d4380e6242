"""One handle of the CPU runtime for all tests of a module, as new for each of them."""

from collections.abc import Iterator

import pytest

from harness.llama import start
from harness.rkllm_f5 import Runtime


@pytest.fixture(scope="module")
def shared() -> Iterator[Runtime]:
    with start() as runtime:
        yield runtime


@pytest.fixture
def runtime(shared: Runtime) -> Runtime:
    shared.on_token = None
    shared.chat_template(None, None, None)
    shared.clear()
    return shared
