"""A program of the kind that people write after the vendor's Python demo: ctypes, a global callback, a wrapper class.

    python ctypes_demo.py f4|f5 LIBRARY MODEL SCENARIO

It knows the ABI of its family and nothing else.  Each scenario prints lines "word: …" and ends with exit status 0.
"""

import ctypes
import os
import sys
import threading
import time

IS_F5 = sys.argv[1] == "f5"
NORMAL, WAITING, FINISH, ERROR = 0, 1, 2, 3
HANDLE = ctypes.c_void_p


class ExtendParam(ctypes.Structure):
    _fields_ = [
        ("base_domain_id", ctypes.c_int32),
        ("embed_flash", ctypes.c_int8),
        ("enabled_cpus_num", ctypes.c_int8),
        ("enabled_cpus_mask", ctypes.c_uint32),
        ("n_batch", ctypes.c_uint8),
        ("use_cross_attn", ctypes.c_int8),
        ("reserved", ctypes.c_uint8 * 104),
    ]


class Param(ctypes.Structure):
    _fields_ = [
        ("model_path", ctypes.c_char_p),
        ("max_context_len", ctypes.c_int32),
        ("max_new_tokens", ctypes.c_int32),
        ("top_k", ctypes.c_int32),
        ("n_keep", ctypes.c_int32),
        ("top_p", ctypes.c_float),
        ("temperature", ctypes.c_float),
        ("repeat_penalty", ctypes.c_float),
        ("frequency_penalty", ctypes.c_float),
        ("presence_penalty", ctypes.c_float),
        ("mirostat", ctypes.c_int32),
        ("mirostat_tau", ctypes.c_float),
        ("mirostat_eta", ctypes.c_float),
        ("skip_special_token", ctypes.c_bool),
        *([("ignore_eos_token", ctypes.c_bool)] if IS_F5 else []),
        ("is_async", ctypes.c_bool),
        *([] if IS_F5 else [(name, ctypes.c_char_p) for name in ("img_start", "img_end", "img_content")]),
        ("extend_param", ExtendParam),
    ]


class Tokens(ctypes.Structure):
    _fields_ = [("input_ids", ctypes.POINTER(ctypes.c_int32)), ("n_tokens", ctypes.c_size_t)]


class Union(ctypes.Union):
    _fields_ = [
        ("prompt_input", ctypes.c_char_p),
        ("token_input", Tokens),
        ("room", ctypes.c_uint64 * (18 if IS_F5 else 6)),
    ]


class Input(ctypes.Structure):
    _fields_ = [
        ("role", ctypes.c_char_p),
        ("enable_thinking", ctypes.c_bool),
        ("input_type", ctypes.c_int),
        ("data", Union),
    ]


class Infer(ctypes.Structure):
    _fields_ = [
        ("mode", ctypes.c_int),
        ("lora_params", ctypes.c_void_p),
        ("prompt_cache_params", ctypes.c_void_p),
        *([("sampling_params", ctypes.c_void_p)] if IS_F5 else []),
        ("keep_history", ctypes.c_int),
        *([("max_new_tokens", ctypes.c_int32)] if IS_F5 else []),
    ]


class Rows(ctypes.Structure):
    _fields_ = [("data", ctypes.POINTER(ctypes.c_float)), ("size", ctypes.c_int), ("num_tokens", ctypes.c_int)]


class Perf(ctypes.Structure):
    _fields_ = [
        ("prefill_time_ms", ctypes.c_float),
        ("prefill_tokens", ctypes.c_int),
        ("generate_time_ms", ctypes.c_float),
        ("generate_tokens", ctypes.c_int),
        ("memory_usage_mb", ctypes.c_float),
    ]


class Result(ctypes.Structure):
    _fields_ = [
        ("text", ctypes.c_char_p),
        ("token_id", ctypes.c_int32),
        ("last_hidden_layer", Rows),
        ("logits", Rows),
        ("perf", Perf),
    ]


assert (ctypes.sizeof(Param), ctypes.sizeof(Input), ctypes.sizeof(Infer)) == (
    (184, 160, 40) if IS_F5 else (208, 64, 32)
)
assert ctypes.sizeof(Result) == 72
OnResult = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Result), ctypes.c_void_p, ctypes.c_int)


class Callbacks(ctypes.Structure):
    _fields_ = [
        ("result_callback", OnResult),
        ("result_userdata", ctypes.c_void_p),
        ("tokenizer_callback", ctypes.c_void_p),
        ("tokenizer_userdata", ctypes.c_void_p),
        ("embed_callback", ctypes.c_void_p),
        ("embed_userdata", ctypes.c_void_p),
    ]


library = ctypes.CDLL(sys.argv[2])
library.rkllm_createDefaultParam.restype = Param
library.rkllm_init.argtypes = [
    ctypes.POINTER(HANDLE),
    ctypes.POINTER(Param),
    ctypes.POINTER(Callbacks) if IS_F5 else OnResult,
]
library.rkllm_run.argtypes = [HANDLE, ctypes.POINTER(Input), ctypes.POINTER(Infer), ctypes.c_void_p]
library.rkllm_run_async.argtypes = library.rkllm_run.argtypes
library.rkllm_clear_kv_cache.argtypes = [HANDLE, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
library.rkllm_get_kv_cache_size.argtypes = [HANDLE, ctypes.POINTER(ctypes.c_int)]
library.rkllm_set_chat_template.argtypes = [HANDLE, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p]
library.rkllm_set_function_tools.argtypes = [HANDLE, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p]
for name in ("load_lora", "load_prompt_cache", "set_cross_attn_params"):
    getattr(library, f"rkllm_{name}").argtypes = [HANDLE, ctypes.c_void_p]
for name in ("abort", "is_running", "destroy", "release_prompt_cache"):
    getattr(library, f"rkllm_{name}").argtypes = [HANDLE]

# What the callback found, by userdata.
texts: dict[object, list[bytes]] = {}
states: dict[object, list[int]] = {}
answers: dict[object, int] = {}
finished: dict[object, threading.Event] = {}
perfs: dict[object, int] = {}


def on_result(result, userdata, state):
    states.setdefault(userdata, []).append(state)
    if state == NORMAL and result.contents.text is not None:
        texts.setdefault(userdata, []).append(result.contents.text)
    if state == FINISH:
        perfs[userdata] = result.contents.perf.generate_tokens
    if state in (FINISH, ERROR):
        finished.setdefault(userdata, threading.Event()).set()
    return answers.get(userdata, 0)


callback = OnResult(on_result)  # as long as the program lives, or the library calls freed memory


def init(path: str = sys.argv[3], userdata: int = 0, **members: object) -> tuple[int, HANDLE]:
    param = library.rkllm_createDefaultParam()
    param.model_path = path.encode()
    param.max_context_len, param.max_new_tokens, param.top_k = 512, 20, 1
    param.extend_param.enabled_cpus_num, param.extend_param.enabled_cpus_mask = 1, 1
    for name, value in members.items():
        setattr(param, name, value)
    handle = HANDLE()
    given = Callbacks(result_callback=callback, result_userdata=userdata or None) if IS_F5 else callback
    return library.rkllm_init(ctypes.byref(handle), ctypes.byref(param), given), handle


def made(**members: object) -> HANDLE:
    status, handle = init(**members)
    assert status == 0
    assert handle.value
    return handle


def run(
    handle: HANDLE, text: str, userdata: int = 0, *, function: str = "rkllm_run", history: int = 0, fresh: bool = True
) -> int:
    if fresh and not history:
        library.rkllm_clear_kv_cache(handle, 0, None, None)  # keep_history = 0 is no clean slate
    given = Input(role=b"user", enable_thinking=False, input_type=0)
    given.data.prompt_input = text.encode()
    infer = Infer(keep_history=history)
    for known in (texts, states):
        known.pop(userdata or None, None)
    finished[userdata or None] = threading.Event()
    held.append((given, infer))
    return getattr(library, function)(handle, ctypes.byref(given), ctypes.byref(infer), userdata or None)


held: list[object] = []


def text_of(userdata: int = 0) -> str:
    return b"".join(texts.get(userdata or None, [])).decode().replace("\n", " ")


def chat() -> None:
    """Reads stdin like a demo: a prompt a line, "clear", "exit"."""
    handle = made()
    for line in sys.stdin:
        question = line.strip()
        if question == "exit":
            break
        if question == "clear":
            assert library.rkllm_clear_kv_cache(handle, 1, None, None) == 0
            continue
        assert run(handle, question, history=1) == 0
        size = (ctypes.c_int * 1)()
        assert library.rkllm_get_kv_cache_size(handle, size) == 0
        print(f"robot: {text_of()}")
        print(f"count: {len(texts[None])} {perfs[None]} {size[0]}")
    assert library.rkllm_destroy(handle) == 0


def userdata() -> None:
    """The run's userdata reaches the callback; without one, F5 gives that of init."""
    handle = made(userdata=77)
    assert run(handle, "hello", 1234) == 0
    print(f"own: {bool(text_of(1234))} {states[1234][-1]}")
    assert run(handle, "hello") == 0
    print(f"init: {bool(states.get(77))} {bool(states.get(None))}")
    assert library.rkllm_destroy(handle) == 0


def polling() -> None:
    """run_async, and is_running until it is over; its sense turned with F5."""
    handle = made(max_new_tokens=60)
    busy = 1 if IS_F5 else 0
    print(f"idle: {library.rkllm_is_running(handle) != busy}")
    assert run(handle, "tell me a story", 5, function="rkllm_run_async") == 0
    second = run(handle, "me too", 6, function="rkllm_run_async")
    seen = 0
    while library.rkllm_is_running(handle) == busy:
        seen += 1
        time.sleep(0.001)
    assert finished[5].wait(60)
    print(f"polled: {seen > 0} refused {second != 0} states {states[5][-1]} text {bool(text_of(5))}")
    assert run(handle, "again", 7) == 0
    print(f"after: {states[7][-1]} {bool(text_of(7))}")
    assert library.rkllm_destroy(handle) == 0


def stopping() -> None:
    """Abort from another thread, twice; an abort of nothing harms no later run."""
    handle = made(max_new_tokens=100)
    assert run(handle, "tell me a story", 1) == 0
    whole = len(texts[1])

    def stop() -> None:
        while len(texts.get(2, [])) < 3:
            time.sleep(0.0005)
        library.rkllm_abort(handle)
        library.rkllm_abort(handle)

    thread = threading.Thread(target=stop)
    thread.start()
    run(handle, "tell me a story", 2)
    thread.join()
    print(f"stopped: {3 <= len(texts[2]) < whole}")
    library.rkllm_abort(handle)
    assert run(handle, "tell me a story", 3) == 0
    print(f"whole: {texts[3] == texts[1]}")
    assert library.rkllm_destroy(handle) == 0


def verdicts() -> None:
    """Whatever number the callback returns, but 1: the run goes on."""
    handle = made()
    assert run(handle, "hello there", 1) == 0
    for number in (2, 3, -1, 100):
        answers[number + 1000] = number
        assert run(handle, "hello there", number + 1000) == 0
        print(f"verdict: {number} {texts[number + 1000] == texts[1]}")
    answers[9] = 1
    assert run(handle, "hello there", 9) == 0
    print(f"paused: {len(texts[9])} {FINISH in states[9]}")
    answers[9] = 0
    given = list(texts[9])
    assert run(handle, "", 9, fresh=False) == 0
    print(f"resumed: {given + texts[9] == texts[1]}")
    assert library.rkllm_destroy(handle) == 0


def handles() -> None:
    """Several at once, each in a thread of its own, and one made again after it was destroyed."""
    several = [made() for _ in range(3)]
    threads = [threading.Thread(target=run, args=(one, "hello there", 10 + i)) for i, one in enumerate(several)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"alike: {len({text_of(10 + i) for i in range(3)})} {bool(text_of(10))}")
    for one in several:
        assert library.rkllm_destroy(one) == 0
    again = made()
    assert run(again, "hello there", 20) == 0
    print(f"again: {text_of(20) == text_of(10)}")
    assert library.rkllm_destroy(again) == 0


def mistakes() -> None:
    """What programs do wrong must be an error, and no end of the process."""
    nothing = HANDLE()
    given, infer = Input(role=b"user", input_type=0), Infer()
    print(f"null: {library.rkllm_run(nothing, ctypes.byref(given), ctypes.byref(infer), None)}")
    for name in ("abort", "destroy", "release_prompt_cache"):
        print(f"null: {getattr(library, f'rkllm_{name}')(nothing)}")
    for name in ("load_lora", "load_prompt_cache", "set_cross_attn_params"):
        print(f"null: {getattr(library, f'rkllm_{name}')(nothing, None)}")
    print(f"null: {library.rkllm_clear_kv_cache(nothing, 0, None, None)}")
    print(f"null: {library.rkllm_get_kv_cache_size(nothing, None)}")
    print(f"null: {library.rkllm_set_chat_template(nothing, b'', b'', b'')}")
    status, broken = init("/does/not/exist.rkllm")
    print(f"missing: {status != 0} {not broken.value}")
    handle = made()
    print(f"input: {library.rkllm_run(handle, None, ctypes.byref(infer), None)}")
    print(f"infer: {library.rkllm_run(handle, ctypes.byref(given), None, None)}")
    assert run(handle, "hello", 1) == 0
    assert library.rkllm_destroy(handle) == 0
    print(f"twice: {library.rkllm_destroy(handle)}")
    print(f"late: {run(handle, 'hello', 2)} {library.rkllm_abort(handle)}")
    other = made()
    assert run(other, "hello", 3) == 0
    print(f"fresh: {text_of(3) == text_of(1)}")


def leaving() -> None:
    """The program ends while it generates, and destroys nothing."""
    handle = made(max_new_tokens=400)
    assert run(handle, "tell me a story", 1, function="rkllm_run_async") == 0
    while len(texts.get(1, [])) < 2:
        time.sleep(0.001)
    print("left: now", flush=True)
    if len(sys.argv) > 5:
        os._exit(0)


globals()[sys.argv[4]]()
