"""Pictures of every kind: what a network sees of them, and files of them, read and written whole by libvips.

| kind | what the network sees | what comes back |
|---|---|---|
| RGB | the values / 255, of 16 bits / 65535 | RGB of as many bits |
| grey | the grey three times | the mean of the three answers |
| black and white (1 bit) | as grey | black and white, cut at one half |
| CMYK | the light that cyan, magenta, yellow leave, as a colour picture; black as a grey one | CMYK |
| with transparency | the colours, those of invisible pixels filled in from visible neighbours | alpha by bicubic |
| palette | its colours | RGB, with transparency where it has some: an enlarged picture needs colours between |
| floats | 0..1 as they are; other ranges are refused | floats |
| several frames | one after the other | as many frames, with their times |

Values go to the network as they are stored: a colour profile is kept, not applied. EXIF's orientation is applied. The
rest of EXIF, profile, XMP, IPTC, resolution and description go along as far as the file format and libvips carry them:
a TIFF file has no EXIF, and PNG texts are kept where they are ASCII.
"""

import logging
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyvips
import torch
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile
from torch.nn import functional as F

from srgan_nb.errors import UserError
from srgan_nb.files import write_atomically

__all__ = ["MODES", "Kind", "Picture", "picture_of", "image_of", "enlarge_picture", "fill_hidden", "reduce_picture",
           "PictureFile", "check_writable", "write_pictures"]

logging.getLogger("pyvips").setLevel(logging.ERROR)  # libvips warns of odd metadata
pyvips.cache_set_max(0)  # no file is read from memory after it has changed on the disk
Enlarge = Callable[[np.ndarray], np.ndarray]  # (H, W, C) -> (scale*H, scale*W, C), of the same type


class Kind(NamedTuple):
    """What a picture's numbers mean. `colour`: "grey", "RGB" or "CMYK". `bits`: 1, 8, 16, or 32 for floats in [0, 1]."""

    colour: str
    bits: int
    alpha: bool = False

    @property
    def colours(self) -> int:
        """How many channels there are, alpha aside."""
        return {"grey": 1, "RGB": 3, "CMYK": 4}[self.colour]

    def __str__(self) -> str:
        return f"{self.bits}-bit {self.colour}{' with transparency' if self.alpha else ''}"


class Picture(NamedTuple):
    """`pixels`: (H, W, C) uint8, uint16 or float32, alpha last. One bit is uint8 too: 0 and 255."""

    pixels: np.ndarray
    kind: Kind


# PIL pictures ---------------------------------------------------------------------------------------------------------

MODES = {"1": Kind("grey", 1), "L": Kind("grey", 8), "LA": Kind("grey", 8, True), "I;16": Kind("grey", 16),
         "F": Kind("grey", 32), "RGB": Kind("RGB", 8), "RGBA": Kind("RGB", 8, True), "CMYK": Kind("CMYK", 8)}


def picture_of(image: Image.Image) -> Picture:
    """A PIL picture's pixels by the rules at the top of this file. Raises `UserError` for a mode without a rule."""
    if image.mode == "P" or image.mode in ("1", "L", "RGB") and image.has_transparency_data:
        grey, clear = image.mode in ("1", "L"), image.has_transparency_data
        image = image.convert("LA" if grey else "RGBA" if clear else "RGB")
    mode = "I;16" if image.mode.startswith("I;16") else image.mode
    if mode not in MODES:
        raise UserError(f"a PIL picture of mode {mode} can't be enlarged: convert it to RGB, or to I;16, first")
    kind = MODES[mode]
    pixels = np.asarray(image) * np.uint8(255) if kind.bits == 1 else np.asarray(image)
    pixels = pixels.astype(np.uint16) if kind.bits == 16 else pixels  # from either byte order
    return Picture(pixels if pixels.ndim == 3 else pixels[:, :, None], kind)


def image_of(picture: Picture) -> Image.Image:
    """The PIL picture; raises `UserError` for kinds that it can't hold, such as 16-bit colour."""
    mode = next((mode for mode, kind in MODES.items() if kind == picture.kind), None)
    if mode is None:
        raise UserError(f"a PIL picture can't hold {picture.kind}: let upscale_file (srgan_upscale) write the file")
    pixels = picture.pixels[:, :, 0] if picture.pixels.shape[2] == 1 else picture.pixels
    image = Image.frombytes("CMYK", pixels.shape[1::-1], pixels.tobytes()) if mode == "CMYK" else \
        Image.fromarray(pixels)
    return image.convert("1", dither=Image.Dither.NONE) if mode == "1" else image


# Enlarging each kind --------------------------------------------------------------------------------------------------

def enlarge_picture(picture: Picture, sharp: Enlarge, smooth: Enlarge) -> Picture:
    """The picture enlarged by the rules at the top of this file: `sharp` is the network, `smooth` is bicubic."""
    pixels, kind = picture
    colour, alpha = pixels[:, :, :kind.colours], pixels[:, :, kind.colours:]
    if kind.alpha:
        colour = fill_hidden(colour, alpha)
    if kind.colour == "CMYK":
        white = np.iinfo(pixels.dtype).max
        light = white - colour
        enlarged = white - np.concatenate([sharp(light[:, :, :3]), sharp(light[:, :, 3:])], 2)
    else:
        enlarged = sharp(colour)
    if kind.bits == 1:
        enlarged = np.where(enlarged < 128, np.uint8(0), np.uint8(255))
    return Picture(np.concatenate([enlarged, smooth(alpha)], 2) if kind.alpha else enlarged, kind)


def fill_hidden(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Gives fully transparent pixels the colour of what is visible around them; the others keep theirs.

    (H, W, C) and (H, W, 1) of one type -> (H, W, C). What is stored under alpha 0 is arbitrary, often black, and a
    network would let it bleed into the visible edge. Averages over ever larger blocks, weighted by alpha.
    """
    if alpha.all() or not alpha.any():
        return colour

    def fill(values, weight):
        if weight.all() or weight.shape[-2:] == (1, 1):
            return values
        less = F.avg_pool2d(weight, 2, ceil_mode=True, count_include_pad=False)
        means = F.avg_pool2d(values * weight, 2, ceil_mode=True, count_include_pad=False) / less.clamp(min=1e-12)
        around = F.interpolate(fill(means, less), size=weight.shape[-2:], mode="bilinear")
        return torch.where(weight > 0, values, around)

    values, weight = (torch.from_numpy(part.astype(np.float32)).permute(2, 0, 1)[None] for part in (colour, alpha))
    filled = fill(values, weight / weight.max())[0].permute(1, 2, 0).numpy()
    if colour.dtype.kind == "u":
        filled = filled.round()
    return np.where(alpha > 0, colour, filled.astype(colour.dtype))


def reduce_picture(picture: Picture, width: int, height: int) -> Picture:
    """The picture at a smaller size in pixels, by libvips's antialiased bicubic; colours weighted by their alpha."""
    pixels, kind = picture
    if (height, width) == pixels.shape[:2]:
        return picture
    image = pyvips.Image.new_from_array(np.ascontiguousarray(pixels))
    whole = {8: 255, 16: 65535, 32: 1}[8 * pixels.itemsize]
    image = image.premultiply(max_alpha=whole) if kind.alpha else image
    image = image.resize(width / image.width, vscale=height / image.height, kernel="cubic")
    image = image.unpremultiply(max_alpha=whole) if kind.alpha else image
    reduced = image.numpy().reshape(height, width, -1).clip(0, whole)
    if pixels.dtype.kind == "u":
        reduced = reduced.round()
    if kind.bits == 1:
        reduced = np.where(reduced < 128, 0, 255)
    return Picture(reduced.astype(pixels.dtype), kind)


# Reading files --------------------------------------------------------------------------------------------------------

READABLE = ("png", "jpeg", "webp", "tiff", "gif", "heif")  # as libvips calls them; of HEIF it knows AVIF alone
COLOURS = {"b-w": "grey", "grey16": "grey", "srgb": "RGB", "rgb16": "RGB", "scrgb": "RGB", "cmyk": "CMYK"}
BITS = {"uchar": 8, "ushort": 16, "float": 32}


class PictureFile:
    """A picture file, of which the head is read: its `kind`, upright `size` (width, height) and number of `frames`.

    Iterating reads the pixels, frame by frame, upright. Raises `UserError` with one clear line for what can't be read
    or would lose something that its numbers need, and while iterating for damaged pixels.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            if self.path.exists() and not self.path.is_file():  # a pipe would be waited for
                raise UserError(f"{path}: a folder or device, not a file")
            with open(path, "rb") as file:
                start, length = file.read(8), file.seek(0, os.SEEK_END)
                file.seek(max(0, length - 64))
                end = file.read()
        except OSError as error:
            raise UserError(f"{path}: {error.strerror or error}") from None
        if not start:
            raise UserError(f"{path}: the file is empty")
        with self._told("damaged, or of a kind that can't be read: convert it to PNG or TIFF"):
            self.header = self._load()
            loader = self.header.get("vips-loader").removesuffix("_source").removesuffix("load")
            if loader not in READABLE:
                raise pyvips.Error(f"a file for {loader}")
        if start == b"\x89PNG\r\n\x1a\n":
            self._check_png()
        if loader == "tiff":
            _check_tiff(self.path)
        if loader == "gif" and not end.rstrip(b"\0").endswith(b";"):  # libvips would fill up what is missing
            raise UserError(f"{path}: damaged or truncated picture (the GIF has no end)")
        self.frames, upright = self.header.get_n_pages(), self.header.autorot()
        self.size, self.kind = (upright.width, upright.height), self._kind()
        self.pixel_bytes = self.header.bands * BITS[self.header.format] // 8

    def _load(self, access: str = "sequential", **options) -> pyvips.Image:
        source = pyvips.Source.new_from_file(os.fsencode(self.path))  # whatever bytes the name is made of
        return pyvips.Image.new_from_source(source, "", access=access, fail_on="error", **options)

    @property
    def info(self) -> dict[str, bytes]:
        """Colour profile and XMP, by the names that Pillow gives them."""
        names = {"icc_profile": "icc-profile-data", "xmp": "xmp-data"}
        return {name: self.header.get(field) for name, field in names.items() if self.header.get_typeof(field)}

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except pyvips.Error as error:
            raise UserError(f"{self.path}: {what} ({_reason(error)})") from None

    def _kind(self) -> Kind:
        image = self.header
        colour, bits = COLOURS.get(image.interpretation), BITS.get(image.format)
        alpha = image.bands - (Kind(colour, bits).colours if colour and bits else 0)
        if colour is None or bits is None or alpha not in (0, 1):
            raise UserError(f"{self.path}: {image.bands} channels of {image.format} as {image.interpretation} can't be "
                            "enlarged: convert it to grey or RGB of 8 or 16 bits")
        one_bit = image.bands == 1 and image.get_typeof("bits-per-sample") and image.get("bits-per-sample") == 1
        return Kind(colour, 1 if one_bit else bits, alpha == 1)

    def _check_png(self) -> None:
        """Refuses what libvips would drop without a word: an animation, and colours that no profile tells."""
        chunks = {}
        with open(self.path, "rb") as file:
            file.seek(8)
            while len(head := file.read(8)) == 8 and head[4:] != b"IDAT":
                chunks[head[4:]] = file.read(int.from_bytes(head[:4], "big"))
                file.seek(4, os.SEEK_CUR)
        if b"acTL" in chunks:
            raise UserError(f"{self.path}: an animated PNG can't be enlarged: convert it to WebP or GIF")
        usual = {b"gAMA": (45455,), b"cHRM": (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)}  # sRGB's
        strange = [name.decode() for name, numbers in usual.items() if len(chunks.get(name, b"")) == 4 * len(numbers)
                   and any(abs(one - other) > 1000 for one, other in zip(
                       struct.unpack(f">{len(numbers)}I", chunks[name]), numbers, strict=True))]
        if (strange or b"cICP" in chunks) and not {b"iCCP", b"sRGB"} & chunks.keys():
            raise UserError(f"{self.path}: its colours are told by {', '.join(strange) or 'cICP'}, which would be "
                            "lost: convert it to sRGB, or give it a profile")

    def __iter__(self) -> Iterator[Picture]:
        with self._told("its pages differ in size or kind: save them as files of their own"):
            # several frames stand one below the other; what is more than 100 MB of them waits on the disk
            strip = self._load("random", n=-1) if self.frames > 1 else self._load()
        height = strip.height // self.frames
        for index in range(self.frames):
            with self._told("damaged or truncated picture"):
                pixels = strip.crop(0, index * height, strip.width, height).copy_memory().autorot().numpy()
            yield Picture(pixels if pixels.ndim == 3 else pixels[:, :, None], self.kind)


def _check_tiff(path: Path) -> None:
    """Refuses YCbCr that is not JPEG's: libvips takes its numbers for RGB."""
    mode = None
    with open(path, "rb") as file, suppress(OSError, SyntaxError):  # Pillow's for what it doesn't know
        mode = TiffImageFile(file).mode
    if mode == "YCbCr":
        raise UserError(f"{path}: a TIFF of YCbCr, which would be taken for RGB: convert it to RGB")


def _reason(error: pyvips.Error) -> str:
    """The last line of what libvips says that says something: before it may stand what was said of other files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and "Unknown error" not in line]
    return lines[-1]


# Writing files --------------------------------------------------------------------------------------------------------

class Format(NamedTuple):
    """A file format, by the suffixes that name it, and what it can hold."""

    suffixes: tuple[str, ...]
    longest: int  # pixels of a side
    colours: tuple[str, ...] = ("grey", "RGB")
    bits: tuple[int, ...] = (1, 8)
    alpha: bool = True
    several: bool = False  # frames


FORMATS = {
    "PNG": Format((".png",), 1_000_000, bits=(1, 8, 16)),
    "TIFF": Format((".tif", ".tiff"), 10_000_000, ("grey", "RGB", "CMYK"), (1, 8, 16, 32), several=True),
    "JPEG": Format((".jpg", ".jpeg", ".jpe", ".jfif"), 65_500, ("grey", "RGB", "CMYK"), alpha=False),
    "WebP": Format((".webp",), 16_383, several=True),
    "GIF": Format((".gif",), 65_535, several=True),
    "AVIF": Format((".avif",), 16_384),
}


def format_of(path: str | Path) -> str:
    """The name of the format in which a file of this name is written. Raises `UserError` where there is none."""
    suffix = Path(path).suffix.lower()
    for name, file_format in FORMATS.items():
        if suffix in file_format.suffixes:
            return name
    raise UserError(f"{path}: no picture format that can be written ends in {suffix or 'nothing'}; "
                    "use .png, .jpg, .webp or .tif")


def check_writable(path: str | Path, kind: Kind, size: tuple[int, int], frames: int = 1) -> None:
    """Raises `UserError` where the format that `path` names can't hold such pictures, and names one that can.

    `size`: (width, height) in pixels.
    """
    def holds(one: Format) -> bool:
        return (kind.colour in one.colours and kind.bits in one.bits and kind.alpha <= one.alpha
                and (frames > 1) <= one.several and max(size) <= one.longest)

    name = format_of(path)
    if not holds(FORMATS[name]):
        others = " or ".join(one.suffixes[0] for one in FORMATS.values() if holds(one))
        raise UserError(f"{path}: {name} can't hold {f'{frames} frames of ' if frames > 1 else ''}{kind}, {size[0]} x "
                        f"{size[1]} pixels: {f'use {others}' if others else 'no format can'}")


def write_pictures(pictures: Iterable[Picture], path: str | Path, source: PictureFile, quality: int = 95) -> None:
    """Writes what was made of the frames of `source`, with its metadata; all of the file or nothing of it.

    The suffix names the format. `quality`: 1 to 100, for JPEG (with full-resolution colour), WebP and AVIF. Several
    frames wait on the disk, not in memory. Raises `UserError` where the file can't be written.
    """
    path, file_format, bits = Path(path), format_of(path), source.kind.bits
    tiff = {"compression": "deflate", "predictor": "horizontal" if bits in (8, 16) else "none",
            "bitdepth": 1 if bits == 1 else 0}
    each: dict[str, dict[str, Any]] = {
        "PNG": {"bitdepth": bits}, "JPEG": {"Q": quality, "subsample_mode": "off"}, "WebP": {"Q": quality},
        "AVIF": {"Q": quality}, "GIF": {"keep_duplicate_frames": True}, "TIFF": tiff}
    options = each[file_format]
    try:
        with write_atomically(path) as temporary:
            raw = temporary.with_suffix(".raw")
            try:
                image = _with_metadata(_strip_of(pictures, source.frames, raw), source)
                if file_format == "TIFF":
                    options["bigtiff"] = image.width * image.height * source.pixel_bytes > 4e9
                image.write_to_target(pyvips.Target.new_to_file(os.fsencode(temporary)),
                                      FORMATS[file_format].suffixes[0], **options)
            finally:
                raw.unlink(missing_ok=True)
    except pyvips.Error as error:
        raise UserError(f"{path}: not written ({_reason(error)})") from None


def _strip_of(pictures: Iterable[Picture], frames: int, raw: Path) -> pyvips.Image:
    """The frames one below the other, as libvips wants them; several are kept in the file `raw`."""
    if frames == 1:
        (picture,) = pictures
        return pyvips.Image.new_from_array(np.ascontiguousarray(picture.pixels))
    with open(raw, "wb") as file:
        for picture in pictures:
            file.write(np.ascontiguousarray(picture.pixels).data)
    height, width, channels = picture.pixels.shape
    kind_of_number = next(name for name, bits in BITS.items() if bits == 8 * picture.pixels.itemsize)
    some = -(-frames // 100)  # libvips maps each part of the file into memory while it reads it
    parts = [pyvips.Image.rawload(os.fsencode(raw), width, height * min(some, frames - start), channels,
                                  format=kind_of_number, offset=start * picture.pixels.nbytes, access="sequential")
             for start in range(0, frames, some)]
    return pyvips.Image.arrayjoin(parts, across=1).crop(0, 0, width, frames * height)


def _with_metadata(strip: pyvips.Image, source: PictureFile) -> pyvips.Image:
    """The picture with the metadata of `source`: in libvips, those of an operation's first image go along."""
    image = source.header.crop(0, 0, 1, 1).autorot().insert(strip, 0, 0, expand=True)
    known = min(image.xres, image.yres) > 1  # pixels per millimetre; 1 is what libvips says where the file is silent
    image = image.copy() if known else image.copy(xres=72 / 25.4, yres=72 / 25.4)
    for name in image.get_fields():
        if name in ("bits-per-sample", "palette", "background", "jpeg-thumbnail-data") or (
                name.startswith("png-comment") and not image.get(name).isascii()):  # it would be written as Latin-1
            image.remove(name)
    if source.frames > 1:
        image.set_type(pyvips.GValue.gint_type, "page-height", strip.height // source.frames)
        if not image.get_typeof("delay"):  # pages of a TIFF; milliseconds
            image.set_type(pyvips.GValue.array_int_type, "delay", [100] * source.frames)
    return image
