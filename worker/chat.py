"""Which chat template and which tools the loaded model has: its own, the model-wide ones, or those of a session.

RKLLM has functions to set them and none to unset them.  So where nothing else replaces what a session has set, the
model is loaded again in its process, and configured again by every call that counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rkvisor.protocol.calls import CALLS, UNDO, kept_as
from rkvisor.protocol.params import decode_params

if TYPE_CHECKING:
    from rkvisor.worker.model import Model

TEMPLATE, TOOLS = "rkllm.set_chat_template", "rkllm.set_function_tools"

PROMPT_CACHE = ("rkllm.load_prompt_cache", "")

Perform = Callable[["Model", str, bytes, Sequence[bytes]], Any]


class ChatSetup:
    """perform: does a call on the model (``calls.perform``)."""

    def __init__(self, model: Model, perform: Perform):
        self._model = model
        self._perform = perform
        self._kept: dict[tuple[str, str], tuple[str, bytes, Sequence[bytes]]] = {}
        self._last: tuple[tuple[str, str], tuple[str, bytes, Sequence[bytes]] | None] | None = None
        self._template: list[str] = []
        self._tools: list[str] = []

    def call(self, name: str, raw_params: bytes, attachments: Sequence[bytes]) -> Any:
        """Do a model-wide call, as if no session had ever been here.  Raises what ``perform`` does."""
        if name == UNDO:
            self._undo()
            return None
        params = decode_params(CALLS[name], raw_params)
        if name in (TEMPLATE, TOOLS):
            self.wear([], [])
        if name != "rkllm.get_kv_cache_size":
            self._model.conversation.leave()
        result = self._perform(self._model, name, raw_params, attachments)
        key = PROMPT_CACHE if name == "rkllm.release_prompt_cache" else kept_as(name, params)
        if key is not None:
            self._last = key, self._kept.pop(key, None)
            if name != "rkllm.release_prompt_cache":
                self._kept[key] = (name, raw_params, attachments)
        return result

    def _undo(self) -> None:
        """Take the last call back that counted here: it did not on all workers."""
        if self._last is None:
            return
        (key, before), self._last = self._last, None
        self._kept.pop(key, None)
        if before is not None:
            self._kept[key] = before
        self._model.conversation.leave()
        if key == PROMPT_CACHE and before is None:
            self._model.release_prompt_cache()
        elif before is not None and before[0] != "rkllm.load_lora":  # an adapter's name is taken once it is loaded
            self._perform(self._model, *before)
        else:
            self._model.reload()
            self._template, self._tools = [], []
            for call in self._kept.values():
                self._perform(self._model, *call)

    def wear(self, template: list[str], tools: list[str]) -> None:
        """From now on the model has *template* and *tools* of a session; empty: those that it has without."""
        if (template, tools) == (self._template, self._tools):
            return
        self._model.conversation.leave()
        if self._needs_reload(template, tools):
            self._model.reload()
            again = list(self._kept.values())
        else:
            again = [call for call in self._kept.values() if call[0] in (TEMPLATE, TOOLS)]
        self._template, self._tools = template, tools
        for call in again:
            self._perform(self._model, *call)
        if template:
            self._model.runtime.set_chat_template(*template)
        if tools:
            self._model.runtime.set_function_tools(*tools)

    def _needs_reload(self, template: list[str], tools: list[str]) -> bool:
        """Whether something is set that nothing will replace."""
        stale_template = self._template and not template and (TEMPLATE, "") not in self._kept
        stale_tools = self._tools and not tools and (TOOLS, "") not in self._kept
        return bool(stale_template or stale_tools)
