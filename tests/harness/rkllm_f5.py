"""The RKLLM F5 ABI through ctypes: how a program that knows nothing of rkvisor uses a runtime.

Independent of the Cython binding on purpose, so that a runtime's tests do not depend on it.
"""

from __future__ import annotations

import ctypes as c
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

NORMAL, WAITING, FINISH, ERROR = range(4)
PROMPT, TOKEN, EMBED, MULTIMODAL = range(4)
GENERATE, HIDDEN, LOGITS = range(3)


def _struct(name: str, /, **fields: object) -> type[c.Structure]:
    return type(name, (c.Structure,), {"_fields_": list(fields.items())})


I32, F32 = c.c_int32, c.c_float
Sampling = _struct(
    "Sampling", top_k=I32, top_p=F32, temperature=F32, repeat_penalty=F32, frequency_penalty=F32, presence_penalty=F32,
    mirostat=I32, mirostat_tau=F32, mirostat_eta=F32,
)  # fmt: skip
Extend = _struct(
    "Extend", base_domain_id=I32, embed_flash=c.c_int8, enabled_cpus_num=c.c_int8, enabled_cpus_mask=c.c_uint32,
    n_batch=c.c_uint8, use_cross_attn=c.c_int8, reserved=c.c_uint8 * 104,
)  # fmt: skip
Param = _struct(
    "Param", model_path=c.c_char_p, max_context_len=I32, max_new_tokens=I32, top_k=I32, n_keep=I32, top_p=F32,
    temperature=F32, repeat_penalty=F32, frequency_penalty=F32, presence_penalty=F32, mirostat=I32, mirostat_tau=F32,
    mirostat_eta=F32, skip_special_token=c.c_bool, ignore_eos_token=c.c_bool, is_async=c.c_bool, extend_param=Extend,
)  # fmt: skip
Array = _struct("Array", data=c.c_void_p, n_tokens=c.c_size_t)


class Content(c.Union):
    _fields_ = (("prompt", c.c_char_p), ("array", Array), ("multimodal", c.c_uint8 * 144))


Input = _struct("Input", role=c.c_char_p, enable_thinking=c.c_bool, input_type=c.c_int, content=Content)
Lora = _struct("Lora", path=c.c_char_p, name=c.c_char_p, scale=F32)
LoraParam = _struct("LoraParam", name=c.c_char_p)
CacheParam = _struct("CacheParam", save=c.c_int, path=c.c_char_p)
Infer = _struct(
    "Infer", mode=c.c_int, lora=c.POINTER(LoraParam), cache=c.POINTER(CacheParam), sampling=c.POINTER(Sampling),
    keep_history=c.c_int, max_new_tokens=I32,
)  # fmt: skip
Rows = _struct("Rows", data=c.POINTER(F32), width=c.c_int, n_rows=c.c_int)
Perf = _struct("Perf", prefill_ms=F32, prefill_tokens=c.c_int, generate_ms=F32, generate_tokens=c.c_int, memory_mb=F32)
Result = _struct("Result", text=c.c_char_p, token_id=I32, hidden=Rows, logits=Rows, perf=Perf)
ResultCallback = c.CFUNCTYPE(c.c_int, c.POINTER(Result), c.c_void_p, c.c_int)
TokenizerCallback = c.CFUNCTYPE(c.c_int, c.c_void_p, c.c_char_p, I32, c.POINTER(I32), I32)
EmbedCallback = c.CFUNCTYPE(c.c_int, c.c_void_p, c.POINTER(I32), c.c_uint64, c.POINTER(F32), c.c_uint64)
Callback = _struct(
    "Callback", result=ResultCallback, result_userdata=c.c_void_p, tokenizer=TokenizerCallback,
    tokenizer_userdata=c.c_void_p, embed=EmbedCallback, embed_userdata=c.c_void_p,
)  # fmt: skip

for _type, _size in ((Param, 184), (Input, 160), (Infer, 40), (Result, 72), (Callback, 48), (Sampling, 36)):
    assert c.sizeof(_type) == _size, _type


@dataclass
class Token:
    """One callback, copied while its pointers are valid."""

    state: int
    text: bytes | None
    id: int


@dataclass
class Run:
    """Everything one ``rkllm_run`` said."""

    status: int = 0
    calls: list[Token] = field(default_factory=list)
    hidden: list[float] = field(default_factory=list)
    logits: list[float] = field(default_factory=list)
    shape: tuple[int, int] = (0, 0)
    perf: dict[str, float] = field(default_factory=dict)
    userdata: int | None = None

    @property
    def text(self) -> str:
        return b"".join(call.text or b"" for call in self.calls if call.state == NORMAL).decode()

    @property
    def ids(self) -> list[int]:
        return [call.id for call in self.calls if call.state in (NORMAL, WAITING)]

    @property
    def states(self) -> list[int]:
        return [call.state for call in self.calls]


def load(path: Path) -> c.CDLL:
    library = c.CDLL(str(path))
    library.rkllm_createDefaultParam.restype = Param
    for name in ("load_lora", "load_prompt_cache", "release_prompt_cache", "destroy", "run", "run_async", "abort"):
        getattr(library, f"rkllm_{name}").restype = c.c_int
    return library


class Runtime:
    """One handle.  ``on_token`` is asked after each callback and answers 0, 1 or 2; None means 0."""

    def __init__(self, library: c.CDLL, model: Path | str, **settings: object) -> None:
        self.library = library
        self.on_token: Callable[[Token], int | None] | None = None
        self.current = Run()
        self.handle = c.c_void_p()
        param = library.rkllm_createDefaultParam()
        param.model_path = str(model).encode()
        param.temperature, param.repeat_penalty = 0.0, 1.0
        callback = Callback(result=ResultCallback(self._receive))
        for name, value in settings.items():
            if name in ("tokenizer", "embed"):
                setattr(callback, name, value)
            else:
                setattr(param.extend_param if hasattr(Extend, name) else param, name, value)
        self._kept = (callback, param)
        self.status = library.rkllm_init(c.byref(self.handle), c.byref(param), c.byref(callback))

    def __enter__(self) -> Runtime:
        assert self.status == 0
        return self

    def __exit__(self, *_: object) -> None:
        self.destroy()

    def destroy(self) -> int:
        handle, self.handle = self.handle, c.c_void_p()
        return int(self.library.rkllm_destroy(handle)) if handle else -1

    def _receive(self, pointer: c._Pointer, userdata: int | None, state: int) -> int:
        result = pointer.contents
        token = Token(state, result.text, result.token_id)
        run = self.current
        run.calls.append(token)
        run.userdata = userdata
        if result.hidden.n_rows:
            run.shape = (result.hidden.n_rows, result.hidden.width)
            run.hidden = result.hidden.data[: run.shape[0] * run.shape[1]]
        if result.logits.n_rows:
            run.shape = (result.logits.n_rows, result.logits.width)
            run.logits = result.logits.data[: run.shape[0] * run.shape[1]]
        if state == FINISH:
            run.perf = {name: getattr(result.perf, name) for name, *_ in Perf._fields_}
        return (self.on_token(token) if self.on_token else 0) or 0

    def run(
        self,
        prompt: str | bytes | None = None,
        *,
        tokens: Sequence[int] | None = None,
        embed: Sequence[float] | None = None,
        n_embed: int = 0,
        role: str | None = None,
        thinking: bool = False,
        mode: int = GENERATE,
        forced: Sequence[int] | None = None,
        keep_history: int = 0,
        max_new_tokens: int = 0,
        sampling: dict[str, float] | None = None,
        lora: str | None = None,
        save_cache: Path | None = None,
        userdata: int | None = None,
        is_async: bool = False,
    ) -> Run:
        """Run and collect.  An asynchronous run's result fills while it goes on."""
        given = Input(role=role.encode() if role else None, enable_thinking=thinking)
        if tokens is not None:
            given.input_type, kept = TOKEN, (I32 * len(tokens))(*tokens)
            given.content.array = Array(c.cast(kept, c.c_void_p), len(tokens))
        elif embed is not None:
            given.input_type, kept = EMBED, (F32 * len(embed))(*embed)
            given.content.array = Array(c.cast(kept, c.c_void_p), n_embed)
        else:
            given.input_type = PROMPT
            given.content.prompt = prompt.encode() if isinstance(prompt, str) else prompt
        infer = Infer(mode=mode, keep_history=keep_history, max_new_tokens=max_new_tokens)
        if sampling is not None:
            values = {"top_p": 1.0, "repeat_penalty": 1.0, "mirostat_tau": 5.0, "mirostat_eta": 0.1, **sampling}
            infer.sampling = c.pointer(Sampling(**values))
        if lora is not None:
            infer.lora = c.pointer(LoraParam(lora.encode()))
        if save_cache is not None:
            infer.cache = c.pointer(CacheParam(1, str(save_cache).encode()))
        if forced is not None:
            assert self.force(forced) == 0
        run = self.current = Run()
        call = self.library.rkllm_run_async if is_async else self.library.rkllm_run
        run.status = call(self.handle, c.byref(given), c.byref(infer), c.c_void_p(userdata))
        return run

    def force(self, ids: Sequence[int]) -> int:
        return int(self.library.rkvisor_force_tokens(self.handle, (I32 * len(ids))(*ids), c.c_size_t(len(ids))))

    def abort(self) -> int:
        return int(self.library.rkllm_abort(self.handle))

    def is_running(self) -> int:
        return int(self.library.rkllm_is_running(self.handle))

    def cache_size(self) -> int:
        size = c.c_int(-1)
        assert self.library.rkllm_get_kv_cache_size(self.handle, c.byref(size)) == 0
        return size.value

    def clear(self, keep_system_prompt: int = 0, span: tuple[int, int] | None = None) -> int:
        ends = (None, None) if span is None else tuple(c.byref(c.c_int(end)) for end in span)
        return int(self.library.rkllm_clear_kv_cache(self.handle, keep_system_prompt, *ends))

    def chat_template(self, system: str | None, prefix: str | None, postfix: str | None) -> int:
        texts = (text if text is None else text.encode() for text in (system, prefix, postfix))
        return int(self.library.rkllm_set_chat_template(self.handle, *texts))

    def tools(self, system: str, tools: str, tag: str) -> int:
        return int(self.library.rkllm_set_function_tools(self.handle, system.encode(), tools.encode(), tag.encode()))

    def load_lora(self, path: Path, name: str, scale: float = 1.0) -> int:
        adapter = Lora(str(path).encode(), name.encode(), scale)
        return int(self.library.rkllm_load_lora(self.handle, c.byref(adapter)))

    def load_cache(self, path: Path) -> int:
        return int(self.library.rkllm_load_prompt_cache(self.handle, str(path).encode()))

    def release_cache(self) -> int:
        return int(self.library.rkllm_release_prompt_cache(self.handle))
