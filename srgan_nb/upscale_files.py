"""A file to a file, a folder to a folder: what `srgan_upscale` does. Nothing is overwritten unless told.

A size that is not the network's multiple is reached by the network first, several times where one is not enough, and
by one reduction then; the file is written once.
"""

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from glob import glob
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from srgan_nb.devices import Processes, thread_pool
from srgan_nb.errors import UserError, progress_bar
from srgan_nb.files import check_folder, is_run
from srgan_nb.pictures import FORMATS, Picture, PictureFile, check_writable, format_of, reduce_picture, write_pictures
from srgan_nb.upscaling import Upscaler, enlarge_file, enlarge_kind

__all__ = ["TargetSize", "upscale_file", "upscale_files", "piped", "upscale_folder", "FolderReport"]

ABANDONED = 86_400  # seconds: a process that is alive has written to its file since then
ALONE = Processes()
SHARE = 250_000_000  # bytes that a picture may take while others are enlarged beside it
NOT_READ = (".apng", ".bmp", ".heic", ".heif", ".jp2", ".jxl", ".pgm", ".ppm", ".psd")  # reported, not passed over


@dataclass(frozen=True)
class TargetSize:
    """How large a picture is to become, its proportions kept; without any of these by the network's own multiple.

    scale: a multiple of height and width, fractions allowed. width, height: pixels. megapixels: millions of pixels.
    Raises `UserError` where more than one is given, or it is not above 0.
    """

    scale: float | None = None
    width: int | None = None
    height: int | None = None
    megapixels: float | None = None

    def __post_init__(self):
        given = {name: value for name, value in vars(self).items() if value is not None}
        if len(given) > 1 or not all(0 < value < 1e9 for value in given.values()):
            what = ", ".join(f"{name} {value:g}" for name, value in given.items())
            raise UserError(f"{what}: a size is one number above 0, the rest follows from the picture")

    def of(self, width: int, height: int, usual: int) -> tuple[int, int]:
        """(width, height) in pixels of what a picture of that size becomes. `usual`: the network's multiple."""
        scale = (self.width / width if self.width else self.height / height if self.height else
                 (self.megapixels * 1e6 / (width * height)) ** 0.5 if self.megapixels else self.scale or usual)
        return max(1, round(scale * width)), max(1, round(scale * height))


USUAL = TargetSize()  # the network's own multiple


def occupied(target: Path) -> str:
    "What is said of a file that would be overwritten."
    return f"{target} exists: choose another name, or --force to overwrite it"


def upscale_file(source: str | Path, target: str | Path, upscaler: Upscaler | None = None, force: bool = False,
                 quality: int = 95, size: TargetSize = USUAL) -> Path:
    """Enlarges a picture file, all frames of it, into `target` (a file, or a folder for one of the same name).

    The suffix of `target` names the format; `quality` (1 to 100) is for JPEG, WebP and AVIF. Returns the path written.
    Raises `UserError` where the picture can't be read, the target exists and `force` is not set, or its format can't
    hold the picture's kind; the last two before any work is done.
    """
    check_quality(quality)
    source, target = Path(source), Path(target)
    target = target / source.name if target.is_dir() else target
    if target.exists() and not force:
        raise UserError(occupied(target))
    if not target.parent.is_dir():
        raise UserError(f"{target.parent}: no such folder")
    sweep(target.parent)
    write_enlarged(source, target, upscaler or Upscaler(), quality, size)
    return target


def write_enlarged(source: Path, target: Path, upscaler: Upscaler, quality: int, size: TargetSize) -> None:
    """Enlarges a file into another, whatever stands there; refuses before any work what its format can't hold."""
    file = PictureFile(source)
    wanted = size.of(*file.size, upscaler.scale)
    check_writable(target, file.kind, wanted, file.frames)
    write_pictures(enlarged_to(wanted, upscaler, file), target, file, quality)


def enlarged_to(wanted: tuple[int, int], upscaler: Upscaler, file: PictureFile) -> Iterator[Picture]:
    """The frames of a file at a size (width, height): enlarged until they are no smaller, then reduced once.

    A frame that is as large already is only reduced. What is too large for the memory is refused before it is read.
    """
    times = 0
    while max(wanted[0] / file.size[0], wanted[1] / file.size[1]) > upscaler.scale**times:
        times += 1
    if times:
        upscaler.memory_for_tiles(file.size[0] * file.size[1] * file.pixel_bytes * upscaler.scale ** (2 * times - 2))

    def frames() -> Iterator[Picture]:
        for picture in enlarge_file(upscaler, file) if times else file:
            for _ in range(times - 1):
                picture = enlarge_kind(upscaler, picture)
            yield reduce_picture(picture, *wanted)

    return frames()


def check_quality(quality: int) -> None:
    """Raises `UserError` for a quality that JPEG, WebP and AVIF do not know."""
    if not 1 <= quality <= 100:
        raise UserError(f"quality goes from 1 to 100, not {quality}")


def sweep(folder: Path) -> None:
    """Removes temporary files that killed processes left in a folder: those that nobody has written to for a day."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if re.fullmatch(r"\..*\.[0-9a-f]{16}\.part\.\w+", path.name):
            with suppress(FileNotFoundError):  # its writer has just finished
                if time.time() - path.stat().st_mtime > ABANDONED:
                    path.unlink()


@dataclass
class FolderReport:
    """What became of the pictures of a folder: written, there before, or failed with a reason."""

    done: list[Path] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{len(self.done)} enlarged, {len(self.kept)} already there, {len(self.failed)} failed"]
        return "\n".join(lines + [f"  {path}: {reason}" for path, reason in self.failed.items()])


def upscale_files(sources: list[str], target: str | Path, upscaler: Upscaler | None = None, force: bool = False,
                  quality: int = 95, size: TargetSize = USUAL) -> FolderReport:
    """Enlarges several files, or what patterns such as *.jpg find, into a folder, which is made where it is missing.

    A bad one does not stop the others. Raises `UserError` where `target` can't be one, or where an original would be
    overwritten.
    """
    check_quality(quality)
    target = Path(target)
    if target.exists() and not target.is_dir():
        raise UserError(f"{target}: several pictures go into a folder, and this is none")
    check_folder(target)
    places = {Path(path): target / Path(path).name for source in sources for path in (
        [source] if Path(source).exists() else sorted(glob(source)) or [source])}
    check_originals(places, target)
    there = {path: occupied(place) for path, place in places.items() if place.exists() and not force}
    report = enlarge_places({path: place for path, place in places.items() if path not in there},
                            upscaler or Upscaler(), force, quality, size)
    return FolderReport(report.done, report.kept, there | report.failed)


def enlarge_places(places: dict[Path, Path], upscaler: Upscaler, force: bool, quality: int, size: TargetSize,
                   processes: Processes = ALONE, progress: bool = False) -> FolderReport:
    """Enlarges pictures into their places, or this process's share of them: as many at a time as torch has threads.

    So others are enlarged while one is read or written, and within a small picture no thread waits for another. Each
    may take `SHARE` bytes; what needs more, or went wrong, is done alone then, with all threads and all memory.
    """
    for folder in {place.parent for place in places.values()}:
        sweep(folder)
    first = {place: path for path, place in reversed(places.items())}
    mine = dict(list(places.items())[processes.rank::processes.world])
    failed = {path: f"would be written to the same file as {first[place]}"
              for path, place in mine.items() if first[place] != path}
    made, rest = set[Path](), [path for path in mine if path not in failed]

    def enlarge(path: Path, by: Upscaler) -> None:
        if force or not mine[path].exists():
            mine[path].parent.mkdir(parents=True, exist_ok=True)
            write_enlarged(path, mine[path], by, quality, size)
            made.add(path)

    with progress_bar(total=len(rest), unit="picture", shown=progress and processes.first) as bar:
        memory = upscaler.memory / 2 if upscaler.max_memory is None else upscaler.max_memory
        at_once = int(min(torch.get_num_threads(), len(rest), memory // SHARE))
        if at_once > 1 and upscaler.device.type != "mps":  # which several threads can't use
            rest = side_by_side(partial(enlarge, by=upscaler.sharing(SHARE)), rest, at_once, bar.update)
        for path in rest:
            try:
                enlarge(path, upscaler)
            except Exception as error:  # whatever is wrong with one picture, the next may be sound
                reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
                failed[path] = reason.removeprefix(f"{path}: ")
            bar.update()
    return FolderReport([place for path, place in mine.items() if path in made],
                        [place for path, place in mine.items() if path not in made | failed.keys()],
                        {path: failed[path] for path in mine if path in failed})


def side_by_side(enlarge: Callable[[Path], None], paths: list[Path], at_once: int,
                 progress: Callable[[int], object]) -> list[Path]:
    """Calls `enlarge` for so many paths at once in a `thread_pool`; returns those for which it raised."""
    def well(path: Path) -> bool:
        try:
            enlarge(path)
        except Exception:  # what it is shows when it is done alone
            return False
        return True

    failed = list[Path]()
    with thread_pool(at_once) as pool:
        for path, done in zip(paths, pool.map(well, paths), strict=True):
            progress(done)
            failed += [] if done else [path]
    return failed


def piped(source: str, target: str, upscaler: Upscaler | None = None, file_format: str | None = None,
          force: bool = False, quality: int = 95, size: TargetSize = USUAL) -> None:
    """As `upscale_file`, where "-" means standard input or standard output; the latter in `file_format`."""
    if source == "-" and sys.stdin is None or target == "-" and sys.stdout is None:
        raise UserError("- is standard input or output, and there is none")
    with TemporaryDirectory() as folder:
        taken, made = Path(folder, "standard input"), Path(folder, f"out.{str(file_format).removeprefix('.')}")
        if source == "-":
            taken.write_bytes(sys.stdin.buffer.read())
        upscale_file(taken if source == "-" else source, made if target == "-" else target, upscaler, force, quality, size)
        if target == "-":
            sys.stdout.buffer.write(made.read_bytes())
            sys.stdout.buffer.flush()


def upscale_folder(source: str | Path, target: str | Path, upscaler: Upscaler | None = None, force: bool = False,
                   quality: int = 95, file_format: str | None = None, progress: bool = True,
                   size: TargetSize = USUAL, processes: Processes = ALONE) -> FolderReport:
    """Enlarges every picture below `source` into the same place below `target`; a bad one does not stop the others.

    A picture that is there already is kept, unless `force`: an interrupted run goes on where it stopped. Small ones are
    enlarged side by side, all within the upscaler's `max_memory` or half the machine's memory.
    `file_format`: "png", "jpg", ... for all, instead of each file's own. Hidden files, other files than pictures and
    training runs are passed over; linked folders are followed. Of several `processes` each takes its share of the
    pictures, told only by their names; where torchrun has started them, all return one report. Raises `UserError`
    where `source` is no folder or holds no picture, `target` can't be one, and where an original would be overwritten.
    """
    check_quality(quality)
    source, target, upscaler = Path(source), Path(target), upscaler or Upscaler()
    if not source.is_dir():
        raise UserError(f"{source}: no such folder")
    check_folder(target)
    pictures, unreadable = pictures_below(source, target)
    places = places_of(pictures, source, target, file_format)
    if not places and not unreadable:
        raise UserError(f"{source}: no pictures in this folder")
    processes.join(hours=1000)  # so long may others take over their share
    report = enlarge_places(places, upscaler, force, quality, size, processes, progress)
    parts = processes.gather(report)
    return FolderReport(sorted({place for part in parts for place in part.done}),
                        sorted({place for part in parts for place in part.kept}),
                        unreadable | {path: reason for part in parts for path, reason in part.failed.items()})


def places_of(pictures: list[Path], source: Path, target: Path, file_format: str | None) -> dict[Path, Path]:
    """Where each enlarged picture belongs. Raises `UserError` where an original is, or for an unknown format."""
    suffix = None if file_format is None else f".{file_format.removeprefix('.')}"
    format_of(f"*{suffix or '.png'}")  # tells what is wrong with another
    places = {path: target / path.relative_to(source).with_suffix(suffix or path.suffix) for path in pictures}
    check_originals(places, target, target.resolve() == source.resolve())
    return places


def check_originals(places: dict[Path, Path], target: Path, among: bool = False) -> None:
    """Raises `UserError` where an enlarged picture would take the place of an original; `among`: it would lie among them."""
    if among or {path.resolve() for path in places} & {place.resolve() for place in places.values()}:
        raise UserError(f"{target}: originals would be overwritten: choose another place for the enlarged pictures")


def pictures_below(source: Path, target: Path) -> tuple[list[Path], dict[Path, str]]:
    """The picture files below `source` by their suffixes, sorted; and the folders that can't be read, with the reason.

    Not hidden ones, those in `target` or runs' samples.
    """
    suffixes = {*NOT_READ, *(suffix for one in FORMATS.values() for suffix in one.suffixes)}
    pictures, unreadable = list[Path](), dict[Path, str]()

    def note(error: OSError) -> None:
        unreadable[Path(error.filename)] = f"{error.strerror}: a folder that can't be read"

    seen = {source.resolve(), target.resolve()}
    for folder, folders, files in os.walk(source, onerror=note, followlinks=True):
        found = {Path(folder, name).resolve(): name for name in sorted(folders) if not name.startswith(".")
                 and not is_run(Path(folder, name))}
        folders[:] = [name for place, name in found.items() if place not in seen]
        seen |= found.keys()  # a link may lead back, or a second time to one place
        pictures += [Path(folder, name) for name in files
                     if Path(name).suffix.lower() in suffixes and not name.startswith(".")]
    return sorted(pictures), unreadable
