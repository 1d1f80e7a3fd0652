"""Pictures of every kind through upscaling: what comes back, what is refused, and that nothing is left half-written."""

import io
import itertools
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2

from srgan_nb import cli
from srgan_nb.checkpoints import save_generator
from srgan_nb.errors import UserError
from srgan_nb.evaluation import find_model
from srgan_nb.generator import Generator
from srgan_nb.images import demo_photo
from srgan_nb.pictures import PictureFile, fill_hidden, picture_of, reduce_picture, write_pictures
from srgan_nb.upscale_files import TargetSize, side_by_side, sweep, upscale_file, upscale_files, upscale_folder
from srgan_nb.upscaling import Upscaler, bytes_of, upscale, upscale_widget
from tests.conftest import ROOT
from tests.support.kills import killed_at_change
from tests.support.processes import run_module


def tiny(scale: int = 4) -> Generator:
    "A generator that adds a little noise to bicubic enlargement: quick, and near enough to tell right from wrong."
    torch.manual_seed(0)
    generator = Generator(scale, channels=8, blocks=1, kernel_size=3, batch_norm=False, bicubic_skip=True)
    torch.nn.init.normal_(generator.tail.weight, 0, 0.002)
    return generator.eval()


@pytest.fixture(scope="module")
def upscaler() -> Upscaler:
    return Upscaler(tiny(), device="cpu")


def photo(width: int = 14, height: int = 10, channels: int = 3) -> np.ndarray:
    "A smooth picture with an edge, (height, width, channels) uint8."
    y, x = np.mgrid[:height, :width] / max(height, width)
    planes = [200 * x + 20, 180 * y + 40, 120 * (x + y) + 10, 128 + 127 * np.sin(7 * x * y)]
    return np.stack(planes[:channels], 2).round().clip(0, 255).astype(np.uint8)


RGB, RGBA = Image.fromarray(photo()), Image.fromarray(photo(channels=4))
GREY16 = (photo()[:, :, 0].astype(np.uint16) * 257 + 3)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def saved(image: Image.Image, **options):
    "A function that writes `image` to the path that it is given."
    return lambda path: image.save(path, **options)


def written(content: bytes):
    return lambda path: path.write_bytes(content)


def in_memory(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(pixels: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    "A PNG file of (height, width, 1 to 4) uint8 or uint16, with other chunks before its pixels."
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(pixels.dtype.newbyteorder(">")).tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in (
        (b"IHDR", head), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")))


def tiff(pixels: np.ndarray, **options):
    return lambda path: tifffile.imwrite(path, pixels, **({"photometric": "rgb"} | options))


DEEP = photo(channels=4).astype(np.uint16) * 257 + 5
ALPHA = {"extrasamples": ["UNASSALPHA"]}


def turned(orientation: int):
    exif = Image.Exif()
    exif[274] = orientation
    return saved(RGB, exif=exif, quality=95)


def animation(mode: str = "RGB", count: int = 3, **options):
    frames = [RGB.rotate(90 * turn).convert(mode) for turn in range(count)]
    return saved(frames[0], save_all=True, append_images=frames[1:], duration=[60, 80, 100][:count], **options)


def transparent_palette() -> Image.Image:
    image = RGB.quantize(8)
    image.info["transparency"] = bytes([0, 128] + [255] * 6)  # an alpha for each of the first colours
    return image


def mpo(path: Path) -> None:
    RGB.save(path.with_suffix(".mpo"), "MPO", save_all=True, append_images=[RGB.rotate(180)])
    path.with_suffix(".mpo").rename(path)


def rows_of_tiff(mode: str, image: Image.Image):
    return lambda path: image.convert(mode).save(path, compression="tiff_lzw")


# name of the file, what writes it, what its enlarged mode and size are
SOUND = {
    "rgb.png": (saved(RGB), "8-bit RGB", (56, 40)),
    "interlaced-like.png": (saved(RGB, optimize=True), "8-bit RGB", (56, 40)),
    "grey.png": (saved(RGB.convert("L")), "8-bit grey", (56, 40)),
    "grey-4.png": (saved(RGB.convert("L").point(lambda level: level // 17 * 17), bits=4), "8-bit grey", (56, 40)),
    "bilevel.png": (saved(RGB.convert("1")), "1-bit grey", (56, 40)),
    "palette.png": (saved(RGB.quantize(16)), "8-bit RGB", (56, 40)),
    "palette-two.png": (saved(RGB.quantize(2)), "8-bit RGB", (56, 40)),
    "palette-one-transparent.png": (saved(RGB.quantize(16), transparency=3), "8-bit RGB, clear", (56, 40)),
    "palette-many-alphas.png": (saved(transparent_palette()), "8-bit RGB, clear", (56, 40)),
    "rgba.png": (saved(RGBA), "8-bit RGB, clear", (56, 40)),
    "grey-alpha.png": (saved(RGBA.convert("LA")), "8-bit grey, clear", (56, 40)),
    "colour-key.png": (saved(RGB, transparency=(20, 40, 10)), "8-bit RGB, clear", (56, 40)),
    "grey-key.png": (saved(RGB.convert("L"), transparency=40), "8-bit grey, clear", (56, 40)),
    "all-hidden.png": (saved(Image.new("RGBA", (6, 5))), "8-bit RGB, clear", (24, 20)),
    "all-opaque.png": (saved(RGB.convert("RGBA")), "8-bit RGB, clear", (56, 40)),
    "grey-16.png": (saved(Image.fromarray(GREY16)), "16-bit grey", (56, 40)),
    "grey-16-key.png": (written(png(GREY16[:, :, None], (b"tRNS", GREY16[0, 0].tobytes()[::-1]))), "16-bit grey, clear",
                        (56, 40)),
    "rgb-16.png": (written(png(DEEP[..., :3])), "16-bit RGB", (56, 40)),
    "rgba-16.png": (written(png(DEEP)), "16-bit RGB, clear", (56, 40)),
    "grey-alpha-16.png": (written(png(DEEP[..., 2:])), "16-bit grey, clear", (56, 40)),
    "srgb.png": (written(png(photo(), (b"gAMA", struct.pack(">I", 45455)))), "8-bit RGB", (56, 40)),
    "grey-16.tif": (saved(Image.fromarray(GREY16)), "16-bit grey", (56, 40)),
    "grey-16-deflated.tif": (saved(Image.fromarray(GREY16), compression="tiff_adobe_deflate"), "16-bit grey", (56, 40)),
    "rgb-16.tif": (tiff(DEEP[..., :3]), "16-bit RGB", (56, 40)),
    "rgba-16.tif": (tiff(DEEP, **ALPHA), "16-bit RGB, clear", (56, 40)),
    "ink-16.tif": (tiff(DEEP, photometric="separated"), "16-bit CMYK", (56, 40)),
    "rgb.jpg": (saved(RGB, quality=95), "8-bit RGB", (56, 40)),
    "progressive.jpeg": (saved(RGB, progressive=True), "8-bit RGB", (56, 40)),
    "grey.jpg": (saved(RGB.convert("L")), "8-bit grey", (56, 40)),
    "cmyk.jpg": (saved(RGB.convert("CMYK"), quality=95), "8-bit CMYK", (56, 40)),
    "two-views.jpg": (mpo, "8-bit RGB", (56, 40)),
    **{f"turned-{o}.jpg": (turned(o), "8-bit RGB", (56, 40) if o < 5 else (40, 56)) for o in range(1, 9)},
    "rgb.tiff": (rows_of_tiff("RGB", RGB), "8-bit RGB", (56, 40)),
    "cmyk.tif": (rows_of_tiff("CMYK", RGB), "8-bit CMYK", (56, 40)),
    "ycbcr.tif": (saved(RGB.convert("YCbCr"), compression="jpeg"), "8-bit RGB", (56, 40)),
    "bilevel-fax.tif": (saved(RGB.convert("1"), compression="group4"), "1-bit grey", (56, 40)),
    "float.tif": (saved(Image.fromarray(photo()[:, :, 0].astype(np.float32) / 255)), "32-bit grey", (56, 40)),
    "float-colour.tif": (tiff(photo().astype(np.float32) / 255), "32-bit RGB", (56, 40)),
    "rgb.webp": (saved(RGB, lossless=True), "8-bit RGB", (56, 40)),
    "rgba.webp": (saved(RGBA, lossless=True), "8-bit RGB, clear", (56, 40)),
    "rgb.avif": (saved(RGB), "8-bit RGB", (56, 40)),
    "still.gif": (saved(RGB.quantize(16)), "8-bit RGB", (56, 40)),
    "one-pixel.png": (saved(RGB.resize((1, 1))), "8-bit RGB", (4, 4)),
    "one-row.png": (saved(RGB.resize((90, 1))), "8-bit RGB", (360, 4)),
    "one-column.png": (saved(RGB.resize((1, 90))), "8-bit RGB", (4, 360)),
    "odd.png": (saved(RGB.resize((7, 13))), "8-bit RGB", (28, 52)),
    "black.png": (saved(Image.new("RGB", (5, 5))), "8-bit RGB", (20, 20)),
    "a name with späces.PNG": (saved(RGB), "8-bit RGB", (56, 40)),
    "a[page=1].png": (saved(RGB), "8-bit RGB", (56, 40)),
    "照片.png": (saved(RGB), "8-bit RGB", (56, 40)),
    "really-a-png.jpg": (written(in_memory(RGB, "PNG")), "8-bit RGB", (56, 40)),
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_file(name: str, tmp_path: Path, upscaler: Upscaler) -> None:
    write, kind, size = SOUND[name]
    (tmp_path / "out").mkdir()
    write(tmp_path / name)
    written_to = upscale_file(tmp_path / name, tmp_path / "out", upscaler)
    (before,), (after,) = PictureFile(tmp_path / name), PictureFile(written_to)
    assert after.pixels.shape[1::-1] == size and before.kind == after.kind
    assert str(before.kind) == kind.replace(", clear", " with transparency")
    # averaged back by 4, the enlarged picture is the one that came in
    if before.kind.bits > 1 and name not in ("all-hidden.png", "rgb.avif"):
        peak = 1 if before.kind.bits == 32 else np.iinfo(before.pixels.dtype).max
        blocks = after.pixels.reshape(before.pixels.shape[0], 4, before.pixels.shape[1], 4, -1).mean((1, 3))
        visible = before.pixels[:, :, -1:] > 0 if before.kind.alpha else True
        assert (np.abs(blocks - before.pixels) * visible).mean() / peak < 0.03


# how the pixels lie in the file: what writes it, what its pixels are
LAYOUTS = {
    "white-is-zero-16.tif": (tiff(GREY16, photometric="miniswhite"), 65535 - GREY16[..., None]),
    "planes-16.tif": (tiff(np.ascontiguousarray(DEEP[..., :3].transpose(2, 0, 1)), planarconfig="separate"),
                      DEEP[..., :3]),
    "big-endian-16.tif": (tiff(DEEP[..., :3], byteorder=">", compression="deflate", predictor=2), DEEP[..., :3]),
    "tiles-16.tif": (tiff(DEEP[..., :3], tile=(16, 16)), DEEP[..., :3]),
    "pages-16.tif": (tiff(np.stack([DEEP[..., :3]] * 2)), DEEP[..., :3]),
    "big.tif": (tiff(DEEP[..., :3], bigtiff=True), DEEP[..., :3]),
    "rgba-16.tif": (tiff(DEEP, **ALPHA), DEEP),
    "rgb-16.png": (written(png(DEEP[..., :3])), DEEP[..., :3]),
    "rgba-16.png": (written(png(DEEP)), DEEP),
    "ink.jpg": (saved(Image.frombytes("CMYK", (14, 10), photo(channels=4).tobytes()), quality=100, subsampling=0),
                photo(channels=4)),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_pixels_are_read_and_written_as_they_are(name: str, tmp_path: Path) -> None:
    write, expected = LAYOUTS[name]
    write(tmp_path / name)
    file = PictureFile(tmp_path / name)
    write_pictures(list(file), tmp_path / f"again-{name}", file, quality=100)
    for path in (tmp_path / name, tmp_path / f"again-{name}"):
        for picture in PictureFile(path):
            error = np.abs(picture.pixels.astype(int) - expected)
            assert picture.pixels.dtype == expected.dtype and error.max() <= (3 if name.endswith("jpg") else 0)
    if file.kind.bits == 16 and file.kind.colour == "RGB":
        with pytest.raises(UserError, match="which a PIL picture can't hold"):
            upscale(tmp_path / name, tiny())


def test_multiplied_alpha_comes_back_as_plain_alpha(tmp_path: Path, upscaler: Upscaler) -> None:
    tifffile.imwrite(tmp_path / "in.tif", np.full((5, 5, 4), 100, np.uint8), photometric="rgb",
                     extrasamples=["ASSOCALPHA"])  # white, seen through
    (after,) = PictureFile(upscale_file(tmp_path / "in.tif", tmp_path / "out.tif", upscaler))
    assert after.pixels[..., :3].min() > 250 and (after.pixels[..., 3] == 100).all()


ANIMATED = {  # what writes it, and the times that come back
    "moving.gif": (animation(), [60, 80, 100]),
    "moving-transparent.gif": (animation("RGBA", disposal=2), [60, 80, 100]),
    "moving.webp": (animation("RGBA", lossless=True), [60, 80, 100]),
    "pages.tif": (animation("L"), None),
}


@pytest.mark.parametrize("name", ANIMATED)
def test_every_frame_is_enlarged(name: str, tmp_path: Path, upscaler: Upscaler) -> None:
    write, times = ANIMATED[name]
    write(tmp_path / name)
    upscale_file(tmp_path / name, tmp_path / f"out{Path(name).suffix}", upscaler)
    before, after = PictureFile(tmp_path / name), PictureFile(tmp_path / f"out{Path(name).suffix}")
    assert after.frames == before.frames == 3 and after.size == (56, 40)
    assert times is None or after.header.get("delay") == before.header.get("delay") == times
    for small, large in zip(before, after, strict=True):
        blocks = large.pixels.reshape(10, 4, 14, 4, -1).mean((1, 3))[..., :3]  # a GIF drops alpha that hides nothing
        assert np.abs(blocks - small.pixels[..., :3]).mean() < 8
    with pytest.raises(UserError, match="3 frames, which a PIL picture can't hold"):
        upscale(tmp_path / name, tiny())


def test_transparent_frames_keep_no_ghosts_of_earlier_ones(tmp_path: Path, upscaler: Upscaler) -> None:
    squares = [Image.new("RGBA", (20, 10)) for _ in range(3)]
    for index, frame in enumerate(squares):
        frame.paste((220, 40, 40), (2 + 6 * index, 2, 6 + 6 * index, 6))
    squares[0].save(tmp_path / "in.gif", save_all=True, append_images=squares[1:], disposal=2, duration=80)
    for target in ("out.gif", "out.webp"):
        for index, frame in enumerate(PictureFile(upscale_file(tmp_path / "in.gif", tmp_path / target, upscaler))):
            seen = frame.pixels[..., 3] > 128
            assert seen[10:22, 10 + 24 * index:22 + 24 * index].all() and seen.sum() < 1.3 * 16 * 16


@pytest.mark.parametrize("loop", [None, 0, 3])
def test_a_film_that_plays_once_or_for_ever_stays_so(loop: int | None, tmp_path: Path, upscaler: Upscaler) -> None:
    animation(**({} if loop is None else {"loop": loop}))(tmp_path / "in.gif")
    with Image.open(upscale_file(tmp_path / "in.gif", tmp_path / "out.gif", upscaler)) as image:
        assert image.info.get("loop") == loop


def test_pages_become_a_film_of_a_tenth_of_a_second_each(tmp_path: Path, upscaler: Upscaler) -> None:
    animation()(tmp_path / "in.tif")
    assert PictureFile(upscale_file(tmp_path / "in.tif", tmp_path / "out.gif", upscaler)).header.get("delay") == [100] * 3


def claiming(side: int) -> bytes:
    "A PNG whose head claims side x side pixels."
    content = bytearray(in_memory(RGB, "PNG"))
    content[16:24] = side.to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


PNG, JPEG = in_memory(RGB, "PNG"), in_memory(RGB, "JPEG")

# name of the file, what writes it, name of the output, a part of the one line that says what is wrong
BROKEN = {
    "missing.png": (lambda path: None, "out.png", "No such file"),
    "empty.png": (written(b""), "out.png", "empty"),
    "text.png": (written(b"not a picture at all"), "out.png", "of a kind that can't be read"),
    "page.jpg": (written(b"<html>not found</html>"), "out.jpg", "of a kind that can't be read"),
    "drawing.svg": (written(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "out.png", "of a kind that can't be read"),
    "paper.pdf": (written(b"%PDF-1.4\n"), "out.png", "of a kind that can't be read"),
    "archive.png": (written(b"PK\3\4" + bytes(100)), "out.png", "of a kind that can't be read"),
    "head-only.png": (written(PNG[:33]), "out.png", "damaged|truncated"),
    "cut.png": (written(PNG[:-40]), "out.png", "damaged|truncated"),
    "cut.jpg": (written(JPEG[:-len(JPEG) // 3]), "out.jpg", "damaged|truncated"),
    "flipped.png": (written(PNG[:60] + bytes([PNG[60] ^ 255]) + PNG[61:]), "out.png", "damaged|truncated"),
    "huge.png": (written(claiming(249_000)), "out.png", "more than .* MB of this machine"),  # 9 TB
    "folder.png": (lambda path: path.mkdir(), "out.png", "directory|folder"),
    "cut.gif": (lambda path: (animation()(path), path.write_bytes(path.read_bytes()[:-60])), "out.gif",
                "damaged|truncated"),
    "sizes.tif": (saved(RGB, save_all=True, append_images=[RGB.resize((9, 9))]), "out.tif", "pages differ in size"),
    "old.bmp": (saved(RGB), "out.png", "can't be read: convert it to PNG"),
    "map.ppm": (saved(RGB), "out.png", "can't be read: convert it to PNG"),
    "not-a-number.tif": (saved(Image.fromarray(np.full((4, 4), np.nan, np.float32))), "out.tif", "floats go from 0"),
    "infinite.tif": (saved(Image.fromarray(np.array([[0, np.inf]], np.float32))), "out.tif", "floats go from 0"),
    "heights.tif": (saved(Image.fromarray(np.full((4, 4), 8800, np.float32))), "out.tif", "floats go from 0"),
    "int-32.tif": (tiff(np.array([[0, 4_000_000_000]] * 2, np.uint32), photometric="minisblack"), "out.tif",
                   "uint.*convert it to"),
    "lab.tif": (saved(Image.merge("LAB", RGB.convert("YCbCr").split())), "out.tif", "can't be read|can't be enlarged"),
    "five.tif": (tiff(np.zeros((5, 5, 5), np.uint8), photometric="minisblack", planarconfig="contig"), "out.tif",
                 "can't be enlarged"),
    "ycbcr.tif": (saved(RGB.convert("YCbCr")), "out.tif", "a TIFF of YCbCr.*convert it to RGB"),
    "moving.png": (animation("RGBA"), "out.png", "animated PNG.*convert it to WebP"),
    "fallback.png": (animation(default_image=True), "out.png", "animated PNG.*convert it to WebP"),
    "linear.png": (written(png(photo(), (b"gAMA", struct.pack(">I", 100_000)))), "out.png", "gAMA.*convert it to sRGB"),
    "wide.png": (written(png(photo(), (b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000,
                                                            6000)))), "out.png", "cHRM.*convert it to sRGB"),
    "hdr.png": (written(png(DEEP[..., :3], (b"cICP", bytes([9, 16, 0, 1])))), "out.png", "cICP.*convert it to sRGB"),
    "clear.png": (saved(RGBA), "out.jpg", "JPEG can't hold 8-bit RGB with transparency, 56 x 40.*use .png or .tif"),
    "deep-grey.png": (saved(Image.fromarray(GREY16)), "out.jpg", "can't hold 16-bit grey.*use .png or .tif$"),
    "deep-grey-2.png": (saved(Image.fromarray(GREY16)), "out.webp", "can't hold 16-bit grey"),
    "deep-colour.png": (written(png(DEEP[..., :3])), "out.jpg", "can't hold 16-bit RGB"),
    "ink.jpg": (saved(RGB.convert("CMYK")), "out.png", "PNG can't hold 8-bit CMYK.*use .tif or .jpg$"),
    "ink.tif": (saved(RGB.convert("CMYK")), "out.webp", "can't hold 8-bit CMYK"),
    "float.tif": (saved(Image.fromarray(np.zeros((3, 3), np.float32))), "out.png", "can't hold 32-bit grey.*use .tif$"),
    "moving.gif": (animation(), "out.jpg", "JPEG can't hold 3 frames.*use .tif or .webp or .gif$"),
    "once.gif": (animation(), "out.png", "PNG can't hold 3 frames.*use .tif or .webp or .gif$"),
    "long.png": (saved(RGB.resize((5000, 1))), "out.webp", "WebP can't hold.*20000 x 4 pixels: use .png"),
    "long-2.png": (saved(RGB.resize((17_000, 1))), "out.jpg", "JPEG can't hold.*68000 x 4 pixels: use .png"),
    "picture.png": (saved(RGB), "out.xyz", "no picture format"),
    "picture-2.png": (saved(RGB), "out", "no picture format"),
    "picture-3.png": (saved(RGB), "nowhere/out.png", "no such folder"),
    "icon.png": (saved(RGB), "out.ico", "no picture format"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_or_impossible_is_refused_in_one_line(name: str, tmp_path: Path, upscaler: Upscaler) -> None:
    write, target, reason = BROKEN[name]
    write(tmp_path / name)
    with pytest.raises(UserError, match=f"(?i){reason}") as raised:
        upscale_file(tmp_path / name, tmp_path / target, upscaler)
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] in ([name], [])  # nothing was begun


def test_a_name_that_no_system_takes_is_one_line() -> None:
    with pytest.raises(UserError, match=r"xx\.png: File name too long"):
        PictureFile("x" * 5000 + ".png")


@pytest.mark.slow
def test_no_head_takes_the_machine_s_memory(tmp_path: Path) -> None:
    "Files of a few bytes that claim 170 million pixels and more are refused before memory for them is touched."
    if sys.platform != "linux":
        pytest.skip("memory is read from /proc")
    (tmp_path / "a.png").write_bytes(claiming(60_000))
    (tmp_path / "b.png").write_bytes(claiming(13_000))
    gif = bytearray(in_memory(RGB, "GIF"))
    gif[6:10] = struct.pack("<HH", 60_000, 60_000)
    (tmp_path / "c.gif").write_bytes(gif)
    RGB.save(tmp_path / "d.tif")
    tiff_head = bytearray((tmp_path / "d.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "d.tif") as file:
        for name in ("ImageWidth", "ImageLength"):
            tag = file.pages[0].tags[name]
            tiff_head[tag.valueoffset:tag.valueoffset + 4] = struct.pack("<I", 60_000)[:4 if tag.dtype == 4 else 2].ljust(
                4, b"\0")
    (tmp_path / "d.tif").write_bytes(tiff_head)
    code = ("import sys; from pathlib import Path\n"
            "from srgan_nb.errors import UserError; from srgan_nb.upscale_files import upscale_file\n"
            "from srgan_nb.upscaling import Upscaler\n"
            "def peak(): return int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) // 1000\n"
            "upscaler, before = Upscaler('bicubic', device='cpu'), peak()\n"
            "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
            "    try: upscale_file(path, path.with_suffix('.out.tif'), upscaler)\n"
            "    except UserError as error: print('refused', path.name, error)\n"
            "print(peak() - before)")
    output = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True, cwd=ROOT)
    *refused, grown = output.stdout.splitlines()
    assert [line.split()[1] for line in refused] == ["a.png", "b.png", "d.tif"] and int(grown) < 100, output.stdout
    assert PictureFile(tmp_path / "c.out.tif").size == (56, 40)  # libvips goes by the frame, as browsers do


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".gif", ".tif", ".avif"])
def test_damaged_files_give_a_picture_or_one_line(suffix: str, tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    noise.save(tmp_path / f"whole{suffix}")
    whole, chance, refused = (tmp_path / f"whole{suffix}").read_bytes(), random.Random(suffix), 0
    (expected,) = PictureFile(tmp_path / f"whole{suffix}")
    for trial in range(60):
        content = bytearray(whole[:chance.randrange(len(whole) - 2)] if trial % 2 else whole)
        for _ in range(0 if trial % 2 else 8):
            content[chance.randrange(len(content))] = chance.randrange(256)
        (tmp_path / f"damaged{suffix}").write_bytes(content)
        try:
            pictures = list(PictureFile(tmp_path / f"damaged{suffix}"))
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
        else:  # what is cut off was nothing of the pixels
            assert trial % 2 == 0 or np.array_equal(pictures[0].pixels, expected.pixels)
    assert refused > 25


@pytest.mark.parametrize("target", [".png", ".jpg", ".webp", ".avif", ".tif"])
@pytest.mark.parametrize("source", [".png", ".jpg", ".webp"])
def test_metadata_goes_along(source: str, target: str, tmp_path: Path, upscaler: Upscaler) -> None:
    exif = Image.Exif()
    exif[274], exif[271], exif[33432] = 6, "A camera", "Somebody"
    exif.get_ifd(0x8769).update({33434: 0.01, 40962: 14, 40963: 10, 36867: "2024:05:01 10:00:00"})
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 30.0, 0.0)})
    RGB.save(tmp_path / f"in{source}", exif=exif.tobytes(), icc_profile=PROFILE, dpi=(300, 300))
    with Image.open(upscale_file(tmp_path / f"in{source}", tmp_path / f"out{target}", upscaler)) as image:
        image.load()
        kept = image.getexif()
        assert image.size == (40, 56) and kept.get(274, 1) == 1 and image.info["icc_profile"] == PROFILE
        if target != ".tif":  # libvips puts no EXIF there
            assert kept[271] == "A camera" and kept[33432] == "Somebody"
            assert kept.get_ifd(0x8769)[36867] == "2024:05:01 10:00:00"
            assert (kept.get_ifd(0x8769)[40962], kept.get_ifd(0x8769)[40963]) == (40, 56)
            assert kept.get_ifd(0x8825)[1] == "N"
        if source != ".webp" and target in (".png", ".jpg", ".tif"):
            assert round(float(image.info["dpi"][0])) == 300
    enlarged = upscaler(Image.open(tmp_path / f"in{source}"))  # a PIL picture is taken as it is, not turned
    assert enlarged.size == (56, 40) and enlarged.getexif()[271] == "A camera"
    enlarged = upscaler(tmp_path / f"in{source}")  # a file is turned, and says so
    assert enlarged.size == (40, 56) and enlarged.getexif().get(274, 1) == 1
    assert enlarged.info["icc_profile"] == PROFILE


@pytest.mark.parametrize("bits", [8, 16])
def test_tiff_metadata_goes_along(bits: int, tmp_path: Path, upscaler: Upscaler) -> None:
    tifffile.imwrite(tmp_path / "in.tif", DEEP[..., :3] if bits == 16 else photo(), photometric="rgb", metadata=None,
                     resolution=(300, 300), resolutionunit="inch", description="Grandmother 1923", iccprofile=PROFILE)
    with Image.open(upscale_file(tmp_path / "in.tif", tmp_path / "out.tif", upscaler)) as image:
        assert round(float(image.info["dpi"][0])) == 300 and image.tag_v2[270] == "Grandmother 1923"
        assert image.info["icc_profile"] == PROFILE
    with Image.open(upscale_file(tmp_path / "in.tif", tmp_path / "out.png", upscaler)) as image:
        assert image.info["icc_profile"] == PROFILE


def test_xmp_goes_along_where_it_fits(tmp_path: Path, upscaler: Upscaler) -> None:
    short, long = (b"<x:xmpmeta>" + b"A" * length + b"</x:xmpmeta>" for length in (9, 70_000))
    RGB.save(tmp_path / "in.jpg", xmp=short)
    RGB.save(tmp_path / "in.tif", tiffinfo={700: short})
    RGB.save(tmp_path / "in.webp", xmp=long)
    for source in ("in.jpg", "in.tif"):
        for target in ("out.jpg", "out.png", "out.tif", "out.webp"):
            path = upscale_file(tmp_path / source, tmp_path / target, upscaler, force=True)
            assert PictureFile(path).info["xmp"].rstrip(b"\0") == short
    assert "xmp" not in PictureFile(upscale_file(tmp_path / "in.webp", tmp_path / "out.jpg", upscaler, force=True)).info


def test_png_texts_go_along_or_not_at_all(tmp_path: Path, upscaler: Upscaler) -> None:
    texts = PngInfo()
    texts.add_itxt("Title", "Blå")
    texts.add_text("Author", "Somebody")
    RGB.save(tmp_path / "in.png", pnginfo=texts)
    with Image.open(upscale_file(tmp_path / "in.png", tmp_path / "out.png", upscaler)) as image:
        assert image.text == {"Author": "Somebody"}


def test_a_resolution_that_is_no_number_is_dropped(tmp_path: Path, upscaler: Upscaler) -> None:
    tags = ImageFileDirectory_v2()
    tags[282] = tags[283] = IFDRational(0, 0)
    RGB.save(tmp_path / "in.tif", tiffinfo=tags)
    with Image.open(upscale_file(tmp_path / "in.tif", tmp_path / "out.jpg", upscaler)) as image:
        assert image.size == (56, 40) and 1 <= image.info["dpi"][0] <= 100


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [
    b"II*\0\x08\0\0\0\xff\xff" + bytes(20),  # 65,535 entries, and none there
    b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHIf", 306, 11, 1, 1.0) + bytes(4),  # a date that is a float
])
def test_broken_exif_does_not_stop(exif: bytes, tmp_path: Path, upscaler: Upscaler) -> None:
    RGB.save(tmp_path / "in.jpg", exif=b"Exif\0\0" + exif)
    with Image.open(upscale_file(tmp_path / "in.jpg", tmp_path / "out.jpg", upscaler)) as image:
        assert image.size == (56, 40)
    with Image.open(tmp_path / "in.jpg") as image:
        assert upscaler(image).size == upscaler(tmp_path / "in.jpg").size == (56, 40)


@pytest.mark.parametrize("background", [0, 255, 128])
def test_no_fringes_whatever_is_hidden(background: int, upscaler: Upscaler) -> None:
    y, x = np.mgrid[:32, :32] - 15.5
    alpha = (255 * np.clip(11 - np.hypot(y, x), 0, 1)).round().astype(np.uint8)
    colour = np.array([30, 200, 90], np.uint8)
    disc = np.dstack([np.where(alpha[..., None] > 0, colour, np.uint8(background)), alpha])
    enlarged = upscaler(disc)
    seen = enlarged[enlarged[..., 3] > 0][:, :3].astype(int)
    assert np.abs(seen - colour).max() <= 2
    assert (enlarged[..., 3] == 255).any() and (enlarged[:4, :4, 3] == 0).all()


def test_opaque_stays_opaque_and_equals_rgb(upscaler: Upscaler) -> None:
    opaque = upscaler(RGB.convert("RGBA"))
    assert np.array_equal(np.asarray(opaque)[..., :3], np.asarray(upscaler(RGB)))
    assert (np.asarray(opaque)[..., 3] == 255).all()


def test_fill_hidden_keeps_what_is_visible_and_works_in_16_bits() -> None:
    numbers = np.random.default_rng(0)
    colour = numbers.integers(0, 65536, (17, 23, 3)).astype(np.uint16)
    alpha = (numbers.random((17, 23, 1)) < 0.2).astype(np.uint16) * 40_000
    filled = fill_hidden(colour, alpha)
    assert filled.dtype == np.uint16 and np.array_equal(filled[alpha[..., 0] > 0], colour[alpha[..., 0] > 0])
    uniform = np.where(alpha > 0, np.uint16(50_000), np.uint16(0)).repeat(3, 2)
    assert np.abs(fill_hidden(uniform, alpha).astype(int) - 50_000).max() <= 1


def test_ink_stays_apart(upscaler: Upscaler) -> None:
    "A picture of black ink alone gets no cyan, and the other way round."
    ink = np.zeros((8, 8, 4), np.uint8)
    ink[2:6, 2:6, 3] = 255
    black = np.asarray(upscaler(Image.frombytes("CMYK", (8, 8), ink.tobytes())))
    assert black[..., :3].max() <= 2 and black[16, 16, 3] > 250


@pytest.mark.parametrize("mode", ["HSV", "YCbCr", "LAB", "I", "La", "RGBa", "RGBX"])
def test_modes_without_a_rule_are_refused(mode: str, upscaler: Upscaler) -> None:
    with pytest.raises(UserError, match=f"mode {mode} can't be enlarged: convert it to RGB"):
        upscaler(Image.new(mode, (3, 3)))


# ---------------------------------------------------------------------------------------------------------------------
# Arrays and tensors

ARRAYS = {
    "grey": photo()[:, :, 0],
    "grey, a channel": photo()[:, :, :1],
    "grey, alpha": photo(channels=4)[:, :, 2:],
    "colour": photo(),
    "colour, alpha": photo(channels=4),
    "16 bits": GREY16,
    "16 bits, colour": photo().astype(np.uint16) * 257,
    "16 bits, colour, alpha": photo(channels=4).astype(np.uint16) * 257,
    "big-endian": GREY16.astype(">u2"),
    "half": (photo() / 255).astype(np.float16),
    "single": (photo() / 255).astype(np.float32),
    "double": photo() / 255,
    "double, alpha": photo(channels=4) / 255,
    "mirrored view": photo()[:, ::-1],
    "every other pixel": photo(28, 20)[::2, ::2],
    "Fortran order": np.asfortranarray(photo()),
    "read-only": np.frombuffer(photo().tobytes(), np.uint8).reshape(10, 14, 3),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_array_of_the_same_kind(name: str, upscaler: Upscaler) -> None:
    array = ARRAYS[name]
    before = array.copy()
    enlarged = upscaler(array)
    assert enlarged.dtype == array.dtype.newbyteorder("=") and enlarged.ndim == array.ndim
    assert enlarged.shape == (4 * array.shape[0], 4 * array.shape[1], *array.shape[2:])
    assert np.array_equal(array, before)
    peak = 1 if array.dtype.kind == "f" else np.iinfo(array.dtype).max
    blocks = enlarged.astype(float).reshape(array.shape[0], 4, array.shape[1], 4, -1).mean((1, 3)).reshape(array.shape)
    assert np.abs(blocks - array.astype(float)).mean() / peak < 0.03


BYTES = torch.from_numpy(photo()).permute(2, 0, 1).contiguous()  # (3, 10, 14)
UNIT = BYTES / 255
TENSORS = {
    "bytes": BYTES,
    "floats": UNIT,
    "batch": torch.stack([UNIT, 1 - UNIT, UNIT.flip(0)]),
    "grey": UNIT[:1],
    "grey batch": UNIT[:2, None],
    "double": UNIT.double(),
    "half": UNIT.half(),
    "brain": UNIT.bfloat16(),
    "16 bits": torch.from_numpy(GREY16)[None],
    "with gradient": UNIT.clone().requires_grad_(),
    "channels last": torch.stack([UNIT, 1 - UNIT]).contiguous(memory_format=torch.channels_last),
    "expanded": UNIT[:1].expand(3, -1, -1),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensor_of_the_same_kind(name: str, upscaler: Upscaler) -> None:
    tensor = TENSORS[name]
    before = tensor.detach().clone()
    enlarged = upscaler(tensor)
    assert enlarged.dtype == tensor.dtype and not enlarged.requires_grad
    assert enlarged.shape == (*tensor.shape[:-2], 4 * tensor.shape[-2], 4 * tensor.shape[-1])
    assert torch.equal(tensor.detach(), before)
    peak = 1 if tensor.is_floating_point() else torch.iinfo(tensor.dtype).max
    if tensor.is_floating_point():
        (enlarged * torch.ones((), dtype=tensor.dtype, requires_grad=True)).sum().backward()  # it may enter a loss
    blocks = torch.nn.functional.avg_pool2d(enlarged.double(), 4)
    assert (blocks - tensor.detach().double()).abs().mean() / peak < 0.03


WRONG = {
    "floats to 255": (np.full((3, 3), 255.0), "floats go from 0 to 1"),
    "NaN": (np.full((3, 3), np.nan), "floats go from 0 to 1"),
    "negative": (torch.full((3, 2, 2), -0.5), "floats go from 0 to 1"),
    "int32": (np.zeros((3, 3), np.int32), "uint8, uint16 or floats"),
    "int64 tensor": (torch.zeros(3, 4, 4, dtype=torch.int64), "uint8, uint16 or floats"),
    "bool": (np.zeros((3, 3), bool), "uint8, uint16 or floats"),
    "complex": (torch.zeros(3, 4, 4, dtype=torch.complex64), "uint8, uint16 or floats"),
    "five channels": (np.zeros((3, 3, 5), np.uint8), "1 to 4 channels"),
    "one axis": (np.zeros(3, np.uint8), "1 to 4 channels"),
    "four axes": (np.zeros((2, 3, 3, 3), np.uint8), "1 to 4 channels"),
    "no pixel": (np.zeros((0, 3, 3), np.uint8), "empty"),
    "no picture": (torch.zeros(0, 3, 4, 4), "empty"),
    "two channels": (torch.zeros(2, 4, 4), "1 or 3 channels"),
    "matrix": (torch.zeros(4, 4), "1 or 3 channels"),
    "None": (None, "a picture is"),
    "number": (5, "a picture is"),
    "missing file": ("nowhere.png", "No such file"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_picture_is_refused(name: str, upscaler: Upscaler) -> None:
    image, reason = WRONG[name]
    with pytest.raises(UserError, match=reason):
        upscaler(image)


def test_a_network_that_answers_no_number_is_told(tmp_path: Path) -> None:
    broken = tiny()
    broken.head[0].weight.data[0, 0, 0, 0] = float("nan")
    RGB.save(tmp_path / "in.png")
    for picture in (RGB, photo(), UNIT):
        with pytest.raises(UserError, match="NaN"):
            upscale(picture, broken)
    with pytest.raises(UserError, match="NaN"):
        upscale_file(tmp_path / "in.png", tmp_path / "out.png", Upscaler(broken, device="cpu"))
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]


def test_alpha_has_the_size_of_the_model_s_scale() -> None:
    assert Upscaler(tiny(2))(RGBA).size == (28, 20) and Upscaler(tiny(8))(RGBA).size == (112, 80)


def test_models_by_name_path_and_object(tmp_path: Path) -> None:
    save_generator(tiny(), tmp_path / "mine.safetensors")
    by_path, by_object = upscale(RGB, tmp_path / "mine.safetensors"), upscale(RGB, tiny())
    assert np.array_equal(by_path, by_object)
    for wrong, reason in (("no-such-model", "no generator"), (torch.nn.Identity(), "a model is a name")):
        with pytest.raises(UserError, match=reason):
            upscale(RGB, wrong)


def test_bicubic_takes_a_scale_and_networks_have_theirs() -> None:
    assert upscale(RGB, "bicubic").size == (56, 40) and upscale(RGB, "bicubic", scale=2).size == (28, 20)
    assert upscale(RGB, tiny(2), scale=2).size == (28, 20)
    with pytest.raises(UserError, match="srgan enlarges by 4, not by 2"):
        Upscaler("srgan", scale=2)
    for wrong in (0, 1, -4, 2.5, "4"):
        with pytest.raises(UserError, match=f"scale is {wrong!r}: .* a whole number"):
            Upscaler("bicubic", scale=wrong)


def test_bicubic_s_name_is_refused_where_a_run_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bicubic").mkdir()
    assert Upscaler("bicubic").scale == 4, "a folder of pictures is no model"
    save_generator(tiny(2), "bicubic/generator.safetensors")
    for resolve in (Upscaler, find_model):
        with pytest.raises(UserError, match=r"write \./bicubic for yours"):
            resolve("bicubic")
        assert resolve("./bicubic").scale == resolve(Path("bicubic")).scale == 2


def test_bicubic_is_matlab_s_whatever_the_tiles() -> None:
    from srgan_nb.bicubic import upsample_bicubic

    lr = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, 61, 47), dtype=np.uint8))
    for limit in (None, "61MB"):
        assert torch.equal(Upscaler("bicubic", max_memory=limit)(lr), upsample_bicubic(lr))


@pytest.mark.slow
def test_compiled_gives_the_same(monkeypatch: pytest.MonkeyPatch, upscaler: Upscaler) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # traced, without a C++ compiler
    compiled = Upscaler(tiny(), device="cpu", compile=True)
    for size in ((14, 10), (9, 31)):
        assert np.array_equal(compiled(RGB.resize(size)), upscaler(RGB.resize(size)))


def test_options_that_can_t_be_kept_are_refused(upscaler: Upscaler) -> None:
    with pytest.raises(UserError, match="half precision is for CUDA"):
        Upscaler(tiny(), device="cpu", half=True)
    with pytest.raises(UserError, match="no amount of memory"):
        Upscaler(tiny(), max_memory="lots")
    with pytest.raises(UserError, match="allow more"):
        Upscaler(tiny(), device="cpu", max_memory="1MB")(RGB)
    with pytest.raises(UserError, match="quality goes from 1 to 100"):
        upscale_file("in.jpg", "out.jpg", upscaler, quality=101)
    assert bytes_of("0.5 GB") == 5 * 10**8


@pytest.mark.cuda
def test_half_precision_on_cuda() -> None:
    picture = torch.rand(1, 3, 70, 90)
    full, half = Upscaler(tiny(), device="cuda")(picture), Upscaler(tiny(), device="cuda", half=True)(picture)
    on_cpu = Upscaler(tiny(), device="cpu")(picture)
    assert (full - on_cpu).abs().max() < 1e-2 and (half - on_cpu).abs().max() < 1e-2


@pytest.mark.slow
def test_memory_limit_is_kept(tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("memory is read from /proc")
    script = ROOT / "tests" / "benchmarks" / "upscaling.py"
    words = [sys.executable, script, "memory", "--preset", "lite", "--size", "500", "400", "--limit", "150MB",
             "--no-whole"]
    output = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    peak = float(re.search(r"peak (\d+) MB above", output)[1])
    assert 30 < peak < 150, output  # the picture and what it becomes take 11 MB


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".tif", ".webp"])
def test_many_frames_wait_on_the_disk(suffix: str, tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("memory is read from /proc")
    frames = [RGB.resize((100, 75)).rotate(degrees) for degrees in range(100)]  # enlarged, 36 MB
    for count in (1, 100):
        frames[0].save(tmp_path / f"{count}{suffix}", save_all=True, append_images=frames[1:count])
    code = ("import sys; from srgan_nb.upscale_files import upscale_file; from srgan_nb.upscaling import Upscaler\n"
            "def peak(): return int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) // 1000\n"
            "upscaler = Upscaler('bicubic', '70MB', device='cpu')\n"
            "upscale_file(sys.argv[1], sys.argv[3], upscaler, force=True); before = peak()\n"
            "upscale_file(sys.argv[2], sys.argv[3], upscaler, force=True); print(peak() - before)")
    words = [sys.executable, "-c", code, *(tmp_path / f"{name}{suffix}" for name in (1, 100, "out"))]
    output = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert PictureFile(tmp_path / f"out{suffix}").frames == 100 and int(output) < 25, output


# ---------------------------------------------------------------------------------------------------------------------
# Folders, interruptions

def make_folder(folder: Path) -> None:
    (folder / "deep" / "er").mkdir(parents=True)
    RGB.save(folder / "a.png")
    RGB.save(folder / "deep" / "b.jpg")
    RGB.convert("L").save(folder / "deep" / "er" / "c.webp")
    (folder / "deep" / "broken.png").write_bytes(PNG[:-40])
    (folder / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_bytes(PNG)


def test_folder(tmp_path: Path, upscaler: Upscaler) -> None:
    make_folder(tmp_path / "in")
    report = upscale_folder(tmp_path / "in", tmp_path / "in" / "out", upscaler, progress=False)  # inside: not walked
    assert sorted(path.relative_to(tmp_path / "in/out").as_posix() for path in report.done) == [
        "a.png", "deep/b.jpg", "deep/er/c.webp"]
    assert sorted(path.name for path in report.failed) == ["broken.png", "phone.heic"]
    assert "3 enlarged, 0 already there, 2 failed" in str(report) and "broken.png: damaged" in str(report)
    os.utime(tmp_path / "in/out/a.png", (0, 0))
    again = upscale_folder(tmp_path / "in", tmp_path / "in" / "out", upscaler, progress=False)
    assert len(again.kept) == 3 and not again.done and (tmp_path / "in/out/a.png").stat().st_mtime == 0
    forced = upscale_folder(tmp_path / "in", tmp_path / "in" / "out", upscaler, force=True, progress=False)
    assert len(forced.done) == 3 and (tmp_path / "in/out/a.png").stat().st_mtime > 0


def test_folder_in_another_format(tmp_path: Path, upscaler: Upscaler) -> None:
    (tmp_path / "in").mkdir()
    for name in ("one.jpg", "one.gif", "two.webp"):
        RGB.save(tmp_path / "in" / name)
    report = upscale_folder(tmp_path / "in", tmp_path / "out", upscaler, file_format="png", progress=False)
    assert sorted(path.name for path in report.done) == ["one.png", "two.png"]
    assert "same file as" in report.failed[tmp_path / "in" / "one.jpg"]  # one.gif came first


@pytest.mark.parametrize(("source", "target", "options", "reason"), [
    ("nowhere", "out", {}, "no such folder"),
    ("empty", "out", {}, "no pictures"),
    ("in", "out", {"file_format": "."}, "no picture format"),
    ("in", "out", {"file_format": ""}, "no picture format"),
    ("in", "out", {"file_format": "xyz"}, "no picture format"),
    ("in", "out", {"quality": 0}, "quality goes from 1"),
    ("in", "in/p.png", {}, "p.png is no folder to write in"),
    ("in", "in/p.png/out", {}, "p.png is no folder to write in"),
    ("in", "in", {}, "originals would be overwritten"),
    ("in", "in", {"force": True, "file_format": "png"}, "originals would be overwritten"),
    ("in", "in/../in", {"force": True}, "originals would be overwritten"),
    ("nested/nested", "nested", {"force": True}, "originals would be overwritten"),
])
def test_a_folder_is_refused_before_any_work(source: str, target: str, options: dict, reason: str, tmp_path: Path,
                                             upscaler: Upscaler) -> None:
    for folder in ("in", "nested/nested/nested", "empty"):
        (tmp_path / folder).mkdir(parents=True)
    for picture in ("in/p.jpg", "nested/nested/p.png", "nested/nested/nested/p.png"):
        RGB.save(tmp_path / picture)
    Image.new("RGB", (9, 9)).save(tmp_path / "in/p.png")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*g")}
    with pytest.raises(UserError, match=reason):
        upscale_folder(tmp_path / source, tmp_path / target, upscaler, progress=False, **options)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*g")} == before


def test_the_samples_of_a_run_in_the_folder_are_no_pictures_of_it(tmp_path: Path, trained: Path, upscaler: Upscaler) -> None:
    make_folder(tmp_path / "in")
    shutil.copytree(trained, tmp_path / "in/run")
    report = upscale_folder(tmp_path / "in", tmp_path / "out", upscaler, progress=False)
    assert list((tmp_path / "in/run").rglob("*.png")) and not [path for path in report.done if "run" in path.parts]
    assert len(report.done) == 3


def test_a_folder_into_its_parent(tmp_path: Path, upscaler: Upscaler) -> None:
    (tmp_path / "holiday").mkdir()
    RGB.save(tmp_path / "holiday/a.png")
    assert upscale_folder(tmp_path / "holiday", tmp_path, upscaler, progress=False).done == [tmp_path / "a.png"]


def test_a_subfolder_that_can_t_be_read_is_reported(tmp_path: Path, upscaler: Upscaler,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path / "in")
    scandir = os.scandir

    def refusing(folder):  # no permissions, as for those who are not root
        if Path(folder).name == "deep":
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    report = upscale_folder(tmp_path / "in", tmp_path / "out", upscaler, progress=False)
    assert "Permission denied" in report.failed[tmp_path / "in/deep"]
    assert [path.name for path in report.done] == ["a.png"]


def test_without_stderr_there_is_no_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    RGB.save(tmp_path / "in/a.png")
    monkeypatch.setattr(sys, "stderr", None)  # a service, or Windows' pythonw
    report = upscale_folder(tmp_path / "in", tmp_path / "out", Upscaler(tiny(), device="cpu", progress=True))
    assert len(report.done) == 1


def test_what_a_kill_left_goes_with_any_later_run(tmp_path: Path, upscaler: Upscaler) -> None:
    (tmp_path / "in").mkdir()
    RGB.save(tmp_path / "in/a.png")
    for run in (lambda: upscale_folder(tmp_path / "in", tmp_path / "out", upscaler, progress=False),
                lambda: upscale_file(tmp_path / "in/a.png", tmp_path / "out/b.png", upscaler)):
        (tmp_path / "out").mkdir(exist_ok=True)
        old, young = (tmp_path / f"out/.{name}.0123456789abcdef.part.png" for name in ("old", "young"))
        mine = tmp_path / "out/.mine.part.png"
        for path in (old, young, mine):
            path.write_bytes(b"x")
        for path in (old, mine):
            os.utime(path, (0, 0))
        run()
        assert not old.exists() and young.exists() and mine.exists()


def test_a_file_that_its_writer_finishes_meanwhile_is_no_trouble(tmp_path: Path) -> None:
    gone, old = (tmp_path / f".{name}.0123456789abcdef.part.png" for name in ("gone", "old"))
    old.write_bytes(b"x")
    os.utime(old, (0, 0))
    gone.symlink_to("nowhere")  # listed, and nothing is there when it is looked at
    sweep(tmp_path)
    assert not old.exists()


def test_nothing_is_overwritten_unasked(tmp_path: Path, upscaler: Upscaler) -> None:
    RGB.save(tmp_path / "in.png")
    (tmp_path / "out.png").write_bytes(b"precious")
    with pytest.raises(UserError, match="exists"):
        upscale_file(tmp_path / "in.png", tmp_path / "out.png", upscaler)
    assert (tmp_path / "out.png").read_bytes() == b"precious"
    upscale_file(tmp_path / "in.png", tmp_path / "in.png", upscaler, force=True)  # onto itself, when told
    with Image.open(tmp_path / "in.png") as image:
        assert image.size == (56, 40)


@pytest.mark.skipif(os.name == "nt", reason="no limit on the size of files there")
@pytest.mark.parametrize("name", ["in.png", "in.gif"])
def test_full_disk_is_one_line(name: str, tmp_path: Path, upscaler: Upscaler) -> None:
    import resource

    animation()(tmp_path / "in.gif")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(tmp_path / "in.png")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))  # as good as a disk with room for 2000 bytes
    try:
        with pytest.raises(UserError, match="out.*not written") as raised:
            upscale_file(tmp_path / name, tmp_path / f"out{name[2:]}", upscaler)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(raised.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.gif", "in.png"]


def enlarge_by_bicubic(source: Path, target: Path) -> None:
    upscale_folder(source, target, Upscaler("bicubic", device="cpu"), force=True, progress=False)


@pytest.mark.slow
def test_killed_at_any_moment_leaves_no_half_written_file(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (2, 30, 20, 3), dtype=np.uint8)
    for index, pixels in enumerate(noise):
        Image.fromarray(pixels).save(source / f"{index}.png")
    expected = {f"{index}.png": Upscaler("bicubic", device="cpu")(pixels) for index, pixels in enumerate(noise)}
    for number in itertools.count():
        killed = killed_at_change(number, target, enlarge_by_bicubic, source, target)
        for path in target.glob("*"):
            if re.fullmatch(r"\.\d\.[0-9a-f]+\.part\.png", path.name):  # hidden, and no picture's name
                os.utime(path, (0, 0))  # a day passes
            else:
                assert np.array_equal(np.asarray(Image.open(path)), expected[path.name]), path
        if not killed:
            break
    assert number > 8
    assert sorted(path.name for path in target.iterdir()) == sorted(expected)  # leftovers are swept away


# ---------------------------------------------------------------------------------------------------------------------
# The widget

def test_widget_says_what_did_not_work() -> None:
    ipywidgets = pytest.importorskip("ipywidgets")
    from datetime import datetime

    widget = upscale_widget(tiny())
    upload, drop, dropped, view, slider, note = widget.children
    assert isinstance(upload, ipywidgets.FileUpload)
    one = {"name": "x", "type": "", "size": 1, "content": memoryview(b"nonsense"), "last_modified": datetime.now()}
    upload.value = (one,)
    assert "did not work" in note.value and Image.open(io.BytesIO(view.value)).size == (1, 1)
    upload.value = ({**one, "content": memoryview(PNG)},)
    assert Image.open(io.BytesIO(view.value)).size == (56, 40)
    dropped.value = "data:text/plain;base64,bm90IGEgcGljdHVyZQ=="
    assert "did not work" in note.value


def test_widget_reads_an_upload_as_every_file_is_read(tmp_path: Path) -> None:
    "Upright, and with white behind what is transparent."
    pytest.importorskip("ipywidgets")
    image, exif = Image.new("RGBA", (8, 4), (0, 0, 0, 0)), Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    image.save(tmp_path / "turned.png", exif=exif)
    shown = Image.open(io.BytesIO(upscale_widget("bicubic", tmp_path / "turned.png").children[3].value)).convert("RGB")
    assert shown.size == (16, 32) and shown.getpixel((2, 2)) == (255, 255, 255)


def test_widget_begins_with_a_picture() -> None:
    pytest.importorskip("ipywidgets")
    shown = [Image.open(io.BytesIO(upscale_widget(tiny(), picture).children[3].value))
             for picture in (Image.open(io.BytesIO(PNG)), demo_photo("chelsea"))]
    assert [picture.size for picture in shown] == [(56, 40), (800, 600)]



# ---------------------------------------------------------------------------------------------------------------------
# Any size


@pytest.mark.parametrize(("size", "becomes"), [
    ({}, (56, 40)), ({"scale": 2}, (28, 20)), ({"scale": 3}, (42, 30)), ({"scale": 4}, (56, 40)), ({"width": 33}, (33, 24)),
    ({"height": 25}, (35, 25)), ({"megapixels": 0.00056}, (28, 20)), ({"scale": 5.5}, (77, 55)), ({"width": 500}, (500, 357)),
    ({"scale": 1}, (14, 10)), ({"width": 7}, (7, 5)),
])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "1", "CMYK"])
def test_a_picture_of_any_size(mode: str, size: dict, becomes: tuple[int, int], tmp_path: Path, upscaler: Upscaler) -> None:
    "4x and one reduction, or several times 4x and one: of the kind that went in, near to what Pillow makes of it."
    suffix = ".tif" if mode == "CMYK" else ".png"
    image = (RGBA if "A" in mode else RGB).convert(mode)
    image.save(tmp_path / f"in{suffix}")
    target = upscale_file(tmp_path / f"in{suffix}", tmp_path / f"out{suffix}", upscaler, size=TargetSize(**size))
    with Image.open(target) as enlarged:
        assert enlarged.size == becomes and enlarged.mode == mode
        if mode in ("RGB", "L"):
            plain = np.asarray(image.resize(becomes, Image.Resampling.BICUBIC), float)
            assert np.abs(np.asarray(enlarged, float) - plain).mean() < 12


def test_what_is_the_networks_multiple_is_not_reduced(tmp_path: Path, upscaler: Upscaler) -> None:
    RGB.save(tmp_path / "in.png")
    upscale_file(tmp_path / "in.png", tmp_path / "usual.png", upscaler)
    upscale_file(tmp_path / "in.png", tmp_path / "asked.png", upscaler, size=TargetSize(width=56))
    assert (tmp_path / "usual.png").read_bytes() == (tmp_path / "asked.png").read_bytes()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_reduction_keeps_values_and_hides_what_is_hidden(dtype: str) -> None:
    "A flat picture stays flat at its value, and green that can't be seen does not bleed into red that can."
    whole = 1 if dtype == "float32" else np.iinfo(dtype).max
    flat = np.full((12, 16, 3), 0.7 * whole).astype(dtype)
    kind = picture_of(RGB).kind._replace(bits=8 * flat.itemsize)
    reduced = reduce_picture(picture_of(RGB)._replace(pixels=flat, kind=kind), 8, 6).pixels
    assert reduced.shape == (6, 8, 3) and reduced.dtype == dtype
    assert np.abs(reduced.astype(float) - float(flat[0, 0, 0])).max() <= whole * 1e-5
    clear = np.zeros((12, 16, 4), dtype)
    clear[:, :8, 0], clear[:, 8:, 1], clear[:, :8, 3] = whole, whole, whole
    seen = reduce_picture(picture_of(RGB)._replace(pixels=clear, kind=kind._replace(alpha=True)), 4, 3).pixels
    visible = seen[..., 3] > 0
    assert visible.any() and seen[..., 1][visible].max() <= 0.01 * whole and seen[..., 0][visible].min() > 0.9 * whole


def test_a_reduction_of_floats_stays_within_0_and_1() -> None:
    edge = np.zeros((8, 16, 3), np.float32)
    edge[:, 8:] = 1
    picture = picture_of(RGB)._replace(pixels=edge, kind=picture_of(RGB).kind._replace(bits=32))
    reduced = reduce_picture(picture, 9, 5).pixels
    assert reduced.min() >= 0 and reduced.max() <= 1 and reduced.max() > 0.99


@pytest.mark.parametrize("wrong", [{"width": 0}, {"scale": -1}, {"megapixels": float("inf")}, {"width": 10, "height": 10},
                                   {"scale": float("nan")}, {"scale": 1e308}])
def test_a_size_that_can_t_be(wrong: dict) -> None:
    with pytest.raises(UserError, match="a size is one number above 0"):
        TargetSize(**wrong)


def test_a_size_that_the_format_can_t_hold_is_refused_before_any_work(tmp_path: Path, upscaler: Upscaler) -> None:
    RGB.save(tmp_path / "in.png")
    with pytest.raises(UserError, match="WebP can't hold 8-bit RGB, 20000 x 14286 pixels"):
        upscale_file(tmp_path / "in.png", tmp_path / "out.webp", upscaler, size=TargetSize(width=20_000))
    with pytest.raises(UserError, match="more than the"):
        upscale_file(tmp_path / "in.png", tmp_path / "out.tif", upscaler, size=TargetSize(width=5_000_000))
    assert not list(tmp_path.glob("*out*"))


# ---------------------------------------------------------------------------------------------------------------------
# Pipes, several pictures, links, many processes


def run_command(*arguments: str, given: bytes = b"") -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "srgan_nb", "upscale", *arguments], input=given, capture_output=True,
                          cwd=ROOT, timeout=600)


@pytest.mark.slow
def test_through_pipes(tmp_path: Path) -> None:
    picture = in_memory(RGB, "PNG")
    done = run_command("-", "-", "--model", "bicubic", "--format", "png", "--width", "30", given=picture)
    assert done.returncode == 0 and not done.stderr
    with Image.open(io.BytesIO(done.stdout)) as enlarged:
        assert enlarged.size == (30, 21)
    broken = run_command("-", str(tmp_path / "out.png"), "--model", "bicubic", given=picture[:50])
    assert broken.returncode == 1 and b"standard input: damaged" in broken.stderr and not list(tmp_path.iterdir())
    with pytest.raises(SystemExit):
        cli.upscale(["-", "-"])  # in which format?


def test_several_pictures_and_patterns_into_a_folder(tmp_path: Path, upscaler: Upscaler) -> None:
    for name in ("a.png", "b.png", "c.jpg"):
        RGB.save(tmp_path / name)
    (tmp_path / "d.jpg").write_bytes(b"no picture")
    report = upscale_files([str(tmp_path / "a.png"), str(tmp_path / "*.jpg"), str(tmp_path / "e.png")], tmp_path / "out",
                           upscaler)
    assert [path.name for path in report.done] == ["a.png", "c.jpg"]
    assert {path.name for path in report.failed} == {"d.jpg", "e.png"}
    again = upscale_files([str(tmp_path / "a.png")], tmp_path / "out", upscaler)
    assert "exists" in again.failed[tmp_path / "a.png"]
    with pytest.raises(UserError, match="several pictures go into a folder"):
        upscale_files(["a.png", "b.png"], tmp_path / "a.png", upscaler)


@pytest.mark.parametrize("force", [True, False])
def test_several_pictures_never_take_the_place_of_an_original(force: bool, tmp_path: Path, upscaler: Upscaler) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        RGB.save(tmp_path / folder / "x.png")
    for sources in (["a/x.png", "b/x.png"], ["b/x.png"]):
        with pytest.raises(UserError, match="originals would be overwritten"):
            upscale_files([str(tmp_path / source) for source in sources], tmp_path / "b", upscaler, force=force)
    with Image.open(tmp_path / "b/x.png") as image:
        assert image.size == RGB.size


def test_linked_folders_are_followed_once(tmp_path: Path, upscaler: Upscaler) -> None:
    for folder in ("in", "elsewhere"):
        (tmp_path / folder).mkdir()
        RGB.save(tmp_path / folder / f"{folder}.png")
    (tmp_path / "in/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/same").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "in")
    (tmp_path / "in/results").symlink_to(tmp_path / "out")
    for done in (2, 0):  # the second time there are results behind that link
        report = upscale_folder(tmp_path / "in", tmp_path / "out", upscaler, progress=False)
        assert len(report.done) == done and not report.failed
        assert {path.name for path in report.done + report.kept} == {"in.png", "elsewhere.png"}


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_pictures_side_by_side_become_what_they_become_alone(tmp_path: Path, two_threads: None,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    "Two at a time, and the report is the same; one that needs more memory than its share is done alone."
    make_folder(tmp_path / "in")
    for number in range(6):
        RGB.rotate(20 * number).save(tmp_path / f"in/{number}.png")
    Image.new("RGB", (700, 900), "teal").save(tmp_path / "in/large.png")  # 91 MB with what it becomes
    monkeypatch.setattr("srgan_nb.upscale_files.SHARE", 90_000_000)
    seen, threads = [], torch.get_num_threads()

    class Watched(Upscaler):
        def memory_for_tiles(self, before: int) -> float:
            seen.append((before, self is watched, torch.get_num_threads()))
            return super().memory_for_tiles(before)

    watched = Watched(tiny(), device="cpu")
    beside = upscale_folder(tmp_path / "in", tmp_path / "out", watched, progress=False)
    assert (photo().nbytes, False, 1) in seen and (700 * 900 * 3, True, 2) in seen
    assert torch.get_num_threads() == threads == 2
    torch.set_num_threads(1)
    alone = upscale_folder(tmp_path / "in", tmp_path / "alone", watched, progress=False)
    assert str(beside) == str(alone) and len(alone.done) == 10 and len(alone.failed) == 2
    for one, other in zip(beside.done, alone.done, strict=True):
        assert one.read_bytes() == other.read_bytes(), one


def test_an_interrupt_ends_side_by_side_with_whole_pictures(two_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    "The pictures at work are finished, no others begun."
    begun, finished, interrupted, end = [], [], threading.Event(), ThreadPoolExecutor.shutdown

    def enlarge(path: Path) -> None:
        begun.append(path)
        if path > Path("00"):
            interrupted.wait(600)
        finished.append(path)

    def interrupt(done: int) -> None:  # when the first picture is reported
        raise KeyboardInterrupt

    def shutdown(pool: ThreadPoolExecutor, **how) -> None:
        end(pool, wait=False, **how)
        interrupted.set()
        end(pool)

    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", shutdown)
    with pytest.raises(KeyboardInterrupt):
        side_by_side(enlarge, [Path(f"{number:02}") for number in range(20)], 2, interrupt)
    assert sorted(finished) == sorted(begun) and 1 <= len(begun) <= 3 and torch.get_num_threads() == 2


@pytest.mark.slow
def test_four_processes_share_a_folder(tmp_path: Path) -> None:
    "Each picture is enlarged once, the first process reports on all of them, and what is there is not made again."
    make_folder(tmp_path / "in")
    for number in range(8):
        RGB.save(tmp_path / f"in/{number}.png")
    done = run_module(["torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", "--nproc-per-node=4", "-m",
                       "srgan_nb", "upscale",
                       str(tmp_path / "in"), str(tmp_path / "out"), "--model", "bicubic"], ROOT)
    assert "11 enlarged, 0 already there, 2 failed" in done.stderr and done.stderr.count("enlarged,") == 1
    again = upscale_folder(tmp_path / "in", tmp_path / "out", Upscaler("bicubic"), progress=False)
    assert len(again.kept) == 11 and not again.done and len(again.failed) == 2


def test_the_tasks_of_a_job_array_make_each_picture_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                         upscaler: Upscaler) -> None:
    "They can't meet: each has a report of its own share."
    from srgan_nb.devices import Processes
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    make_folder(tmp_path / "in")
    reports = [upscale_folder(tmp_path / "in", tmp_path / "out", upscaler, progress=False, processes=Processes(rank, 3))
               for rank in (2, 0, 1)]
    done = [path for report in reports for path in report.done]
    assert len(done) == len(set(done)) == 3 and not any(report.kept for report in reports)
    assert len({path for report in reports for path in report.failed}) == 2
    assert all(Processes(rank, 3).reports for rank in range(3))
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    assert [Processes(rank, 3).reports for rank in range(3)] == [True, False, False]
