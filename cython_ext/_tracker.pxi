# What Python may ask of the tracker of native memory (tracker.hpp).  Included by _rkllm.pyx.


def held():
    """(blocks, bytes) of memory that is held for runtimes now; counted whether the tracker is open or not."""
    return families.Tracker.held_count(), families.Tracker.held_bytes()


def tracker_open(object path):
    """Record every allocation from now on, into a log that is begun anew.  Idempotent.  Raises OSError."""
    cdef bytes name = fsencode(path)
    cdef int number = families.Tracker.get().open(name)
    if number:
        raise OSError(number, (<bytes>strerror(number)).decode(), str(path))


def tracker_close():
    """Log and free what is still recorded, and stop recording.  Returns how many there were: the leaks."""
    return families.Tracker.get().close()


def tracker_status():
    """What the tracker counts; None while it is not open."""
    cdef families.TrackerStatus status = families.Tracker.get().status()
    if not status.is_open:
        return None
    return {"count": status.count, "bytes": status.bytes, "allocations": status.allocations,
            "total_bytes": status.total_bytes, "warnings": status.warnings}


def tracker_free(uintptr_t address):
    """Free a recorded block at `address` behind its owner's back.  Returns whether it was one; warned of if not."""
    return families.Tracker.get().free_tracked(<void *>address)


cdef class Held:
    """Memory taken as for a runtime, for tests of the tracker.  Released by release(), or with the object."""

    cdef Buffers buffers
    cdef readonly list addresses

    def __init__(self):
        self.buffers = Buffers()
        self.addresses = []

    def take(self, size_t count, size_t size):
        """`count` elements of `size` bytes, every byte written."""
        cdef void *memory = self.buffers.take(count, size, families.HERE("Held.take"))
        memset(memory, 0xA5, count * size)
        self.addresses.append(<uintptr_t>memory)

    def keep(self, object value):
        """A copy of a str, a sequence of float or one of int, as a runtime would be given it.  Returns its bytes."""
        cdef size_t count = 0
        cdef float *floats
        cdef Py_ssize_t i
        if isinstance(value, str):
            self.addresses.append(<uintptr_t>self.buffers.text(value, "value"))
            return len(value.encode()) + 1
        if all(isinstance(one, int) for one in value):
            self.addresses.append(<uintptr_t>self.buffers.ints(value, "value", &count))
            return count * 4
        floats = <float *>self.buffers.take(len(value), sizeof(float), families.HERE("Held.keep"))
        for i in range(len(value)):
            floats[i] = value[i]
        self.addresses.append(<uintptr_t>floats)
        return len(value) * sizeof(float)

    @property
    def count(self):
        """Blocks that it holds."""
        return self.buffers.native.count()

    def release(self):
        """Free them."""
        self.buffers.native.clear()
        self.addresses.clear()
