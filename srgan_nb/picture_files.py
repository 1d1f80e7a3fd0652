"""Picture files: all frames of every kind, read whole, written whole or not at all; 16-bit colour too."""

import struct
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin

from srgan_nb.files import UserError, write_atomically
from srgan_nb.images import open_image
from srgan_nb.kinds import Picture, image_of, kept_info, picture_of

__all__ = ["read_pictures", "check_writable", "write_pictures"]


@contextmanager
def _damage_reported(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise almost anything on damaged bytes
        raise UserError(f"{path}: damaged or truncated picture ({error})") from None


def read_pictures(path: str | Path) -> Iterator[Picture]:
    """The frames of a picture file, upright, one after the other; a still picture is one.

    Raises `UserError` with one clear line for what can't be read, and for 16-bit kinds that would lose half their bits.
    """
    path = Path(path)
    still = open_image(path)  # tells what is wrong with a bad file
    with _damage_reported(path), Image.open(path) as file:
        frames = 1 if file.format == "MPO" else getattr(file, "n_frames", 1)  # MPO: a JPEG with other views behind it
        tile = file.tile[0].args if frames == 1 and file.tile else ""
        raw_mode = tile if isinstance(tile, str) else str(tile[0]) if tile else ""
        tiff_info = kept_info(file) if file.format == "TIFF" else {}  # read from the file while it is open
    if ";16" in raw_mode and not still.mode.startswith("I"):
        with _damage_reported(path):
            picture = picture_of(still)
            yield replace(picture, info=picture.info | tiff_info, **_sixteen_bits(path, raw_mode))
        return
    if frames == 1:
        if file.format == "PPM" and still.mode == "I":  # 16-bit grey by another name
            still = Image.fromarray(np.asarray(still).astype(np.uint16))
        picture = picture_of(still)
        yield replace(picture, info=picture.info | tiff_info)
        return
    with Image.open(path) as file:
        for index in range(frames):
            with _damage_reported(path):
                file.seek(index)
                frame = ImageOps.exif_transpose(file)
            yield replace(picture_of(frame), info={**kept_info(frame), "loop": file.info.get("loop")})


def _sixteen_bits(path: Path, raw_mode: str) -> dict:
    """Pixels and mode of a 16-bit colour file: Pillow reads the upper bytes, and, told the other byte order, the lower.

    Raises `UserError` for kinds where that is not so.
    """
    mode, order = raw_mode.split(";16")
    if mode not in ("RGB", "RGBA", "RGBX") or order not in ("B", "L", "N"):
        raise UserError(f"{path}: 16-bit {mode} would lose half its bits: save it as 16-bit RGB or with 8 bits")
    native = "L" if sys.byteorder == "little" else "B"
    other = {"L": "B", "B": "L"}[native if order == "N" else order]
    halves = []
    for chosen in (raw_mode, f"{mode};16{other}"):
        with Image.open(path) as file:
            tiles = [tile._replace(args=chosen if isinstance(tile.args, str) else (chosen, *(tile.args or ())[1:]))
                     for tile in file.tile]
            file.tile = tiles
            halves.append(np.asarray(ImageOps.exif_transpose(file)).astype(np.uint16))
    pixels = halves[0] * 256 + halves[1]
    return {"pixels": pixels, "mode": f"{'RGBA' if pixels.shape[2] == 4 else 'RGB'};16"}


# ---------------------------------------------------------------------------------------------------------------------
# Writing

LONGEST_SIDE = {"JPEG": 65_535, "GIF": 65_535, "WEBP": 16_383, "ICO": 256, "TGA": 65_535, "AVIF": 65_536}
SEVERAL_FRAMES = ("GIF", "PNG", "WEBP", "TIFF", "AVIF")
ONLY_THERE = {"I;16": ("PNG", "TIFF", "PPM", "JPEG2000"), "RGB;16": ("PNG", "TIFF"), "RGBA;16": ("PNG", "TIFF"),
              "I": ("TIFF",), "F": ("TIFF",), "LAB": ("TIFF",), "CMYK": ("JPEG", "TIFF"), "HSV": ()}


def _format_of(path: Path) -> str:
    name = Image.registered_extensions().get(path.suffix.lower())
    if name not in Image.SAVE:
        raise UserError(f"{path}: no picture format that can be written ends in {path.suffix or 'nothing'}; "
                        "use .png, .jpg, .webp or .tiff")
    return name


def check_writable(path: str | Path, mode: str, size: tuple[int, int], frames: int = 1) -> None:
    """Raises `UserError` where the file format that `path` names can't hold such a picture: before the work, not after.

    `mode` as in `Picture`, `size` (width, height) in pixels.
    """
    path, file_format = Path(path), _format_of(Path(path))
    if max(size) > LONGEST_SIDE.get(file_format, 2**31 - 1):
        raise UserError(f"{path}: {size[0]} x {size[1]} pixels are too many for {file_format}, whose sides end at "
                        f"{LONGEST_SIDE[file_format]}: use .png or .tiff")
    if frames > 1 and file_format not in SEVERAL_FRAMES:
        raise UserError(f"{path}: the picture has {frames} frames, {file_format} holds one: use .gif, .png or .webp")
    fits = file_format in ONLY_THERE.get(mode, (file_format,))
    if fits and ";" not in mode:
        try:
            Image.new(mode, (1, 1)).save(BytesIO(), file_format)
        except (OSError, KeyError, ValueError):
            fits = False
    if not fits:
        kind = {"RGBA": "transparency", "LA": "transparency", "I;16": "16 bits", "RGB;16": "16 bits"}.get(mode, mode)
        raise UserError(f"{path}: {file_format} can't hold the picture's kind ({kind}): use .png or .tiff")


def write_pictures(pictures: Iterable[Picture], path: str | Path, quality: int = 95) -> None:
    """Writes one picture or the frames of an animation; the file appears whole or not at all.

    The suffix names the format. `quality`: 1 to 100, for JPEG (with full-resolution colour), WebP and AVIF. Raises
    `UserError` where the format can't hold the picture, or the disk refuses it.
    """
    path, pictures = Path(path), iter(pictures)
    file_format, first = _format_of(path), next(pictures)
    second = next(pictures, None)
    check_writable(path, first.mode, first.pixels.shape[1::-1], 1 if second is None else 2)
    options = {name: value for name, value in first.info.items() if name not in ("duration", "loop")}
    if "exif" in options:
        options["exif"] = options["exif"].tobytes()
    options |= {"JPEG": {"quality": quality, "subsampling": 0}, "WEBP": {"quality": quality},
                "AVIF": {"quality": quality}}.get(file_format, {})
    try:
        with write_atomically(path) as temporary:
            if ";16" in first.mode and first.mode != "I;16":
                write = _write_png_16 if file_format == "PNG" else _write_tiff_16
                temporary.write_bytes(write(first))
            elif second is None:
                _frame_for(file_format, first).save(temporary, file_format, **options)
            else:
                images, durations = [], []
                for picture in chain([first, second], pictures):
                    images.append(_frame_for(file_format, picture))
                    durations.append(picture.info.get("duration") or 100)
                if first.info.get("loop") is not None:
                    options["loop"] = first.info["loop"]
                images[0].save(temporary, file_format, save_all=True, append_images=images[1:], duration=durations,
                               **options)
    except OSError as error:
        raise UserError(f"{path}: not written ({error.strerror or error})") from None


def _frame_for(file_format: str, picture: Picture) -> Image.Image:
    """The PIL picture as its format wants it: GIF knows only visible and invisible."""
    if file_format == "GIF" and picture.mode == "RGBA":
        pixels = picture.pixels.copy()
        pixels[:, :, 3] = np.where(pixels[:, :, 3] >= 128, 255, 0)
        picture = replace(picture, pixels=pixels)
    return image_of(picture)


def _write_png_16(picture: Picture) -> bytes:
    """A PNG file of 16-bit colour, every row stored as differences to the row above (filter 2)."""
    height, width, channels = picture.pixels.shape

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = np.ascontiguousarray(picture.pixels.astype(">u2")).view(np.uint8).reshape(height, -1)
    above = np.concatenate([np.zeros_like(rows[:1]), rows[:-1]])
    filtered = np.concatenate([np.full((height, 1), 2, np.uint8), rows - above], 1)
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header)]
    if picture.info.get("icc_profile"):
        parts.append(chunk(b"iCCP", b"profile\0\0" + zlib.compress(picture.info["icc_profile"])))
    if picture.info.get("exif"):
        parts.append(chunk(b"eXIf", picture.info["exif"].tobytes().removeprefix(b"Exif\0\0")))
    parts += [chunk(b"IDAT", zlib.compress(filtered.tobytes(), 6)), chunk(b"IEND", b"")]
    return b"".join(parts)


def _write_tiff_16(picture: Picture) -> bytes:
    """A TIFF file of 16-bit colour in one deflated strip."""
    height, width, channels = picture.pixels.shape
    strip = zlib.compress(np.ascontiguousarray(picture.pixels.astype("<u2")).tobytes(), 6)
    tags = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    tags.update({256: width, 257: height, 258: (16,) * channels, 259: 8, 262: 2, 273: 0, 277: channels, 278: height,
                 279: len(strip), 284: 1})
    if channels == 4:
        tags[338] = 2  # the fourth is alpha, colours not multiplied by it
    if picture.info.get("icc_profile"):
        tags.tagtype[34675] = 7
        tags[34675] = picture.info["icc_profile"]
    file = BytesIO()
    tags.save(file)
    file.write(strip)
    return file.getvalue()
