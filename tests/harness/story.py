"""A loaded model whose tokens are collected, and a way to run it beside the test."""

import threading
from collections.abc import Callable
from typing import Any

from rkvisor.cython_ext._rkllm import Runtime
from rkvisor.cython_ext.inputs import Infer, Input

NORMAL, WAITING, FINISH = 0, 1, 2
PROMPT = Input(kind="prompt", prompt="tell me a story")
DEADLINE_S = 30.0


class Story:
    """A model whose tokens are collected; ``on_token`` gets their number so far and decides what to return."""

    def __init__(self, path: str, family: str, **options: Any) -> None:
        self.runtime = Runtime(path, family, **options)
        self.ids: list[int] = []
        self.text = b""
        self.states: list[int] = []
        self.on_token: Callable[[int], int | None] = lambda count: None

    def init(self, **param: Any) -> "Story":
        self.runtime.init({"model_path": "builtin:tiny", "max_new_tokens": 12, **param}, self.on_result)
        return self

    def on_result(self, state: int, item: int, token_id: int, text: bytes | None, extra: object) -> int | None:
        self.states.append(state)
        if state not in (NORMAL, WAITING):
            return None
        self.ids.append(token_id)
        self.text += text or b""
        return self.on_token(len(self.ids))

    def run(self, input: Input = PROMPT, infer: Infer | None = None, *, is_fresh: bool = True) -> int:
        """is_fresh: clear the KV cache first, which a run without keep_history does not do by itself."""
        self.ids, self.text, self.states = [], b"", []
        if is_fresh and "rkllm_clear_kv_cache" in self.runtime.functions:
            self.runtime.clear_kv_cache(False)
        return self.runtime.run(input, infer or Infer())


def in_thread(work: Callable[[], object]) -> Callable[[], object]:
    """Start work() in a thread.  What is returned waits for its end and returns or raises what it did."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append((work(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def wait() -> object:
        thread.join(DEADLINE_S)
        assert not thread.is_alive(), "the thread hangs"
        value, error = outcome[0]
        if error is not None:
            raise error
        return value

    return wait
