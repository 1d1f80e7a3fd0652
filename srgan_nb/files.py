"""Files that are never half-written, and errors that the user can mend. Plain Python, the ground floor."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["UserError", "write_atomically", "check_free_space"]


class UserError(ValueError):
    """Something the user can mend: its text is one clear line that says what is wrong and what to do."""


@contextmanager
def write_atomically(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; when the block ends well, that file replaces `path` at once.

    The bytes are on the disk (fsync) before the rename, so a reader, a crash or a power cut sees the old file or the
    new one, never a part. When the block raises, the temporary file goes and `path` stays as it was.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part{path.suffix}")
    try:
        yield temporary
        flush_to_disk(temporary)
        os.replace(temporary, path)
        flush_to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def flush_to_disk(path: Path) -> None:
    """Asks the system to put a file's bytes, or a folder's entries, on the disk now."""
    if path.is_dir() and os.name == "nt":
        return  # Windows can't open a folder
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_free_space(folder: str | Path, needed: int, purpose: str) -> None:
    """Raises `UserError` when the disk that holds `folder` has fewer than `needed` bytes free."""
    folder = Path(folder)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(f"{purpose} needs {needed / 1e6:,.0f} MB, {folder} has {free / 1e6:,.0f} MB free: make room")
