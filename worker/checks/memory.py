"""Whether a model fits into memory, before the runtime tries: init without memory segfaults (behaviour §3).  Pure."""

from __future__ import annotations

from rkvisor.worker.checks.finding import Finding, problem

MIB = 1024 * 1024


def check(runtime: str, *, needed_bytes: int, available_bytes: int | None, total_bytes: int | None) -> Finding:
    """The finding about loading one process of the model.

    needed_bytes: what it takes at the very least.  available_bytes: that the kernel can give without swapping,
    total_bytes: that it has; None where it does not tell.

    The NPU's runtime copies the whole file into memory that cannot be swapped.  The CPU runtime maps it, and processes
    of one model share the pages, so it is only refused when it could never be resident as a whole.
    """
    have, what = (total_bytes, "in all") if runtime == "llama" else (available_bytes, "available")
    needed = f"a process takes {size(needed_bytes)} at least"
    if have is None:
        return Finding(about="memory", level="note", text=f"{needed}; how much there is, is not told")
    if needed_bytes > have:
        remedy = "free memory, lower workers and standby, or choose a smaller model"
        return problem("memory", f"{needed}, of {size(have)} {what}", remedy, "RKLLM_MEMORY_ERROR")
    return Finding(about="memory", level="ok", text=f"{needed}, of {size(have)} {what}")


def size(count: int) -> str:
    """*count* bytes as people read them: 12 bytes, 791 MB, 5.8 GB."""
    if count < MIB:
        return f"{count} bytes" if count < 10_240 else f"{count / 1024:.0f} kB"
    return f"{count / MIB:.0f} MB" if count < 1024 * MIB else f"{count / MIB / 1024:.1f} GB"
