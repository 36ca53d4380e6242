"""Paths that requests name, confined to the directory that the configuration allows (design §9)."""

from __future__ import annotations

import stat
from pathlib import Path

from rkvisor.protocol.errors import InvalidParams


def confine(path: str, folder: str | None, key: str, *, must_exist: bool = True) -> str:
    """The absolute path of *path* below *folder*, symbolic links resolved.

    key: of the configuration that sets *folder*.  must_exist: false for a file that will be written.

    Raises:
        InvalidParams: no folder is configured, the path leads out of it, or there is no such file.
    """
    if folder is None:
        raise InvalidParams(f"cannot use the path {path!r}: the model's section sets no {key}")
    root = Path(folder).resolve()
    try:
        full = (root / path).resolve()
        kind = _kind(full)
        has_folder = full.parent.is_dir()
    except (OSError, ValueError, RuntimeError) as error:
        raise InvalidParams(f"cannot use the path {path!r}: {error}") from error
    if not full.is_relative_to(root) or full == root:
        raise InvalidParams(f"cannot use the path {path!r}: it leads out of {key}")
    if kind == 0 and must_exist:
        raise InvalidParams(f"cannot use the path {path!r}: no such file below {key}")
    if kind not in (0, stat.S_IFREG):
        raise InvalidParams(f"cannot use the path {path!r}: it is no regular file")
    if not has_folder:
        raise InvalidParams(f"cannot use the path {path!r}: its folder does not exist below {key}")
    return str(full)


def _kind(path: Path) -> int:
    """S_IFREG, S_IFDIR …, 0 for what is not there.  Raises OSError for what can never be, e.g. a name too long."""
    try:
        return stat.S_IFMT(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return 0
