"""A file to a file, a folder to a folder: what `srgan_upscale` does. Nothing is overwritten unless told."""

import glob
import time
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from PIL import Image

from srgan_nb.files import UserError
from srgan_nb.images import _READABLE
from srgan_nb.picture_files import check_writable, read_pictures, write_pictures
from srgan_nb.upscaling import Upscaler, enlarge_kind

__all__ = ["upscale_file", "upscale_folder", "FolderReport"]

ABANDONED = 600  # seconds
ALSO_PICTURES = (".heic", ".heif")  # not readable here: reported, not passed over


def upscale_file(source: str | Path, target: str | Path, upscaler: Upscaler | None = None, force: bool = False,
                 quality: int = 95) -> Path:
    """Enlarges a picture file, all frames of it, into `target` (a file, or a folder for one of the same name).

    The suffix of `target` names the format; `quality` (1 to 100) is for JPEG, WebP and AVIF. Returns the path written.
    Raises `UserError` where the picture can't be read, the target exists and `force` is not set, or its format can't
    hold the picture's kind; the last two before any work is done.
    """
    if not 1 <= quality <= 100:
        raise UserError(f"quality goes from 1 to 100, not {quality}")
    source, target, upscaler = Path(source), Path(target), upscaler or Upscaler()
    target = target / source.name if target.is_dir() else target
    if target.exists() and not force:
        raise UserError(f"{target} exists: choose another name, or --force to overwrite it")
    if not target.parent.is_dir():
        raise UserError(f"{target.parent}: no such folder")
    frames = read_pictures(source)
    first = next(frames)
    second = next(frames, None)
    height, width = first.pixels.shape[:2]
    size = upscaler.scale * width, upscaler.scale * height
    check_writable(target, first.mode, size, 1 if second is None else 2)
    sweep(target)
    some = [first] if second is None else chain([first, second], frames)
    write_pictures((enlarge_kind(upscaler, frame) for frame in some), target, quality)
    return target


def sweep(target: Path) -> None:
    """Removes temporary files that killed processes left beside `target`: those that nobody has written to for long."""
    for leftover in target.parent.glob(f".{glob.escape(target.stem[:40])}.*.part{glob.escape(target.suffix)}"):
        if time.time() - leftover.stat().st_mtime > ABANDONED:
            leftover.unlink(missing_ok=True)


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
    `file_format`: "png", "jpg", ... for all, in place of each file's own. Hidden files and other files than pictures
    are passed over. Raises `UserError` where `source` is no folder or holds no picture.
    """
    from tqdm.auto import tqdm

    source, target, upscaler = Path(source), Path(target), upscaler or Upscaler()
    if not source.is_dir():
        raise UserError(f"{source}: no such folder")
    pictures = pictures_below(source, target)
    if not pictures:
        raise UserError(f"{source}: no pictures in this folder")
    report, taken = FolderReport(), dict[Path, Path]()
    bar = tqdm(pictures, unit="picture", disable=not progress)
    for path in bar:
        relative = path.relative_to(source)
        place = target / (relative.with_suffix(f".{file_format.lstrip('.')}") if file_format else relative)
        bar.set_postfix_str(str(relative))
        if place in taken:
            report.failed[path] = f"would be written to the same file as {taken[place]}"
        elif place.exists() and not force:
            report.kept.append(place)
        else:
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                report.done.append(upscale_file(path, place, upscaler, force, quality))
            except Exception as error:  # whatever is wrong with one picture, the next may be sound
                reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
                report.failed[path] = reason.removeprefix(f"{path}: ")
        taken.setdefault(place, path)
    return report


def pictures_below(source: Path, target: Path) -> list[Path]:
    """The picture files below `source` by their suffixes, sorted; not the hidden ones, and not those below `target`."""
    suffixes = {suffix for suffix, name in Image.registered_extensions().items() if name in _READABLE}
    suffixes.update(ALSO_PICTURES)
    inside = target.resolve() if target.resolve() != source.resolve() else None
    return sorted(path for path in source.rglob("*")
                  if path.suffix.lower() in suffixes and path.is_file()
                  and not any(part.startswith(".") for part in path.relative_to(source).parts)
                  and (inside is None or inside not in path.resolve().parents))
