"""The RKLLM C ABI from Python: one loaded runtime, whatever its family.

``Runtime`` speaks F5 structs; ``library.hpp`` narrows them to the family of the loaded library and widens its results.
It decides nothing: who may run what, and for how long, is the worker's business.

Threads: one call at a time, except ``abort`` and ``is_running``, which any thread may make at any time.  Calls into
the library release the GIL.  Callbacks may come on any thread.

Memory: what a call hands over is kept until ``destroy`` (strings and arrays of init, of set_* and of load_*, the
former replaced when the same function is called again), that of a run until the next run.  A Runtime that was ever
initialised is immortal, because a thread of the library may call back at any time; so is the library.
"""

from operator import index
from os import fsencode
from threading import Lock

from cpython.buffer cimport Py_buffer, PyObject_CheckBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_GET_BUFFER
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int32_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy, memset, strerror
from libcpp.string cimport string

from rkvisor.cython_ext cimport families

cdef enum:
    MAX_BATCH = 100  # n_batch of the vendor's documentation


class RkllmError(Exception):
    """A function of the library returned a status that is not 0.  The ABI says no more than that."""

    def __init__(self, str function, int status):
        super().__init__(f"cannot complete {function}: the runtime returned status {status}")
        self.function = function
        self.status = status

    def __reduce__(self):
        return type(self), (self.function, self.status)


class NotSupported(Exception):
    """A function, an input or an option that the library's family lacks."""

    def __init__(self, str function, str family):
        super().__init__(f"cannot use {function}: the runtime's ABI family {family} lacks it")
        self.function = function
        self.family = family

    def __reduce__(self):
        return type(self), (self.function, self.family)


class LibraryError(Exception):
    """A library cannot be loaded, or is no RKLLM runtime."""

    def __init__(self, str path, str reason):
        super().__init__(f"cannot load {path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self):
        return type(self), (self.path, self.reason)


include "_buffers.pxi"

cdef dict _PARAM = _fields(families.PARAM_FIELDS, families.PARAM_FIELD_COUNT)
cdef dict _SAMPLING = _fields(families.SAMPLING_FIELDS, families.SAMPLING_FIELD_COUNT)
# What a family without the field does anyway; 0, False or None for fields not named here.
cdef dict _LACKING = {"n_batch": 1, "enabled_cpus_num": 4}

include "_inputs.pxi"
include "_tracker.pxi"

CONSTANTS = {
    "LLMCallState": {
        "RKLLM_RUN_NORMAL": families.RKLLM_RUN_NORMAL,
        "RKLLM_RUN_WAITING": families.RKLLM_RUN_WAITING,
        "RKLLM_RUN_FINISH": families.RKLLM_RUN_FINISH,
        "RKLLM_RUN_ERROR": families.RKLLM_RUN_ERROR,
    },
    "RKLLMInputType": {
        "RKLLM_INPUT_PROMPT": families.RKLLM_INPUT_PROMPT,
        "RKLLM_INPUT_TOKEN": families.RKLLM_INPUT_TOKEN,
        "RKLLM_INPUT_EMBED": families.RKLLM_INPUT_EMBED,
        "RKLLM_INPUT_MULTIMODAL": families.RKLLM_INPUT_MULTIMODAL,
    },
    "RKLLMInferMode": {
        "RKLLM_INFER_GENERATE": families.RKLLM_INFER_GENERATE,
        "RKLLM_INFER_GET_LAST_HIDDEN_LAYER": families.RKLLM_INFER_GET_LAST_HIDDEN_LAYER,
        "RKLLM_INFER_GET_LOGITS": families.RKLLM_INFER_GET_LOGITS,
    },
}

cdef dict _FAMILIES = {"F1": 1, "F2": 2, "F3": 3, "F4": 4, "F5": 5}
cdef tuple _CORE = ("rkllm_createDefaultParam", "rkllm_init", "rkllm_run", "rkllm_abort", "rkllm_destroy")



cdef int _check(str function, int status) except -1:
    """The one place where statuses are looked at."""
    if status != 0:
        raise RkllmError(function, status)
    return 0


include "_runtime.pxi"
include "_callbacks.pxi"


def examine(str path):
    """What a library exports and writes: (names of rkllm_* functions, two images of rkllm_createDefaultParam's result).

    The images are 1024 bytes each, filled with 0xA5 and 0x5A before the call, and empty if the function is missing.
    This runs the library's code, which may kill the process: only probe.py calls it, in a child.
    """
    cdef string error
    cdef families.Returned returned
    cdef void *function
    cdef bytes name = fsencode(path)
    cdef const char *c_path = name
    cdef void *dl
    with nogil:
        dl = families.open_library(c_path, error)
    if dl == NULL:
        raise LibraryError(path, error.decode(errors="replace"))
    names = [families.function_name(i).decode() for i in range(families.FUNCTION_COUNT)
             if families.dlsym(dl, families.function_name(i)) != NULL]
    function = families.dlsym(dl, "rkllm_createDefaultParam")
    images = []
    for fill in (0xA5, 0x5A) if function != NULL else ():
        families.call_into_poison(function, fill, &returned)
        images.append((<char *>returned.bytes)[:sizeof(returned)])
    return names, images
