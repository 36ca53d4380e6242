# Memory that a runtime may look at, and the fields of its parameter structs by name.  Included by _rkllm.pyx.


cdef class Buffers:
    """Everything that one call hands to the runtime: copies in native memory and borrowed Python buffers.

    It lives as long as its owner keeps it; a borrowed buffer's exporter stays exported meanwhile.
    """

    cdef families.NativeBuffers native
    cdef list borrowed

    def __cinit__(self):
        self.borrowed = []

    cdef void *take(self, size_t count, size_t size, families.Site site) except NULL:
        """Zeroed memory for `count` elements of `size` bytes.  site: who asks for it, for the memory tracker."""
        cdef void *memory = self.native.take(count, size, site)
        if memory == NULL:
            raise MemoryError(f"cannot allocate {count} × {size} bytes")
        return memory

    cdef char *text(self, object value, str what) except? NULL:
        """A NUL-terminated copy; NULL for None.  value: str (as UTF-8) or bytes, without NUL."""
        cdef bytes data
        cdef char *copy
        if value is None:
            return NULL
        if isinstance(value, str):
            data = (<str>value).encode()
        elif isinstance(value, bytes):
            data = value
        else:
            raise TypeError(f"cannot use {what}: need str or bytes, not {type(value).__name__}")
        if b"\0" in data:
            raise ValueError(f"cannot use {what}: it contains a NUL character")
        copy = <char *>self.take(len(data) + 1, 1, families.HERE("Buffers.text"))
        memcpy(copy, <const char *>data, len(data))
        return copy

    cdef char *path(self, object value, str what) except? NULL:
        """Like text, for a path: also os.PathLike, and undecodable bytes survive."""
        return self.text(None if value is None else fsencode(value), what)

    cdef void *raw(self, object value, str formats, str what, size_t *count) except NULL:
        """A C-contiguous buffer of 4-byte elements, borrowed where it is aligned.  formats: struct codes accepted beside bytes."""
        cdef object view = memoryview(value)
        cdef Py_buffer *buffer
        cdef void *copy
        if not view.c_contiguous or view.nbytes == 0 or view.nbytes % 4:
            raise ValueError(f"cannot use {what}: need a C-contiguous, non-empty buffer of 4-byte elements")
        code = view.format.lstrip("@=<")
        if not (code in "Bbc" or (view.itemsize == 4 and code in formats)):
            raise TypeError(f"cannot use {what}: need a buffer of format {formats[0]!r}, not {view.format!r}")
        buffer = PyMemoryView_GET_BUFFER(view)
        count[0] = view.nbytes // 4
        if <uintptr_t>buffer.buf % 4 == 0:
            self.borrowed.append(view)
            return buffer.buf
        copy = self.take(count[0], 4, families.HERE("Buffers.raw"))
        memcpy(copy, buffer.buf, count[0] * 4)
        return copy

    cdef float *floats(self, object value, str what, size_t *count) except NULL:
        """float32 elements of a buffer and their number."""
        return <float *>self.raw(value, "f", what, count)

    cdef int32_t *ints(self, object value, str what, size_t *count) except NULL:
        """int32 elements of an int32 buffer or bytes (borrowed), or of a sequence of int (copied), and their number."""
        cdef int32_t *copy
        cdef Py_ssize_t i
        cdef object item
        if PyObject_CheckBuffer(value):
            view = memoryview(value)
            if view.itemsize == 1 or (view.itemsize == 4 and view.format.lstrip("@=<") in "il"):
                return <int32_t *>self.raw(value, "il", what, count)
            value = view.tolist()
        if isinstance(value, str):
            raise TypeError(f"cannot use {what}: need integers, not str")
        items = list(value)
        if not items:
            raise ValueError(f"cannot use {what}: it is empty")
        copy = <int32_t *>self.take(len(items), 4, families.HERE("Buffers.ints"))
        for i, item in enumerate(items):
            copy[i] = _integer(what, item, -0x80000000, 0x7FFFFFFF)
        count[0] = len(items)
        return copy

    cdef int32_t *tokens(self, object value, str what, size_t *count) except NULL:
        """Like ints, but none below 0: a runtime indexes its vocabulary with them."""
        cdef int32_t *ids = self.ints(value, what, count)
        cdef size_t i
        for i in range(count[0]):
            if ids[i] < 0:
                raise ValueError(f"cannot use {what}: {ids[i]} is not a token")
        return ids


cdef dict _fields(const families.Field *table, size_t count):
    """name → index into the table."""
    cdef size_t i
    return {table[i].name.decode(): i for i in range(count)}


cdef object _get_field(const families.Field *field, const void *base):
    cdef const char *at = <const char *>base + field.offset
    cdef const char *text
    if field.kind == families.FIELD_TEXT:
        text = (<const char **>at)[0]
        return None if text == NULL else text.decode(errors="surrogateescape")
    if field.kind == families.FIELD_I32:
        return (<const int32_t *>at)[0]
    if field.kind == families.FIELD_U32:
        return (<const uint32_t *>at)[0]
    if field.kind == families.FIELD_I8:
        return (<const signed char *>at)[0]
    if field.kind == families.FIELD_U8:
        return (<const unsigned char *>at)[0]
    if field.kind == families.FIELD_F32:
        return _shortest((<const float *>at)[0])
    return at[0] != 0


cdef object _shortest(float value):
    """The float of fewest digits that is this 32-bit float: 0.9, not 0.8999999761581421."""
    cdef object number = value
    for digits in range(6, 9):
        number = float(f"{value:.{digits}g}")
        if <float>number == value:
            return number
    return value


cdef object _set_field(const families.Field *field, void *base, object value, Buffers buffers):
    """Write a checked value.  TypeError or ValueError name the field."""
    cdef char *at = <char *>base + field.offset
    cdef str name = field.name.decode()
    if field.kind == families.FIELD_TEXT:
        (<const char **>at)[0] = buffers.path(value, name)
    elif field.kind == families.FIELD_F32:
        (<float *>at)[0] = _number(name, value)
    elif field.kind == families.FIELD_BOOL:
        (<unsigned char *>at)[0] = _integer(name, value, 0, 1)
    elif field.kind == families.FIELD_I32:
        (<int32_t *>at)[0] = _integer(name, value, -0x80000000, 0x7FFFFFFF)
    elif field.kind == families.FIELD_U32:
        (<uint32_t *>at)[0] = _integer(name, value, 0, 0xFFFFFFFF)
    elif field.kind == families.FIELD_I8:
        (<signed char *>at)[0] = _integer(name, value, -128, 127)
    else:
        (<unsigned char *>at)[0] = _integer(name, value, 0, 255)


cdef object _integer(str name, object value, object low, object high):
    try:
        number = index(value)
    except TypeError:
        raise TypeError(f"cannot set {name}: need an integer, not {type(value).__name__}") from None
    if not low <= number <= high:
        raise ValueError(f"cannot set {name} to {number}: need {low} to {high}")
    return number


cdef object _number(str name, object value):
    if isinstance(value, (str, bytes)) or not hasattr(value, "__float__"):
        raise TypeError(f"cannot set {name}: need a number, not {type(value).__name__}")
    number = float(value)
    if not -3.4e38 < number < 3.4e38:
        raise ValueError(f"cannot set {name} to {number}: need a finite 32-bit float")
    return number
