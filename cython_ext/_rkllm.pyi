"""The RKLLM C ABI from Python; see _rkllm.pyx."""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, TypeAlias

from typing_extensions import Buffer

from .inputs import Infer, Input

_Path: TypeAlias = str | bytes | PathLike[str] | PathLike[bytes]
_Text: TypeAlias = str | bytes | None
_OnResult: TypeAlias = Callable[[int, int, int, bytes | None, dict[str, Any] | None], int | None]

# The enums of F5: enum name → constant → value.
CONSTANTS: dict[str, dict[str, int]]

def held() -> tuple[int, int]:
    """(blocks, bytes) of memory that is held for runtimes now."""

def tracker_open(path: _Path) -> None:
    """Record every allocation from now on, into a log.  Idempotent.  Raises OSError."""

def tracker_close() -> int:
    """Log and free what is still recorded, and stop recording.  Returns how many there were."""

def tracker_status() -> dict[str, int] | None:
    """count, bytes: held now.  allocations, total_bytes: since it was opened.  warnings.  None while not open."""

def tracker_free(address: int) -> bool:
    """Free a recorded block behind its owner's back.  Returns whether it was one."""

class Held:
    """Memory taken as for a runtime, for tests of the tracker."""

    addresses: list[int]
    @property
    def count(self) -> int: ...
    def take(self, count: int, size: int) -> None: ...
    def keep(self, value: str | Sequence[float]) -> int: ...
    def release(self) -> None: ...

class RkllmError(Exception):
    """A function of the library returned a status that is not 0."""

    function: str
    status: int
    def __init__(self, function: str, status: int) -> None: ...

class NotSupported(Exception):
    """A function, an input or an option that the library's family lacks."""

    function: str
    family: str
    def __init__(self, function: str, family: str) -> None: ...

class LibraryError(Exception):
    """A library cannot be loaded, or is no RKLLM runtime."""

    path: str
    reason: str
    def __init__(self, path: str, reason: str) -> None: ...

class Runtime:
    """One loaded runtime and, between init and destroy, one model.

    One call at a time, except ``abort`` and ``is_running``: a second one is a RuntimeError, as is a call without a
    model.  A function that the library or its family lacks raises NotSupported, a status other than 0 RkllmError.
    """

    @property
    def path(self) -> str: ...
    @property
    def family(self) -> str: ...
    @property
    def functions(self) -> frozenset[str]:
        """Names of the vendor's functions that the library has and its family defines."""
    @property
    def can_force_tokens(self) -> bool: ...
    def __init__(self, path: str, family: str, *, hide_force_tokens: bool = False) -> None:
        """dlopen.  family: "F1" … "F5".  hide_force_tokens: behave as if the library had no rkvisor_force_tokens.

        Raises ValueError for another family, LibraryError.
        """
    def default_param(self) -> dict[str, Any]:
        """The library's defaults, by the vendor's field names, extend_param flattened; what the family has."""
    def init(
        self,
        param: Mapping[str, Any],
        on_result: _OnResult,
        *,
        tokenizer: Callable[[bytes], Sequence[int]] | None = None,
        embedder: Callable[[list[int]], Buffer] | None = None,
    ) -> None:
        """Load a model.  param: fields by the vendor's names, those missing keep the library's defaults.

        on_result(state, item, token_id, text, extra): see ``run``.  tokenizer(text) gives ids, embedder(ids) float32
        rows; only F5.  Raises TypeError for an unknown field, ValueError for a value out of range, NotSupported for a
        field that the family lacks (unless the value changes nothing), RkllmError.
        """
    def run(self, input: Input | Sequence[Input], infer: Infer) -> int:
        """Run to the end on this thread, with the GIL released.  A sequence (list or tuple) of n_batch inputs.

        on_result is called with state (LLMCallState), item (index within the batch), token_id, the text's bytes or
        None, and None or a dict of "hidden" (bytes, num_tokens, embd_size), "logits" (bytes, num_tokens, vocab_size),
        "perf" (prefill_time_ms, prefill_tokens, generate_time_ms, generate_tokens, memory_usage_mb; F4 and F5, at
        FINISH).  It returns 0 or None to go on, 1 to pause (the next run resumes), 2 to release the output buffer (the
        last two: F4 and F5).  Its first exception aborts the run and is raised here, whatever the status.

        Returns 0, or the runtime's status of a run that ``abort`` ended.
        """
    def run_async(self, input: Input | Sequence[Input], infer: Infer) -> None:
        """Start a run; on_result is called on a thread of the library.  The model is busy until FINISH or ERROR.

        An exception of on_result aborts the run and waits in ``take_error`` until the next run.
        """
    def take_error(self) -> BaseException | None:
        """The exception that ended the last run_async, once."""
    def abort(self) -> None:
        """End the run at hand or the paused one, from any thread; nothing without one.

        The run returns later, at the latest after its next token: wait for it.
        """
    def is_running(self) -> int:
        """What rkllm_is_running says; its polarity differs between releases."""
    def force_tokens(self, ids: Sequence[int]) -> None:
        """Take ids as generated in the next run; none clears."""
    def destroy(self) -> None:
        """Unload the model; nothing without one.  RuntimeError while a call is in progress."""
    def load_lora(self, path: _Path, name: str | bytes, scale: float) -> None: ...
    def load_prompt_cache(self, path: _Path) -> None: ...
    def release_prompt_cache(self) -> None: ...
    def clear_kv_cache(
        self, keep_system_prompt: bool, start: Sequence[int] | None = None, end: Sequence[int] | None = None
    ) -> None:
        """Clear the cache, or positions [start, end) of each of the n_batch items while a run is paused (F4, F5)."""
    def get_kv_cache_size(self) -> list[int]:
        """Tokens in the cache, for each of the n_batch items."""
    def set_chat_template(self, system: _Text, prefix: _Text, postfix: _Text) -> None: ...
    def set_function_tools(self, system: _Text, tools: _Text, tool_response: _Text) -> None: ...
    def set_cross_attn_params(
        self, k: Buffer, v: Buffer, mask: Buffer, pos: Buffer | Sequence[int], num_tokens: int
    ) -> None:
        """Caches and mask of the encoder, float32, and positions, int32; num_tokens rows each."""

def examine(path: str) -> tuple[list[str], list[bytes]]:
    """(exported rkllm_* functions, results of rkllm_createDefaultParam over 0xA5 and over 0x5A, 1024 bytes each).

    Runs the library's code: only in a process that may die.
    """
