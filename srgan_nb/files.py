"""Where files lie, and how they are written: whole, by one process at a time."""

import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from filelock import FileLock, Timeout

from srgan_nb.errors import UserError

__all__ = ["package_version", "package_file", "data_folder", "write_atomically", "folder_atomically", "check_place",
           "check_folder", "flush_to_disk", "check_free_space", "locked", "short_name", "is_run"]


def package_version() -> str:
    """The version of this package that is installed, such as "0.1.0"."""
    return metadata.version("srgan_nb")


def package_file(name: str) -> Path:
    """Where a file or folder that comes with the package lies: "weights", "curves/srgan-log.csv"."""
    return Path(__file__).parent / name


def data_folder() -> Path:
    """Where downloads and packs live: `$SRGAN_NB_DATA`, or srgan_nb/ in the platform's cache folder.

    Linux `~/.cache` (or `$XDG_CACHE_HOME`), macOS `~/Library/Caches`, Windows `%LOCALAPPDATA%`.
    """
    if os.environ.get("SRGAN_NB_DATA"):
        return Path(os.environ["SRGAN_NB_DATA"]).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/srgan_nb"
    home = os.environ.get("LOCALAPPDATA") if os.name == "nt" else os.environ.get("XDG_CACHE_HOME")
    return Path(home or Path.home() / ".cache") / "srgan_nb"


@contextmanager
def write_atomically(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; when the block ends well, that file replaces `path` at once.

    The bytes are on the disk (fsync) before the rename, so a reader, a crash or a power cut sees the old file or the
    new one, never a part. When the block raises, Ctrl-C included, the temporary file goes and `path` stays as it was;
    a killed process leaves it, named .*.part.*. Raises `UserError` where `check_place` does, and for an `OSError`.
    """
    path = Path(path)
    check_place(path)
    temporary = path.with_name(f".{path.stem[:40]}.{secrets.token_hex(8)}.part{path.suffix}")
    try:
        yield temporary
        flush_to_disk(temporary)
        os.replace(temporary, path)
        flush_to_disk(path.parent)
    except OSError as error:  # a full disk, say
        raise UserError(f"{path}: not written ({error.strerror or error})") from None
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def folder_atomically(target: Path) -> Iterator[Path]:
    """Yields a new folder that becomes `target` if the block ends well, else is deleted.

    What killed runs left is removed too: call it inside `locked`, so that none is at work.
    Raises `UserError` where `target` is there.
    """
    if target.exists():
        raise UserError(f"{target} is there: name a new folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    for left_over in target.parent.glob(f".{target.name}.*.part"):
        shutil.rmtree(left_over)
    folder = target.with_name(f".{target.name}.{os.getpid()}.part")
    folder.mkdir()
    try:
        yield folder
        for path in folder.rglob("*"):
            flush_to_disk(path)
        folder.rename(target)
        flush_to_disk(target.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_place(path: str | Path) -> None:
    """Raises `UserError` where no file can be written: the folder is missing or closed, or there is no plain file."""
    path = Path(path)
    if not path.parent.is_dir():
        raise UserError(f"{path}: the folder {path.parent} does not exist")
    if path.exists() and not path.is_file():  # a folder, or a device such as /dev/null, must not be replaced
        raise UserError(f"{path} is there and is no plain file: choose another name")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{path}: no permission to write into {path.parent}")


def nearest_folder(path: str | Path) -> Path:
    """The path itself, or the nearest above it that is there."""
    path = Path(path).absolute()
    return next((place for place in (path, *path.parents) if place.exists()), path)


def check_folder(folder: str | Path) -> None:
    """Raises `UserError` where a folder, which need not exist yet, can't be made or nothing can be written into it."""
    above = nearest_folder(folder)
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise UserError(f"{folder} can't be made or filled, {above} is no folder to write in: choose another")


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
    free = shutil.disk_usage(nearest_folder(folder)).free
    if free < needed:
        raise UserError(f"{purpose} needs {needed / 1e6:,.0f} MB, {folder} has {free / 1e6:,.0f} MB free: make room")


@contextmanager
def locked(path: str | Path, busy: str | None = None) -> Iterator[None]:
    """Only one process at a time is inside the block; the system opens the lock when its holder ends, however it ends.

    `path`: a file that is made for the purpose, in a folder that is made where it is missing. Waits for its turn; with
    `busy`, a sentence, it raises `UserError` with that sentence instead of waiting.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(path, blocking=busy is None).acquire()
    except Timeout:
        raise UserError(busy) from None
    with held:
        yield


def short_name(name: str, most: int = 100) -> str:
    """The beginning of a name, `most` bytes of UTF-8 at most: systems allow 255, and a Chinese character takes three."""
    start = os.fsencode(name)[:most]
    return name if len(start) < most else start.decode(errors="ignore")


def is_run(folder: str | Path) -> bool:
    """Whether a folder is that of a training run: its pictures are samples, and no photographs."""
    return Path(folder, "settings.json").is_file() and Path(folder, "checkpoints").is_dir()
