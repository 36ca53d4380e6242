"""What one model is configured with: the calls that count, in the order that new processes are given them in.  Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rkvisor.protocol.calls import UNDO

#: A call's name and what it is about; a later call with the same key takes its place.
Key = tuple[str, str]
_PROMPT_CACHE: Key = ("rkllm.load_prompt_cache", "")


@dataclass(frozen=True, slots=True)
class Call:
    """A call as it is sent to a process.  raw_params: JSON text."""

    name: str
    raw_params: bytes
    attachments: tuple[bytes, ...]


class Configured:
    """The calls of one model."""

    def __init__(self) -> None:
        self._calls: dict[Key, Call] = {}

    def __iter__(self) -> Iterator[Call]:
        return iter(self._calls.values())

    def drop(self, call: Call) -> bool:
        """Give *call* to nobody any more.  Returns whether it was kept."""
        for key, kept in self._calls.items():
            if kept is call:
                del self._calls[key]
                return True
        return False

    def count(self, call: Call, key: Key | None) -> bool:
        """*call* counts.  key: under which, None: it is not kept.  Returns whether new processes need it too."""
        if call.name == "rkllm.release_prompt_cache":
            self._calls.pop(_PROMPT_CACHE, None)
            return True
        if key is None:
            return False
        self._calls.pop(key, None)  # to the end
        self._calls[key] = call
        return True


def undo_of(call: Call, key: Key | None) -> Call | None:
    """What makes a process that did *call* as it was before, or None where there is nothing to undo."""
    changes = key is not None or call.name == "rkllm.release_prompt_cache"
    return Call(UNDO, b"{}", ()) if changes else None
