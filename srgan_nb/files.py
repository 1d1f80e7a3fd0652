"""Files that are never half-written, and what is said when something fails. Plain Python, the ground floor."""

import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = ["UserError", "package_file", "write_atomically", "check_place", "flush_to_disk", "check_free_space", "locked", "counted", "short_name", "is_run"]


class UserError(ValueError):
    """Something the user can mend: its text is one clear line that says what is wrong and what to do."""


def package_file(name: str) -> Path:
    """Where a file or folder that comes with the package lies: "weights", "curves/srgan-log.csv"."""
    return Path(__file__).parent / name


@contextmanager
def write_atomically(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; when the block ends well, that file replaces `path` at once.

    The bytes are on the disk (fsync) before the rename, so a reader, a crash or a power cut sees the old file or the
    new one, never a part. When the block raises, Ctrl-C included, the temporary file goes and `path` stays as it was.
    A killed process can leave the temporary file behind: its name begins with a dot and holds ".part".
    Raises `UserError` where `check_place` does.
    """
    path = Path(path)
    check_place(path)
    temporary = path.with_name(f".{path.stem[:40]}.{secrets.token_hex(8)}.part{path.suffix}")
    try:
        yield temporary
        flush_to_disk(temporary)
        os.replace(temporary, path)
        flush_to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def check_place(path: str | Path) -> None:
    """Raises `UserError` where no file can be written: the folder is missing or closed, or there is no plain file."""
    path = Path(path)
    if not path.parent.is_dir():
        raise UserError(f"{path}: the folder {path.parent} does not exist")
    if path.exists() and not path.is_file():  # a folder, or a device such as /dev/null, must not be replaced
        raise UserError(f"{path} is there and is no plain file: choose another name")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{path}: no permission to write into {path.parent}")


def flush_to_disk(path: str | Path) -> None:
    """Asks the system to put a file's bytes, or a folder's entries, on the disk now."""
    if os.path.isdir(path) and os.name == "nt":
        return  # Windows can't open a folder
    descriptor = os.open(path, os.O_RDONLY if os.path.isdir(path) else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_free_space(folder: str | Path, needed: int, purpose: str) -> None:
    """Raises `UserError` when the disk that holds `folder`, which need not exist yet, has under `needed` bytes free."""
    folder = Path(folder).absolute()
    existing = next((place for place in (folder, *folder.parents) if place.exists()), None)
    if existing is None:
        raise UserError(f"{folder}: there is no such disk")
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UserError(f"{purpose} needs {needed / 1e6:,.0f} MB, {folder} has {free / 1e6:,.0f} MB free: make room")


@contextmanager
def locked(path: str | Path, busy: str | None = None) -> Iterator[None]:
    """Only one process at a time is inside the block; the system opens the lock when its holder ends, however it ends.

    `path`: a file that is made for the purpose, in a folder that is made where it is missing. Waits for its turn; with
    `busy`, a sentence, it raises `UserError` with that sentence in place of waiting.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        while not _take_lock(file):
            if busy:
                raise UserError(busy)
            time.sleep(0.05)
        yield


def _take_lock(file: BinaryIO) -> bool:
    """Locks an open file until it is closed; whether nobody else had locked it."""
    try:
        if sys.platform == "win32":
            import msvcrt
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # how Linux and macOS, and Windows, say that it is taken
        return False
    return True


def counted(count: int, thing: str) -> str:
    """A number with its noun: "1 photo", "1,234 photos"."""
    return f"{count:,} {thing}" + ("" if count == 1 else "s")


def short_name(name: str, most: int = 100) -> str:
    """The beginning of a name, `most` bytes of UTF-8 at most: systems allow 255, and a Chinese character takes three."""
    start = os.fsencode(name)[:most]
    return name if len(start) < most else start.decode(errors="ignore")


def is_run(folder: str | Path) -> bool:
    """Whether a folder is that of a training run: its pictures are samples, and no photographs."""
    return Path(folder, "settings.json").is_file() and Path(folder, "checkpoints").is_dir()
