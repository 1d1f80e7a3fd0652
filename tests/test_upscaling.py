"""Pictures of every kind through upscaling: what comes back, what is refused, and that nothing is left half-written."""

import io
import itertools
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from srgan_nb.checkpoints import save_generator
from srgan_nb.evaluation import find_model
from srgan_nb.files import UserError
from srgan_nb.folders import upscale_file, upscale_folder
from srgan_nb.generator import Generator
from srgan_nb.images import demo_photo
from srgan_nb.kinds import Picture, fill_hidden
from srgan_nb.picture_files import read_pictures, write_pictures
from srgan_nb.upscaling import Upscaler, bytes_of, upscale, upscale_widget
from tests.conftest import ROOT
from tests.support.kills import killed_at_change


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


def deep(channels: int):
    "Writes 16-bit colour."
    mode = {3: "RGB;16", 4: "RGBA;16"}[channels]
    return lambda path: write_pictures([Picture(photo(channels=channels).astype(np.uint16) * 257 + 5, mode)], path)


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
    "rgb.png": (saved(RGB), "RGB", (56, 40)),
    "interlaced-like.png": (saved(RGB, optimize=True), "RGB", (56, 40)),
    "grey.png": (saved(RGB.convert("L")), "L", (56, 40)),
    "bilevel.png": (saved(RGB.convert("1")), "1", (56, 40)),
    "palette.png": (saved(RGB.quantize(16)), "RGB", (56, 40)),
    "palette-one-transparent.png": (saved(RGB.quantize(16), transparency=3), "RGBA", (56, 40)),
    "palette-many-alphas.png": (saved(transparent_palette()), "RGBA", (56, 40)),
    "rgba.png": (saved(RGBA), "RGBA", (56, 40)),
    "grey-alpha.png": (saved(RGBA.convert("LA")), "LA", (56, 40)),
    "colour-key.png": (saved(RGB, transparency=(20, 40, 10)), "RGBA", (56, 40)),
    "grey-key.png": (saved(RGB.convert("L"), transparency=40), "LA", (56, 40)),
    "all-hidden.png": (saved(Image.new("RGBA", (6, 5))), "RGBA", (24, 20)),
    "all-opaque.png": (saved(RGB.convert("RGBA")), "RGBA", (56, 40)),
    "grey-16.png": (saved(Image.fromarray(GREY16)), "I;16", (56, 40)),
    "rgb-16.png": (deep(3), "RGB;16", (56, 40)),
    "rgba-16.png": (deep(4), "RGBA;16", (56, 40)),
    "grey-16.tif": (saved(Image.fromarray(GREY16)), "I;16", (56, 40)),
    "grey-16-deflated.tif": (saved(Image.fromarray(GREY16), compression="tiff_adobe_deflate"), "I;16", (56, 40)),
    "rgb-16.tif": (deep(3), "RGB;16", (56, 40)),
    "rgba-16.tif": (deep(4), "RGBA;16", (56, 40)),
    "grey-16.pgm": (saved(Image.fromarray(GREY16)), "I;16", (56, 40)),
    "grey-16.jp2": (saved(Image.fromarray(GREY16)), "I;16", (56, 40)),
    "rgb.jpg": (saved(RGB, quality=95), "RGB", (56, 40)),
    "progressive.jpeg": (saved(RGB, progressive=True), "RGB", (56, 40)),
    "grey.jpg": (saved(RGB.convert("L")), "L", (56, 40)),
    "cmyk.jpg": (saved(RGB.convert("CMYK"), quality=95), "CMYK", (56, 40)),
    "two-views.jpg": (mpo, "RGB", (56, 40)),
    **{f"turned-{o}.jpg": (turned(o), "RGB", (56, 40) if o < 5 else (40, 56)) for o in range(1, 9)},
    "rgb.tiff": (rows_of_tiff("RGB", RGB), "RGB", (56, 40)),
    "cmyk.tif": (rows_of_tiff("CMYK", RGB), "CMYK", (56, 40)),
    "ycbcr.tif": (saved(RGB.convert("YCbCr")), "YCbCr", (56, 40)),
    "lab.tif": (saved(Image.merge("LAB", RGB.convert("YCbCr").split())), "LAB", (56, 40)),
    "bilevel-fax.tif": (saved(RGB.convert("1"), compression="group4"), "1", (56, 40)),
    "float.tif": (saved(Image.fromarray(photo()[:, :, 0].astype(np.float32) / 255)), "F", (56, 40)),
    "float-wide.tif": (saved(Image.fromarray(photo()[:, :, 0].astype(np.float32) * 1e4 - 5e5)), "F", (56, 40)),
    "int-32.tif": (saved(Image.fromarray(photo()[:, :, 0].astype(np.int32) * 100_000 - 5)), "I", (56, 40)),
    "rgb.bmp": (saved(RGB), "RGB", (56, 40)),
    "bilevel.bmp": (saved(RGB.convert("1")), "1", (56, 40)),
    "rgb.webp": (saved(RGB, lossless=True), "RGB", (56, 40)),
    "rgba.webp": (saved(RGBA, lossless=True), "RGBA", (56, 40)),
    "rgb.ppm": (saved(RGB), "RGB", (56, 40)),
    "rgb.jp2": (saved(RGB), "RGB", (56, 40)),
    "rgb.avif": (saved(RGB), "RGB", (56, 40)),
    "still.gif": (saved(RGB.quantize(16)), "RGB", (56, 40)),
    "one-pixel.png": (saved(RGB.resize((1, 1))), "RGB", (4, 4)),
    "one-row.png": (saved(RGB.resize((90, 1))), "RGB", (360, 4)),
    "one-column.png": (saved(RGB.resize((1, 90))), "RGB", (4, 360)),
    "odd.png": (saved(RGB.resize((7, 13))), "RGB", (28, 52)),
    "black.png": (saved(Image.new("RGB", (5, 5))), "RGB", (20, 20)),
    "a name with späces.PNG": (saved(RGB), "RGB", (56, 40)),
    "really-a-png.jpg": (written(in_memory(RGB, "PNG")), "RGB", (56, 40)),
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_file(name: str, tmp_path: Path, upscaler: Upscaler) -> None:
    write, mode, size = SOUND[name]
    (tmp_path / "out").mkdir()
    write(tmp_path / name)
    written_to = upscale_file(tmp_path / name, tmp_path / "out", upscaler)
    before, (after,) = next(read_pictures(tmp_path / name)), read_pictures(written_to)
    assert after.pixels.shape[1::-1] == size
    as_stored = {"still.gif": "RGB", "ycbcr.tif": "RGB"}.get(name, mode)  # how Pillow opens what it wrote
    assert before.mode == mode or name == "ycbcr.tif"
    assert after.mode in (as_stored, mode)
    # averaged back by 4, the enlarged picture is the one that came in
    if before.mode not in ("1", "I", "F") and name not in ("all-hidden.png", "rgb.avif"):
        peak = np.iinfo(before.pixels.dtype).max
        blocks = after.pixels.reshape(before.pixels.shape[0], 4, before.pixels.shape[1], 4, -1).mean((1, 3))
        visible = before.pixels[:, :, -1:] > 0 if before.mode in ("RGBA", "LA", "RGBA;16") else True
        assert (np.abs(blocks - before.pixels) * visible).mean() / peak < 0.03


ANIMATED = {
    "moving.gif": animation(),
    "moving-transparent.gif": animation("RGBA", disposal=2),
    "moving.png": animation("RGBA"),
    "moving.webp": animation("RGBA", lossless=True),
    "pages.tif": animation("L"),
}


@pytest.mark.parametrize("name", ANIMATED)
def test_every_frame_is_enlarged(name: str, tmp_path: Path, upscaler: Upscaler) -> None:
    ANIMATED[name](tmp_path / name)
    upscale_file(tmp_path / name, tmp_path / f"out{Path(name).suffix}", upscaler)
    with Image.open(tmp_path / f"out{Path(name).suffix}") as image:
        assert image.n_frames == 3 and image.size == (56, 40)
        if not name.startswith("pages"):
            durations = []
            for frame in range(3):
                image.seek(frame)
                image.load()
                durations.append(int(image.info["duration"]))
            assert durations == [60, 80, 100]
    with pytest.raises(UserError, match="several frames"):
        upscale(tmp_path / name, tiny())


def huge_png() -> bytes:
    "A PNG whose head claims 60000 x 60000 pixels."
    content = bytearray(in_memory(RGB, "PNG"))
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    import zlib
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


PNG, JPEG = in_memory(RGB, "PNG"), in_memory(RGB, "JPEG")

# name of the file, what writes it, name of the output, a part of the one line that says what is wrong
BROKEN = {
    "missing.png": (lambda path: None, "out.png", "No such file"),
    "empty.png": (written(b""), "out.png", "empty"),
    "text.png": (written(b"not a picture at all"), "out.png", "not a picture"),
    "page.jpg": (written(b"<html>not found</html>"), "out.jpg", "not a picture"),
    "drawing.svg": (written(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "out.png", "not a picture"),
    "paper.pdf": (written(b"%PDF-1.4\n"), "out.png", "not a picture"),
    "archive.png": (written(b"PK\3\4" + bytes(100)), "out.png", "not a picture"),
    "head-only.png": (written(PNG[:33]), "out.png", "not a picture|damaged|truncated"),
    "cut.png": (written(PNG[:-40]), "out.png", "damaged|truncated"),
    "cut.jpg": (written(JPEG[:-len(JPEG) // 3]), "out.jpg", "damaged|truncated"),
    "flipped.png": (written(PNG[:60] + bytes([PNG[60] ^ 255]) + PNG[61:]), "out.png", "damaged|truncated"),
    "huge.png": (written(huge_png()), "out.png", "too many pixels"),
    "folder.png": (lambda path: path.mkdir(), "out.png", "directory|folder"),
    "cut.gif": (lambda path: (animation()(path), path.write_bytes(path.read_bytes()[:-60])), "out.gif",
                "damaged|truncated"),
    "not-a-number.tif": (saved(Image.fromarray(np.full((4, 4), np.nan, np.float32))), "out.tif", "not numbers"),
    "infinite.tif": (saved(Image.fromarray(np.array([[0, np.inf]], np.float32))), "out.tif", "not numbers"),
    "clear.png": (saved(RGBA), "out.jpg", "JPEG can't hold.*transparency"),
    "deep-grey.png": (saved(Image.fromarray(GREY16)), "out.jpg", "can't hold.*16 bits"),
    "deep-grey-2.png": (saved(Image.fromarray(GREY16)), "out.webp", "can't hold.*16 bits"),
    "deep-colour.png": (deep(3), "out.jpg", "can't hold.*16 bits"),
    "ink.jpg": (saved(RGB.convert("CMYK")), "out.png", "can't hold"),
    "ink.tif": (saved(RGB.convert("CMYK")), "out.webp", "can't hold"),
    "float.tif": (saved(Image.fromarray(np.zeros((3, 3), np.float32))), "out.png", "can't hold"),
    "moving.gif": (animation(), "out.jpg", "frames"),
    "long.png": (saved(RGB.resize((5000, 1))), "out.webp", "too many for WEBP"),
    "long-2.png": (saved(RGB.resize((17_000, 1))), "out.jpg", "too many for JPEG"),
    "picture.png": (saved(RGB), "out.xyz", "no picture format"),
    "picture-2.png": (saved(RGB), "out", "no picture format"),
    "picture-3.png": (saved(RGB), "nowhere/out.png", "no such folder"),
    "icon.png": (saved(RGB.resize((100, 100))), "out.ico", "too many for ICO"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_or_impossible_is_refused_in_one_line(name: str, tmp_path: Path, upscaler: Upscaler) -> None:
    write, target, reason = BROKEN[name]
    write(tmp_path / name)
    with pytest.raises(UserError, match=f"(?i){reason}") as raised:
        upscale_file(tmp_path / name, tmp_path / target, upscaler)
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] in ([name], [])  # nothing was begun


def test_sixteen_bit_kinds_that_would_be_cut_are_refused(tmp_path: Path, upscaler: Upscaler) -> None:
    import struct
    import zlib

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", 2, 2, 16, 4, 0, 0, 0)  # grey and alpha, 16 bits
    body = zlib.compress((b"\0" + bytes(range(8))) * 2)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    (tmp_path / "deep.png").write_bytes(png)
    with pytest.raises(UserError, match="16-bit LA would lose half its bits"):
        upscale_file(tmp_path / "deep.png", tmp_path / "out.png", upscaler)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bit_colour_is_read_and_written_whole(suffix: str, channels: int, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (9, 11, channels)).astype(np.uint16)
    picture = Picture(values, "RGB;16" if channels == 3 else "RGBA;16", {"icc_profile": PROFILE})
    write_pictures([picture], tmp_path / f"deep{suffix}")
    (back,) = read_pictures(tmp_path / f"deep{suffix}")
    assert np.array_equal(back.pixels, values) and back.info["icc_profile"] == PROFILE
    with Image.open(tmp_path / f"deep{suffix}") as image:  # other programs read it too
        assert np.abs(np.asarray(image).astype(int) - values / 257).max() < 1.5
    with pytest.raises(UserError, match="16-bit colour"):
        upscale(tmp_path / f"deep{suffix}", tiny())


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_metadata_goes_along(suffix: str, tmp_path: Path, upscaler: Upscaler) -> None:
    exif = Image.Exif()
    exif[274], exif[271], exif[33432] = 6, "A camera", "Somebody"
    exif.get_ifd(0x8769).update({33434: 0.01, 40962: 14, 40963: 10, 36867: "2024:05:01 10:00:00"})
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 30.0, 0.0)})
    RGB.save(tmp_path / f"in{suffix}", exif=exif.tobytes(), icc_profile=PROFILE, dpi=(300, 300))
    upscale_file(tmp_path / f"in{suffix}", tmp_path / f"out{suffix}", upscaler)
    with Image.open(tmp_path / f"out{suffix}") as image:
        image.load()
        kept = image.getexif()
        assert image.size == (40, 56) and kept.get(274, 1) == 1
        assert kept[271] == "A camera" and kept[33432] == "Somebody"
        assert kept.get_ifd(0x8769)[36867] == "2024:05:01 10:00:00"
        assert (kept.get_ifd(0x8769)[40962], kept.get_ifd(0x8769)[40963]) == (40, 56)
        assert kept.get_ifd(0x8825)[1] == "N"
        assert image.info["icc_profile"] == PROFILE
        if suffix != ".webp":
            assert round(float(image.info["dpi"][0])) == 300
    if suffix != ".tif":
        enlarged = upscaler(Image.open(tmp_path / f"in{suffix}"))  # a PIL picture is taken as it is, not turned
        assert enlarged.size == (56, 40) and enlarged.getexif()[271] == "A camera"


def test_png_texts_go_along(tmp_path: Path, upscaler: Upscaler) -> None:
    texts = PngInfo()
    texts.add_itxt("Title", "Blå")
    RGB.save(tmp_path / "in.png", pnginfo=texts)
    with Image.open(upscale_file(tmp_path / "in.png", tmp_path / "out.png", upscaler)) as image:
        assert image.text["Title"] == "Blå"


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_exif_does_not_stop(tmp_path: Path, upscaler: Upscaler) -> None:
    RGB.save(tmp_path / "in.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(20))
    with Image.open(upscale_file(tmp_path / "in.jpg", tmp_path / "out.jpg", upscaler)) as image:
        assert image.size == (56, 40)


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


def test_wide_ranges_keep_their_ends(upscaler: Upscaler) -> None:
    heights = np.linspace(-400, 8800, 144, dtype=np.float32).reshape(12, 12)  # a map, in metres
    enlarged = np.asarray(upscaler(Image.fromarray(heights)))
    blocks = enlarged.reshape(12, 4, 12, 4).mean((1, 3))
    assert enlarged.dtype == np.float32 and np.abs(blocks - heights)[1:-1, 1:-1].max() < 0.02 * 9200
    assert (np.asarray(upscaler(Image.fromarray(np.full((3, 3), 7e6, np.float32)))) == 7e6).all()


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


def test_memory_limit_is_kept(tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("memory is read from /proc")
    script = ROOT / "tests" / "benchmarks" / "upscaling.py"
    words = [sys.executable, script, "memory", "--preset", "lite", "--size", "500", "400", "--limit", "150MB",
             "--no-whole"]
    output = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    peak = float(re.search(r"peak (\d+) MB above", output)[1])
    assert 30 < peak < 150, output  # the picture and what it becomes take 11 MB


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
    stamp = (tmp_path / "in/out/a.png").stat().st_mtime_ns
    again = upscale_folder(tmp_path / "in", tmp_path / "in" / "out", upscaler, progress=False)
    assert len(again.kept) == 3 and not again.done and (tmp_path / "in/out/a.png").stat().st_mtime_ns == stamp
    forced = upscale_folder(tmp_path / "in", tmp_path / "in" / "out", upscaler, force=True, progress=False)
    assert len(forced.done) == 3 and (tmp_path / "in/out/a.png").stat().st_mtime_ns != stamp


def test_folder_in_another_format(tmp_path: Path, upscaler: Upscaler) -> None:
    (tmp_path / "in").mkdir()
    for name in ("one.jpg", "one.bmp", "two.webp"):
        RGB.save(tmp_path / "in" / name)
    report = upscale_folder(tmp_path / "in", tmp_path / "out", upscaler, file_format="png", progress=False)
    assert sorted(path.name for path in report.done) == ["one.png", "two.png"]
    assert "same file as" in report.failed[tmp_path / "in" / "one.jpg"]  # one.bmp came first


def test_folder_that_is_none(tmp_path: Path, upscaler: Upscaler) -> None:
    for folder, reason in ((tmp_path / "nowhere", "no such folder"), (tmp_path, "no pictures")):
        with pytest.raises(UserError, match=reason):
            upscale_folder(folder, tmp_path / "out", upscaler)


def test_nothing_is_overwritten_unasked(tmp_path: Path, upscaler: Upscaler) -> None:
    RGB.save(tmp_path / "in.png")
    (tmp_path / "out.png").write_bytes(b"precious")
    with pytest.raises(UserError, match="exists"):
        upscale_file(tmp_path / "in.png", tmp_path / "out.png", upscaler)
    assert (tmp_path / "out.png").read_bytes() == b"precious"
    upscale_file(tmp_path / "in.png", tmp_path / "in.png", upscaler, force=True)  # onto itself, when told
    with Image.open(tmp_path / "in.png") as image:
        assert image.size == (56, 40)


def test_full_disk_is_one_line(tmp_path: Path, upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch) -> None:
    RGB.save(tmp_path / "in.png")

    def full(self, *arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    monkeypatch.setattr("srgan_nb.folders.check_writable", lambda *arguments: None)
    monkeypatch.setattr("srgan_nb.picture_files.check_writable", lambda *arguments: None)
    with pytest.raises(UserError, match="No space left"):
        upscale_file(tmp_path / "in.png", tmp_path / "out.png", upscaler)
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]


def enlarge_by_bicubic(source: Path, target: Path) -> None:
    upscale_folder(source, target, Upscaler("bicubic", device="cpu"), force=True, progress=False)


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


def test_widget_begins_with_a_picture() -> None:
    pytest.importorskip("ipywidgets")
    shown = [Image.open(io.BytesIO(upscale_widget(tiny(), picture).children[3].value))
             for picture in (Image.open(io.BytesIO(PNG)), demo_photo("chelsea"))]
    assert [picture.size for picture in shown] == [(56, 40), (800, 600)]

