# Runtime: one loaded library and its model.  Included by _rkllm.pyx.


cdef class Runtime:
    """One loaded runtime and, between init and destroy, one model."""

    cdef families.Library *_library  # never freed once init was called
    cdef void *_handle  # NULL without a model
    cdef int _family
    cdef int _n_batch
    cdef int _mode  # RKLLMInferMode of the run at hand
    cdef bint _paused  # the last run was paused by its callback: the next one resumes it
    cdef bint _abort_requested  # during the run at hand
    cdef bint _is_immortal
    cdef object _lock  # held while rkllm_abort or rkllm_is_running is called, and to begin and end what they meet
    cdef object _busy  # name of the function in progress, or None
    cdef object _on_result
    cdef object _tokenizer
    cdef object _embedder
    cdef object _error  # the first exception of a callback of the run at hand
    cdef dict _sampling  # sampling parameters of init
    cdef dict _kept  # what calls handed over, by function; see the module's docstring
    cdef list _failed  # what failed calls handed over: the library may have kept pointers all the same
    cdef list _run_buffers
    cdef readonly str path
    cdef readonly str family
    cdef readonly object functions
    cdef readonly bint can_force_tokens

    def __cinit__(self):
        self._library = NULL
        self._handle = NULL
        self._n_batch = 1
        self._lock = Lock()
        self._kept = {}
        self._failed = []
        self._run_buffers = []
        self.functions = frozenset()

    def __init__(self, str path, str family, *, bint hide_force_tokens=False):
        cdef string error
        cdef bytes name = fsencode(path)
        cdef const char *c_path = name
        cdef void *dl
        if self._library != NULL:
            raise RuntimeError("cannot load a second library into a Runtime")
        if family not in _FAMILIES:
            raise ValueError(f"cannot speak ABI family {family!r}: need one of {', '.join(_FAMILIES)}")
        with nogil:
            dl = families.open_library(c_path, error)
        if dl == NULL:
            raise LibraryError(path, error.decode(errors="replace"))
        self._family = _FAMILIES[family]
        self._library = families.Library.adapt(dl, self._family)
        if self._library == NULL:
            raise MemoryError("cannot allocate the table of a library")
        if hide_force_tokens:
            self._library.hide_force_tokens()
        self.path = path
        self.family = family
        self.can_force_tokens = self._library.can_force_tokens()
        self.functions = frozenset(families.function_name(i).decode() for i in range(families.FUNCTION_COUNT)
                                   if self._library.has(i))
        missing = [function for function in _CORE if function not in self.functions]
        if missing:
            raise LibraryError(path, f"it does not export {', '.join(missing)}")

    def __dealloc__(self):
        if not self._is_immortal:
            del self._library

    # -- parameters and init

    def default_param(self):
        cdef families.Param param
        self._loaded()
        with nogil:
            param = self._library.default_param()
        return {name: _get_field(&families.PARAM_FIELDS[<size_t>at], &param) for name, at in _PARAM.items()
                if self._has_field(at)}

    cdef bint _has_field(self, size_t at):
        return families.PARAM_FIELDS[at].families >> self._family & 1

    cdef object _loaded(self):
        if self._library == NULL:
            raise RuntimeError("cannot use a Runtime whose library was not loaded")

    cdef object _set_param(self, families.Param *param, object values, Buffers buffers):
        for name, value in values.items():
            if name not in _PARAM:
                raise TypeError(f"cannot set {name!r}: RKLLMParam has no such field")
            at = _PARAM[name]
            if self._has_field(at):
                _set_field(&families.PARAM_FIELDS[<size_t>at], param, value, buffers)
            elif value != _LACKING.get(name, 0) and value:
                raise NotSupported(name, self.family)
        batch = _get_field(&families.PARAM_FIELDS[<size_t>_PARAM["n_batch"]], param)
        if batch > MAX_BATCH:
            raise ValueError(f"cannot set n_batch to {batch}: need 1 to {MAX_BATCH}")
        self._n_batch = max(1, batch)

    def init(self, object param, object on_result, *, object tokenizer=None, object embedder=None):
        cdef families.Param native
        cdef families.RKLLMCallback callback
        cdef Buffers buffers = Buffers()
        cdef void *handle = NULL
        cdef int status = 0
        self._loaded()
        for name, hook in (("on_result", on_result), ("tokenizer", tokenizer), ("embedder", embedder)):
            if not callable(hook) and not (hook is None and name != "on_result"):
                raise TypeError(f"cannot call {name} back: {type(hook).__name__} is not callable")
            if hook is not None and name != "on_result":
                _needs(self._family, 5, name)
        self._begin(families.AT_init, False)
        try:
            with nogil:
                native = self._library.default_param()
            self._set_param(&native, param, buffers)
            self._sampling = {name: _get_field(&families.PARAM_FIELDS[<size_t>_PARAM[name]], &native)
                              for name in _SAMPLING}
            self._on_result, self._tokenizer, self._embedder = on_result, tokenizer, embedder
            memset(&callback, 0, sizeof(callback))
            callback.result_userdata = callback.tokenizer_userdata = callback.embed_userdata = <void *>self
            if tokenizer is not None:
                callback.tokenizer_callback = _tokenize
            if embedder is not None:
                callback.embed_callback = _embed
            if not self._is_immortal:
                Py_INCREF(self)
                self._is_immortal = True
            self._kept["rkllm_init"] = buffers
            with nogil:
                status = self._library.init(&handle, native, callback)
        finally:
            self._busy = None
        self._reraise()
        _check("rkllm_init", status)
        if handle == NULL:
            raise RkllmError("rkllm_init", status)
        self._handle = handle

    def destroy(self):
        cdef void *handle
        cdef int status = 0
        if self._handle == NULL:
            return
        self._begin(families.AT_destroy, True)
        with self._lock:  # no rkllm_abort is under way from here on
            handle, self._handle = self._handle, NULL
        with nogil:
            status = self._library.destroy(handle)
        self._busy = None
        _check("rkllm_destroy", status)
        self._on_result = self._tokenizer = self._embedder = None
        self._kept.clear()
        self._failed.clear()
        self._run_buffers.clear()
        self._paused = False

    # -- one call at a time

    cdef object _begin(self, int function, bint needs_model):
        """Reserve the model for one call, which ends by _busy = None."""
        cdef str name = families.function_name(function).decode()
        self._loaded()
        if not self._library.has(function):
            raise NotSupported(name, self.family)
        if needs_model != (self._handle != NULL):
            raise RuntimeError(f"cannot call {name}: {'no model is loaded' if needs_model else 'a model is loaded'}")
        if self._busy is not None:
            raise RuntimeError(f"cannot call {name}: {self._busy} is in progress")
        self._busy = name

    cdef object _end(self, int status, Buffers buffers, object key):
        """Release the model, look at the status, and keep what the call handed over under `key`."""
        cdef str name = self._busy
        self._busy = None
        if buffers is not None and status != 0:
            self._failed.append(buffers)
        elif buffers is not None:
            self._kept[key] = buffers
        _check(name, status)

    cdef object _reraise(self):
        error, self._error = self._error, None
        if error is not None:
            raise error

    # -- runs

    def run(self, object input, object infer):
        cdef families.Prepared prepared
        cdef void *userdata = <void *>self
        cdef int status = 0
        self._begin(families.AT_run, True)
        try:
            prepared = self._prepare(input, infer)
            with nogil:
                status = self._library.run(self._handle, prepared, userdata)
        finally:
            self._busy = None
        self._reraise()
        return status if self._abort_requested else _check("rkllm_run", status)

    def run_async(self, object input, object infer):
        cdef families.Prepared prepared
        cdef void *userdata = <void *>self
        cdef int status = -1
        self._begin(families.AT_run_async, True)
        try:
            prepared = self._prepare(input, infer)
            with nogil:
                status = self._library.run_async(self._handle, prepared, userdata)
        finally:
            if status != 0:
                self._busy = None
        _check("rkllm_run_async", status)

    def take_error(self):
        error, self._error = self._error, None
        return error

    cdef families.Prepared _prepare(self, object input, object infer) except *:
        cdef families.RKLLMInput *inputs
        cdef families.RKLLMInferParam *parameters
        cdef families.Prepared prepared
        cdef Buffers buffers = Buffers()
        cdef Py_ssize_t i
        items = input if isinstance(input, (list, tuple)) else (input,)
        if len(items) != self._n_batch:
            raise ValueError(f"cannot run {len(items)} inputs: the model was loaded with n_batch {self._n_batch}")
        inputs = <families.RKLLMInput *>buffers.take(len(items), sizeof(families.RKLLMInput),
                                                    families.HERE("RKLLMInput"))
        for i in range(len(items)):
            _fill_input(&inputs[i], items[i], buffers, self._family)
        parameters = <families.RKLLMInferParam *>buffers.take(1, sizeof(families.RKLLMInferParam),
                                                             families.HERE("RKLLMInferParam"))
        _fill_infer(parameters, infer, buffers, self._family, self._sampling)
        prepared = self._library.prepare(inputs, len(items), parameters, buffers.native)
        if prepared.inputs == NULL:
            raise MemoryError("cannot allocate the inputs of a run")
        if not self._paused:
            self._run_buffers = []  # a new list: the old one's buffers go when nobody needs them
        self._run_buffers.append(buffers)
        with self._lock:  # an rkllm_abort that is under way meant the run before
            self._paused = self._abort_requested = False
            self._error = None
            self._mode = parameters.mode
        return prepared

    def abort(self):
        cdef int status = 0
        with self._lock:
            if self._handle == NULL or not (self._paused or self._busy in ("rkllm_run", "rkllm_run_async")):
                return
            self._abort_requested = True
            with nogil:
                status = self._library.abort(self._handle)
            if self._busy is not None:
                return  # whatever the status: a run that did not listen yet is told again at its next token
            self._paused = False
        _check("rkllm_abort", status)

    def is_running(self):
        cdef int status = 0
        with self._lock:
            if self._handle == NULL:
                raise RuntimeError("cannot call rkllm_is_running: no model is loaded")
            if not self._library.has(families.AT_is_running):
                raise NotSupported("rkllm_is_running", self.family)
            with nogil:
                status = self._library.is_running(self._handle)
        return status

    def force_tokens(self, object ids):
        cdef Buffers buffers = Buffers()
        cdef const int32_t *array = NULL
        cdef size_t count = 0
        cdef int status = 0
        if not self.can_force_tokens:
            raise NotSupported("rkvisor_force_tokens", self.family)
        if len(ids):
            array = buffers.tokens(ids, "ids", &count)
        if self._handle == NULL or self._busy is not None:
            raise RuntimeError(f"cannot call rkvisor_force_tokens: {self._busy or 'no model'} is "
                               f"{'in progress' if self._busy else 'loaded'}")
        self._busy = "rkvisor_force_tokens"
        with nogil:
            status = self._library.force_tokens(self._handle, array, count)
        self._busy = None
        _check("rkvisor_force_tokens", status)

    # -- adapters, caches, templates

    def load_lora(self, object path, object name, object scale):
        cdef families.RKLLMLoraAdapter *adapter
        cdef Buffers buffers = Buffers()
        cdef int status = 0
        adapter = <families.RKLLMLoraAdapter *>buffers.take(1, sizeof(families.RKLLMLoraAdapter),
                                                           families.HERE("RKLLMLoraAdapter"))
        adapter.lora_adapter_path = buffers.path(path, "path")
        adapter.lora_adapter_name = buffers.text(name, "name")
        adapter.scale = _number("scale", scale)
        self._begin(families.AT_load_lora, True)
        with nogil:
            status = self._library.load_lora(self._handle, adapter)
        self._end(status, buffers, ("rkllm_load_lora", name))

    def load_prompt_cache(self, object path):
        cdef Buffers buffers = Buffers()
        cdef const char *native = buffers.path(path, "path")
        cdef int status = 0
        self._begin(families.AT_load_prompt_cache, True)
        with nogil:
            status = self._library.load_prompt_cache(self._handle, native)
        self._end(status, buffers, "rkllm_load_prompt_cache")

    def release_prompt_cache(self):
        cdef int status = 0
        self._begin(families.AT_release_prompt_cache, True)
        with nogil:
            status = self._library.release_prompt_cache(self._handle)
        self._end(status, None, None)

    def clear_kv_cache(self, bint keep_system_prompt, object start=None, object end=None):
        cdef Buffers buffers = Buffers()
        cdef int *first = NULL
        cdef int *last = NULL
        cdef int status = 0
        if (start is None) != (end is None):
            raise ValueError("cannot clear a part of the KV cache without both start and end")
        if start is not None:
            _needs(self._family, 4, "rkllm_clear_kv_cache with start and end")
            first = self._positions(buffers, start, "start")
            last = self._positions(buffers, end, "end")
        self._begin(families.AT_clear_kv_cache, True)
        with nogil:
            status = self._library.clear_kv_cache(self._handle, keep_system_prompt, first, last)
        self._end(status, buffers if start is not None else None, "rkllm_clear_kv_cache")

    cdef int *_positions(self, Buffers buffers, object values, str what) except NULL:
        cdef size_t count = 0
        cdef int32_t *array = buffers.ints(values, what, &count)
        if count != <size_t>self._n_batch:
            raise ValueError(f"cannot use {what}: {count} positions for n_batch {self._n_batch}")
        return <int *>array

    def get_kv_cache_size(self):
        cdef int sizes[MAX_BATCH + 28]  # some more than n_batch may be
        cdef int status = 0
        memset(sizes, 0, sizeof(sizes))
        self._begin(families.AT_get_kv_cache_size, True)
        with nogil:
            status = self._library.get_kv_cache_size(self._handle, sizes)
        self._end(status, None, None)
        return [sizes[i] for i in range(self._n_batch)]

    def set_chat_template(self, object system, object prefix, object postfix):
        cdef Buffers buffers = Buffers()
        cdef const char *a = buffers.text(system, "system")
        cdef const char *b = buffers.text(prefix, "prefix")
        cdef const char *c = buffers.text(postfix, "postfix")
        cdef int status = 0
        self._begin(families.AT_set_chat_template, True)
        with nogil:
            status = self._library.set_chat_template(self._handle, a, b, c)
        self._end(status, buffers, "rkllm_set_chat_template")

    def set_function_tools(self, object system, object tools, object tool_response):
        cdef Buffers buffers = Buffers()
        cdef const char *a = buffers.text(system, "system")
        cdef const char *b = buffers.text(tools, "tools")
        cdef const char *c = buffers.text(tool_response, "tool_response")
        cdef int status = 0
        self._begin(families.AT_set_function_tools, True)
        with nogil:
            status = self._library.set_function_tools(self._handle, a, b, c)
        self._end(status, buffers, "rkllm_set_function_tools")

    def set_cross_attn_params(self, object k, object v, object mask, object pos, object num_tokens):
        cdef families.RKLLMCrossAttnParam *params
        cdef Buffers buffers = Buffers()
        cdef size_t count = 0
        cdef int status = 0
        params = <families.RKLLMCrossAttnParam *>buffers.take(1, sizeof(families.RKLLMCrossAttnParam),
                                                              families.HERE("RKLLMCrossAttnParam"))
        params.num_tokens = _integer("num_tokens", num_tokens, 1, 0x7FFFFFFF)
        params.encoder_k_cache = _rows(buffers, k, "k", num_tokens)
        params.encoder_v_cache = _rows(buffers, v, "v", num_tokens)
        params.encoder_mask = _rows(buffers, mask, "mask", num_tokens)
        params.encoder_pos = buffers.ints(pos, "pos", &count)
        if count % <size_t>params.num_tokens:
            raise ValueError(f"cannot use pos: {count} positions for {num_tokens} tokens")
        self._begin(families.AT_set_cross_attn_params, True)
        with nogil:
            status = self._library.set_cross_attn_params(self._handle, params)
        self._end(status, buffers, "rkllm_set_cross_attn_params")
