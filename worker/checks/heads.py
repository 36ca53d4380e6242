"""What a file's first bytes say that it is, where that is not a model.  Pure."""

from __future__ import annotations

#: First bytes → what such a file is, and what to do about it.  The commonest failed downloads come first.
_HEADS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a pointer of git-lfs, not the file itself", "fetch it with `git lfs pull`"),
    (b"<!DOCTYPE", "a web page", "download the file itself"),
    (b"<html", "a web page", "download the file itself"),
    (b"<HTML", "a web page", "download the file itself"),
    (b"<?xml", "an XML text", "download the file itself"),
    (b"RKNN", "a model of RKNN, not of RKLLM", "convert the language model with rkllm-toolkit"),
    (b"\x7fELF", "a program or a library", "look at 'path' in the model's section"),
    (b"PK\x03\x04", "a zip archive or a PyTorch model", "unpack it, or convert it with rkllm-toolkit"),
    (b"\x1f\x8b", "a gzip archive", "unpack it"),
    (b"(\xb5/\xfd", "a zstd archive", "unpack it"),
    (b"\xfd7zXZ", "an xz archive", "unpack it"),
)
#: As many of a file's first bytes as are looked at.
HEAD_BYTES = 64


def stranger(head: bytes) -> tuple[str, str] | None:
    """(what a file with this *head* is, what to do) where it is certainly no model; None where it may be one."""
    if not head:
        return "empty", "copy it again; the disk may have been full"
    if len(head) == HEAD_BYTES and not any(head):
        return "blank at its beginning: a copy that was cut off", "copy it again"
    for magic, what, remedy in _HEADS:
        if head.startswith(magic):
            return what, remedy
    if head[8:10] == b'{"' and 0 < int.from_bytes(head[:8], "little") < 2**32:
        return "in the form of safetensors", "convert it: to .rkllm with rkllm-toolkit, or to GGUF"
    return None
