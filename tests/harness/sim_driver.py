"""Drives a simulator library through its C ABI, one handle at a time, and records what its callback was given.

``python -P sim_driver.py`` reads one JSON request from stdin and prints one JSON line per callback and one for the end:
that is how tests provoke what kills a process.
"""

import ctypes
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.abi_ctypes import LIBRARIES, Family

NORMAL, WAITING, FINISH, ERROR = 0, 1, 2, 3


@dataclass(frozen=True)
class Event:
    """One callback.  texts and ids: one entry per item of the batch."""

    state: int
    texts: tuple[bytes | None, ...]
    ids: tuple[int, ...]
    userdata: int | None = None
    perf: tuple[float, ...] | None = None
    address: int | None = None  # where the first item's text lay


@dataclass
class Outcome:
    """One run: its status, its callbacks, and the tensors copied inside them."""

    status: int
    events: list[Event] = field(default_factory=list)
    tensors: list[list[list[float]]] = field(default_factory=list)

    @property
    def steps(self) -> list[Event]:
        return [event for event in self.events if event.state in (NORMAL, WAITING)]

    @property
    def ids(self) -> list[int]:
        return [event.ids[0] for event in self.steps]

    @property
    def text(self) -> bytes:
        return b"".join(event.texts[0] or b"" for event in self.steps)

    @property
    def states(self) -> list[int]:
        return [event.state for event in self.events]


class Simulator:
    """One handle of ``librkllmrt_sim_<family>.so``.

    answer: what the callback returns for an event (0 go on, 1 pause, 2 release).  hooks: further fields of
    RKLLMCallback.  params: fields of RKLLMParam, or of its extend_param.  Raises RuntimeError when rkllm_init fails.
    """

    def __init__(
        self,
        family: str = "f5",
        model: str = "builtin:tiny",
        answer: Callable[[Event], int] | None = None,
        hooks: dict[str, Any] | None = None,
        **params: Any,
    ) -> None:
        self.abi = Family(family.upper())
        self.library = self.abi.load(LIBRARIES / f"librkllmrt_sim_{family}.so")
        self.answer = answer or (lambda _event: 0)
        self.current = Outcome(0)
        self.handle = ctypes.c_void_p()
        self.param = self.library.rkllm_createDefaultParam()
        self.param.model_path = model.encode()
        for name, value in params.items():
            setattr(self.param if hasattr(self.param, name) else self.param.extend_param, name, value)
        self.n_batch = getattr(self.param.extend_param, "n_batch", 1) or 1
        self.keep: list[Any] = [self.abi.LLMResultCallback(self._called)]
        target = self.keep[0]
        if family == "f5":
            target = self.abi.RKLLMCallback(result_callback=target, **(hooks or {}))
            self.keep.append(target)
            target = ctypes.byref(target)
        if self.library.rkllm_init(ctypes.byref(self.handle), ctypes.byref(self.param), target) != 0:
            raise RuntimeError("rkllm_init failed")

    def __enter__(self) -> "Simulator":
        return self

    def __exit__(self, *_: object) -> None:
        if self.handle:
            self.library.rkllm_destroy(self.handle)
            self.handle = ctypes.c_void_p()

    def _called(self, results: Any, userdata: int | None, state: int) -> int:
        items = [results[i] for i in range(self.n_batch)]
        perf = getattr(items[0], "perf", None)
        event = Event(
            state,
            tuple(item.text for item in items),
            tuple(item.token_id for item in items),
            userdata,
            tuple(getattr(perf, name) for name, _ in perf._fields_) if perf else None,
            ctypes.c_void_p.from_buffer(items[0]).value,
        )
        self.current.events.append(event)
        for item in items:
            self._copy(item.last_hidden_layer, "hidden_states", "embd_size")
            self._copy(getattr(item, "logits", None), "logits", "vocab_size")
        return self.answer(event)

    def _copy(self, tensor: Any, data: str, width: str) -> None:
        if tensor and tensor.num_tokens:
            n, m = tensor.num_tokens, getattr(tensor, width)
            values = getattr(tensor, data)[: n * m]
            self.current.tensors.append([values[i * m : i * m + m] for i in range(n)])

    def make_input(self, value: str | Sequence[int] | Any, role: str | None = None, thinking: bool = False) -> Any:
        """An RKLLMInput for a prompt (str), token ids (sequence of int), or a ready RKLLMInput."""
        made = value
        if isinstance(value, str):
            made = self.abi.RKLLMInput(input_type=self.abi.RKLLM_INPUT_PROMPT)
            made.prompt_input = value.encode()
        elif isinstance(value, (list, tuple)):
            made = self.abi.RKLLMInput(input_type=self.abi.RKLLM_INPUT_TOKEN)
            ids = (ctypes.c_int32 * max(1, len(value)))(*value)
            self.keep.append(ids)
            made.token_input.input_ids = ids
            made.token_input.n_tokens = len(value)
        if role is not None:
            made.role = role.encode()
        if thinking:
            made.enable_thinking = True
        return made

    def make_infer(self, mode: int = 0, lora: str | None = None, save: Path | None = None, **fields: Any) -> Any:
        """An RKLLMInferParam.  fields: keep_history, and max_new_tokens on F5."""
        infer = self.abi.RKLLMInferParam(mode=mode, **fields)
        if lora is not None:
            infer.lora_params = ctypes.pointer(self.abi.RKLLMLoraParam(lora_adapter_name=lora.encode()))
        if save is not None:
            cache = self.abi.RKLLMPromptCacheParam(save_prompt_cache=1, prompt_cache_path=str(save).encode())
            infer.prompt_cache_params = ctypes.pointer(cache)
        self.keep.append(infer)
        return infer

    def run(
        self, *values: Any, role: str | None = None, thinking: bool = False, userdata: int | None = None, **infer: Any
    ) -> Outcome:
        """rkllm_run on one input per batch item; see make_input and make_infer."""
        inputs = (self.abi.RKLLMInput * len(values))(*(self.make_input(value, role, thinking) for value in values))
        params = self.make_infer(**infer)
        self.current = Outcome(0)
        self.current.status = self.library.rkllm_run(self.handle, inputs, ctypes.byref(params), userdata)
        return self.current

    def force(self, ids: Sequence[int]) -> int:
        """rkvisor_force_tokens."""
        status: int = self.library.rkvisor_force_tokens(self.handle, (ctypes.c_int32 * len(ids))(*ids), len(ids))
        return status

    def clear(self, keep_system: int = 0) -> int:
        """rkllm_clear_kv_cache of everything, in the form the family has."""
        more = [None, None] if self.abi.name in ("F4", "F5") else []
        status: int = self.library.rkllm_clear_kv_cache(self.handle, keep_system, *more)
        return status

    def cached(self) -> list[int]:
        """rkllm_get_kv_cache_size."""
        sizes = (ctypes.c_int * self.n_batch)()
        assert self.library.rkllm_get_kv_cache_size(self.handle, sizes) == 0
        return list(sizes)


def main() -> None:
    """Run the request on stdin: {"family", "model", "params", "runs": [prompt or ids …], "forced", "destroy"}."""
    request = json.load(sys.stdin)

    def tell(**line: Any) -> None:
        print(json.dumps(line), flush=True)

    def answer(event: Event) -> int:
        text = event.texts[0]
        tell(state=event.state, id=event.ids[0], text=None if text is None else text.hex())
        return 0

    simulator = Simulator(request.get("family", "f5"), request["model"], answer, **request.get("params", {}))
    for value in request["runs"]:
        if request.get("forced"):
            simulator.force(request["forced"])
        tell(status=simulator.run(value).status)
    tell(destroyed=simulator.library.rkllm_destroy(simulator.handle))


if __name__ == "__main__":
    main()
