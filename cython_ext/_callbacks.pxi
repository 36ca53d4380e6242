# What a library calls back.  Included by _rkllm.pyx.
#
# No exception leaves a trampoline: the first one is stored on the Runtime, the run is aborted, and run() raises it.
# userdata is the Runtime, which is immortal once init was called.


cdef int _deliver(families.RKLLMResult *result, void *userdata, int state) noexcept with gil:
    """LLMResultCallback, with F5's result whatever the family.  Returns 0 continue, 1 pause, 2 release."""
    cdef Runtime runtime
    if userdata == NULL:
        return 0
    runtime = <Runtime>userdata
    try:
        return _pass_on(runtime, result, state)
    except BaseException as error:
        _fail(runtime, error, _is_generating(state))
        return 0
    finally:
        if _is_over(state) and runtime._busy == "rkllm_run_async":
            runtime._busy = None


cdef bint _is_generating(int state) noexcept:
    """An rkllm_abort now meets this run; later it might meet the next one."""
    return state == families.RKLLM_RUN_NORMAL or state == families.RKLLM_RUN_WAITING


cdef bint _is_over(int state) noexcept:
    return state == families.RKLLM_RUN_FINISH or state == families.RKLLM_RUN_ERROR


cdef int _pass_on(Runtime runtime, families.RKLLMResult *result, int state) except? -1:
    cdef int answer = 0
    cdef int one
    cdef int item
    if runtime._on_result is None or runtime._error is not None:
        return 0
    if runtime._abort_requested and _is_generating(state):
        _abort(runtime)  # asked before the run listened
    if result == NULL:
        answer = _answer(runtime._on_result(state, 0, -1, None, None))
    elif runtime._n_batch == 1:
        answer = _answer(runtime._on_result(state, 0, result.token_id,
                                            <bytes>result.text if result.text != NULL else None,
                                            _extra(runtime, result, state)))
    else:
        for item in range(runtime._n_batch):
            one = _answer(runtime._on_result(state, item, result[item].token_id,
                                             <bytes>result[item].text if result[item].text != NULL else None,
                                             _extra(runtime, &result[item], state)))
            answer = max(answer, one)
    if answer == 1:
        runtime._paused = True
    return answer


cdef int _answer(object value) except? -1:
    return 0 if value is None else index(value)


cdef dict _extra(Runtime runtime, families.RKLLMResult *result, int state):
    """Tensors of the mode that was asked for, and the statistics of FINISH; None for a plain token."""
    cdef dict extra
    if runtime._mode == families.RKLLM_INFER_GENERATE and state != families.RKLLM_RUN_FINISH:
        return None
    extra = {}
    if runtime._mode == families.RKLLM_INFER_GET_LAST_HIDDEN_LAYER:
        _tensor(extra, "hidden", result.last_hidden_layer.hidden_states, result.last_hidden_layer.num_tokens,
                result.last_hidden_layer.embd_size)
    elif runtime._mode == families.RKLLM_INFER_GET_LOGITS:
        _tensor(extra, "logits", result.logits.logits, result.logits.num_tokens, result.logits.vocab_size)
    if state == families.RKLLM_RUN_FINISH and runtime._family >= 4:
        extra["perf"] = (result.perf.prefill_time_ms, result.perf.prefill_tokens, result.perf.generate_time_ms,
                         result.perf.generate_tokens, result.perf.memory_usage_mb)
    return extra or None


cdef object _tensor(dict extra, str name, const float *data, int rows, int columns):
    if data != NULL and rows > 0 and columns > 0:
        extra[name] = (PyBytes_FromStringAndSize(<const char *>data, <Py_ssize_t>rows * columns * sizeof(float)),
                       rows, columns)


cdef object _fail(Runtime runtime, object error, bint is_generating):
    """Store the exception and end the run."""
    if runtime._error is None:
        runtime._error = error
        if is_generating:
            _abort(runtime)


cdef object _abort(Runtime runtime):
    """rkllm_abort from inside a callback.  Its status is of no use here: the run goes on or it does not."""
    if runtime._handle != NULL:
        with nogil:
            runtime._library.abort(runtime._handle)


cdef int _tokenize(void *userdata, const char *text, int32_t length, int32_t *tokens, int32_t capacity) noexcept with gil:
    """LLMTokenizerCallback: ids of text[:length].  Returns their number, negated when they do not fit, -1 on failure."""
    cdef Runtime runtime = <Runtime>userdata
    cdef Py_ssize_t i
    try:
        ids = list(runtime._tokenizer(text[:length] if text != NULL and length > 0 else b""))
        if len(ids) > capacity:
            return -<int>len(ids)
        for i in range(len(ids)):
            tokens[i] = ids[i]
        return <int>len(ids)
    except BaseException as error:
        _fail(runtime, error, False)
        return -1


cdef int _embed(void *userdata, int32_t *tokens, uint64_t count, void *embeddings, uint64_t size) noexcept with gil:
    """LLMGetEmbedCallback: float32 rows of `count` tokens into `embeddings`, of `size` bytes.  Returns 0, or -1."""
    cdef Runtime runtime = <Runtime>userdata
    try:
        data = memoryview(runtime._embedder([tokens[i] for i in range(count)])).cast("B")
        if <uint64_t>data.nbytes > size:
            raise ValueError(f"cannot embed {count} tokens: {data.nbytes} bytes for a buffer of {size}")
        memcpy(embeddings, PyMemoryView_GET_BUFFER(data).buf, data.nbytes)
        return 0
    except BaseException as error:
        _fail(runtime, error, False)
        return -1


families.sink = _deliver
