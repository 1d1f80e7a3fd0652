"""A file to a file, a folder to a folder: what `srgan_upscale` does. Nothing is overwritten unless told."""

import os
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from srgan_nb.errors import UserError
from srgan_nb.files import is_run
from srgan_nb.pictures import FORMATS, PictureFile, check_writable, format_of, write_pictures
from srgan_nb.upscaling import Upscaler, enlarge_file

__all__ = ["upscale_file", "upscale_folder", "FolderReport"]

ABANDONED = 86_400  # seconds: a process that is alive has written to its file since then
NOT_READ = (".apng", ".bmp", ".heic", ".heif", ".jp2", ".jxl", ".pgm", ".ppm", ".psd")  # reported, not passed over


def upscale_file(source: str | Path, target: str | Path, upscaler: Upscaler | None = None, force: bool = False,
                 quality: int = 95) -> Path:
    """Enlarges a picture file, all frames of it, into `target` (a file, or a folder for one of the same name).

    The suffix of `target` names the format; `quality` (1 to 100) is for JPEG, WebP and AVIF. Returns the path written.
    Raises `UserError` where the picture can't be read, the target exists and `force` is not set, or its format can't
    hold the picture's kind; the last two before any work is done.
    """
    check_quality(quality)
    source, target = Path(source), Path(target)
    target = target / source.name if target.is_dir() else target
    if target.exists() and not force:
        raise UserError(f"{target} exists: choose another name, or --force to overwrite it")
    if not target.parent.is_dir():
        raise UserError(f"{target.parent}: no such folder")
    sweep(target.parent)
    write_enlarged(source, target, upscaler or Upscaler(), quality)
    return target


def write_enlarged(source: Path, target: Path, upscaler: Upscaler, quality: int) -> None:
    """Enlarges a file into another, whatever stands there; refuses before any work what its format can't hold."""
    file = PictureFile(source)
    width, height = file.size
    check_writable(target, file.kind, (upscaler.scale * width, upscaler.scale * height), file.frames)
    write_pictures(enlarge_file(upscaler, file), target, file, quality)


def check_quality(quality: int) -> None:
    if not 1 <= quality <= 100:
        raise UserError(f"quality goes from 1 to 100, not {quality}")


def sweep(folder: Path) -> None:
    """Removes temporary files that killed processes left in a folder: those that nobody has written to for a day."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if re.fullmatch(r"\..*\.[0-9a-f]{16}\.part\.\w+", path.name) and time.time() - path.stat().st_mtime > ABANDONED:
            path.unlink(missing_ok=True)


@dataclass
class FolderReport:
    """What became of the pictures of a folder: written, there before, or failed with a reason."""

    done: list[Path] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{len(self.done)} enlarged, {len(self.kept)} already there, {len(self.failed)} failed"]
        return "\n".join(lines + [f"  {path}: {reason}" for path, reason in self.failed.items()])


def upscale_folder(source: str | Path, target: str | Path, upscaler: Upscaler | None = None, force: bool = False,
                   quality: int = 95, file_format: str | None = None, progress: bool = True) -> FolderReport:
    """Enlarges every picture below `source` into the same place below `target`; a bad one does not stop the others.

    A picture that is there already is kept, unless `force`: an interrupted run goes on where it stopped.
    `file_format`: "png", "jpg", ... for all, in place of each file's own. Hidden files, other files than pictures and
    training runs are passed over. Raises `UserError` where `source` is no folder or holds no picture, and where an
    original would be overwritten.
    """
    from tqdm.auto import tqdm

    check_quality(quality)
    source, target, upscaler = Path(source), Path(target), upscaler or Upscaler()
    if not source.is_dir():
        raise UserError(f"{source}: no such folder")
    report, taken = FolderReport(), dict[Path, Path]()
    places = places_of(pictures_below(source, target, report.failed), source, target, file_format)
    if not places and not report.failed:
        raise UserError(f"{source}: no pictures in this folder")
    for folder in {place.parent for place in places.values()}:
        sweep(folder)
    bar = tqdm(places.items(), unit="picture", disable=not progress or sys.stderr is None)
    for path, place in bar:
        bar.set_postfix_str(str(path.relative_to(source)))
        if place in taken:
            report.failed[path] = f"would be written to the same file as {taken[place]}"
        elif place.exists() and not force:
            report.kept.append(place)
        else:
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                write_enlarged(path, place, upscaler, quality)
                report.done.append(place)
            except Exception as error:  # whatever is wrong with one picture, the next may be sound
                reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
                report.failed[path] = reason.removeprefix(f"{path}: ")
        taken.setdefault(place, path)
    return report


def places_of(pictures: list[Path], source: Path, target: Path, file_format: str | None) -> dict[Path, Path]:
    """Where each enlarged picture belongs. Raises `UserError` where an original is, or for an unknown format."""
    suffix = None if file_format is None else f".{file_format.removeprefix('.')}"
    format_of(f"*{suffix or '.png'}")  # tells what is wrong with another
    places = {path: target / path.relative_to(source).with_suffix(suffix or path.suffix) for path in pictures}
    originals = {path.resolve() for path in pictures}
    if target.resolve() == source.resolve() or originals & {place.resolve() for place in places.values()}:
        raise UserError(f"{target}: originals would be overwritten: choose another folder for the enlarged pictures")
    return places


def pictures_below(source: Path, target: Path, unreadable: dict[Path, str]) -> list[Path]:
    """The picture files below `source` by their suffixes, sorted; not hidden ones, those in `target` or runs' samples.

    Folders that can't be read are noted in `unreadable` with the reason.
    """
    suffixes = {*NOT_READ, *(suffix for one in FORMATS.values() for suffix in one.suffixes)}
    pictures, inside = [], target.resolve() if source.resolve() in target.resolve().parents else None

    def note(error: OSError) -> None:
        unreadable[Path(error.filename)] = f"{error.strerror}: a folder that can't be read"

    for folder, folders, files in os.walk(source, onerror=note):
        folders[:] = [name for name in folders if not name.startswith(".") and not is_run(Path(folder, name))
                      and Path(folder, name).resolve() != inside]
        pictures += [Path(folder, name) for name in files
                     if Path(name).suffix.lower() in suffixes and not name.startswith(".")]
    return sorted(pictures)
