"""Packs: a corpus of odd and broken files, kills, races, full disks, and pixels that must be exact."""
import io
import itertools
import json
import os
import pickle
import random
import re
import socket
import struct
import sys
import threading
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srgan_nb import packs
from srgan_nb.errors import UserError
from srgan_nb.images import demo_photo, open_image, to_rgb
from srgan_nb.packs import Pack, make_pair, pack_photos
from tests.support.kills import killed_at_change
from tests.support.opens import watched_opens
from tests.support.processes import context

SHARED = Path(os.environ.get("SRGAN_NB_SHARED", ""))
needs_benchmarks = pytest.mark.skipif(not (SHARED / "data/benchmarks").is_dir(),
                                      reason="the benchmark pictures are not on this machine")


def picture(width: int = 128, height: int = 100, seed: int = 0) -> Image.Image:
    """A smooth picture with an edge and some noise."""
    rows, columns = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(seed).integers(0, 20, (height, width))
    layers = rows * 2 + noise, columns + noise, np.where(columns > rows, 200, 40) + noise
    return Image.fromarray(np.stack(layers, axis=2).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_png(width: int, height: int, bits: int, colour: int, data: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(data))
            + png_chunk(b"IEND", b""))


def turned_by_exif(orientation: int, kind: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture(), kind, exif=exif)


PNG, JPEG = encoded(picture(), "PNG"), encoded(picture(), "JPEG", quality=90)
WEBP, TIFF, BMP = (encoded(picture(), kind) for kind in ("WEBP", "TIFF", "BMP"))
SIXTEEN = (np.arange(100 * 128, dtype=np.uint32).reshape(100, 128) * 5 % 65536).astype(np.uint16)
FRAMES = {"save_all": True, "append_images": [picture(seed=1)]}
with_alpha = picture().copy()
with_alpha.putalpha(Image.linear_gradient("L").resize((128, 100)))

PACKED = {  # name: (bytes, size in the pack, scale 4)
    "a.png": (PNG, (128, 100)),
    "a.jpg": (JPEG, (128, 100)),
    "a.webp": (WEBP, (128, 100)),
    "lossless.webp": (encoded(picture(), "WEBP", lossless=True), (128, 100)),
    "a.tif": (TIFF, (128, 100)),
    "deflated.tiff": (encoded(picture(), "TIFF", compression="tiff_deflate"), (128, 100)),
    "a.bmp": (BMP, (128, 100)),
    "progressive.jpeg": (encoded(picture(), "JPEG", progressive=True), (128, 100)),
    "444.jpg": (encoded(picture(), "JPEG", subsampling=0), (128, 100)),
    "SHOUTING.JPG": (JPEG, (128, 100)),
    "grey.png": (encoded(picture().convert("L"), "PNG"), (128, 100)),
    "grey.jpg": (encoded(picture().convert("L"), "JPEG"), (128, 100)),
    "bilevel.png": (encoded(picture().convert("1"), "PNG"), (128, 100)),
    "bilevel.tif": (encoded(picture().convert("1"), "TIFF", compression="group4"), (128, 100)),
    "palette.png": (encoded(picture().quantize(64), "PNG"), (128, 100)),
    "palette transparent.png": (encoded(picture().quantize(64), "PNG", transparency=3), (128, 100)),
    "palette.bmp": (encoded(picture().quantize(64), "BMP"), (128, 100)),
    "alpha.png": (encoded(with_alpha, "PNG"), (128, 100)),
    "alpha.webp": (encoded(with_alpha, "WEBP"), (128, 100)),
    "grey alpha.png": (encoded(with_alpha.convert("LA"), "PNG"), (128, 100)),
    "colour key.png": (encoded(picture(), "PNG", transparency=(0, 0, 0)), (128, 100)),
    "cmyk.jpg": (encoded(picture().convert("CMYK"), "JPEG"), (128, 100)),
    "cmyk.tif": (encoded(picture().convert("CMYK"), "TIFF"), (128, 100)),
    "ycbcr.tif": (encoded(picture().convert("YCbCr"), "TIFF"), (128, 100)),
    "16 bit grey.png": (encoded(Image.fromarray(SIXTEEN), "PNG"), (128, 100)),
    "16 bit grey.tif": (encoded(Image.fromarray(SIXTEEN), "TIFF"), (128, 100)),
    "16 bit colour.png": (raw_png(128, 100, 16, 2, b"".join(b"\0" + bytes(128 * 6) for _ in range(100))), (128, 100)),
    "two frames.tif": (encoded(picture(), "TIFF", **FRAMES), (128, 100)),
    "animated.webp": (encoded(picture(), "WEBP", **FRAMES), (128, 100)),
    "animated.png": (encoded(picture(), "PNG", **FRAMES), (128, 100)),
    "colour profile.jpg": (encoded(picture(), "JPEG", icc_profile=b"not a profile" * 20), (128, 100)),
    "broken exif.jpg": (encoded(picture(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"), (128, 100)),
    "trailing rubbish.jpg": (JPEG + b"rubbish" * 1000, (128, 100)),
    "trailing rubbish.png": (PNG + b"rubbish" * 1000, (128, 100)),
    "png called jpg.jpg": (PNG, (128, 100)),
    "webp called png.png": (WEBP, (128, 100)),
    "photo called txt.txt": (JPEG, (128, 100)),
    "no suffix": (PNG, (128, 100)),
    ".hidden.png": (PNG, (128, 100)),
    "Größe 漢字 🐈.png": (PNG, (128, 100)),
    "deep/er/and/deeper.png": (PNG, (128, 100)),
    "folder.png/inside.png": (PNG, (128, 100)),
    "just 96.png": (encoded(picture(96, 96), "PNG"), (96, 96)),
    "trimmed.png": (encoded(picture(131, 99), "PNG"), (128, 96)),
    "long.png": (encoded(picture(2000, 96), "PNG"), (2000, 96)),
    **{f"exif {turn}.jpg": (turned_by_exif(turn), (128, 100) if turn < 5 else (100, 128)) for turn in range(1, 9)},
    "exif 6.png": (turned_by_exif(6, "PNG"), (100, 128)),
    "exif 9.jpg": (turned_by_exif(9), (128, 100)),
}
NOT = "not a PNG, JPEG, WebP, TIFF or BMP picture"
SKIPPED = {  # name: (bytes, part of the reason)
    "empty.png": (b"", "empty file"),
    "empty.jpg": (b"", "empty file"),
    "text.png": (b"this is a text\n" * 50, NOT),
    "page.jpg": (b"<!DOCTYPE html><html>404</html>", NOT),
    "Thumbs.db": (b"\xd0\xcf\x11\xe0" + bytes(500), NOT),
    ".DS_Store": (b"\0\0\0\1Bud1" + bytes(500), NOT),
    "._a.png": (b"\0\5\26\7" + bytes(500), NOT),
    "labels.json": (b'{"cat": 1}', NOT),
    "drawing.svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', NOT),
    "paper.pdf": (encoded(picture(), "PDF"), NOT),
    "post.eps": (encoded(picture(), "EPS"), NOT),  # Pillow would start ghostscript for it
    "moving.gif": (encoded(picture(), "GIF"), NOT),
    "icon.ico": (encoded(picture(), "ICO"), NOT),
    "array.npy": (b"\x93NUMPY" + bytes(500), NOT),
    "noise.png": (random.Random(0).randbytes(5000), NOT),
    "signature only.png": (PNG[:8], ""),
    "start only.jpg": (b"\xff\xd8\xff\xe0", ""),
    "header only.png": (PNG[:33], ""),
    "half.png": (PNG[:len(PNG) // 2], "damaged or truncated"),
    "almost.png": (PNG[:-200], "damaged or truncated"),
    "half.jpg": (JPEG[:len(JPEG) // 2], "damaged or truncated"),
    "half.webp": (WEBP[:len(WEBP) // 2], ""),
    "half.tif": (TIFF[:len(TIFF) // 2], ""),
    "half.bmp": (BMP[:len(BMP) // 2], "damaged or truncated"),
    "flipped bit.png": (PNG[:3000] + bytes([PNG[3000] ^ 1]) + PNG[3001:], "damaged or truncated"),
    "no pixels.png": (PNG[:33] + png_chunk(b"IEND", b""), "damaged or truncated"),
    "too few pixels.png": (raw_png(128, 100, 8, 2, bytes(1000)), "damaged or truncated"),
    "width 0.png": (raw_png(0, 100, 8, 2, b""), ""),
    "bomb.png": (raw_png(60_000, 60_000, 8, 0, b""), "pixel"),
    "float.tif": (encoded(Image.fromarray(np.ones((100, 128), np.float32)), "TIFF"), ""),
    "32 bit.tif": (encoded(Image.fromarray(np.full((100, 128), 10**6, np.int32)), "TIFF"), ""),
    "one pixel.png": (encoded(picture(1, 1), "PNG"), "too small: 1x1, needs 96x96"),
    "95 wide.png": (encoded(picture(95, 300), "PNG"), "too small: 95x300, needs 96x96"),
    "95 high.jpg": (encoded(picture(300, 95), "JPEG"), "too small: 300x95, needs 96x96"),
}


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def pack(folder: Path, **options) -> Pack:
    return pack_photos(folder, cache=folder.parent / "packs", progress=False, **options)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The odd folder: files, links, a pipe and a socket; and the pack of it."""
    folder = fill(tmp_path_factory.mktemp("corpus") / "odd", {
        name: data for name, (data, _) in (PACKED | SKIPPED).items()})
    (folder / "link to photo.png").symlink_to(folder / "a.png")
    (folder / "link to nothing.png").symlink_to(folder / "nothing.png")
    (folder / "link to myself.png").symlink_to(folder / "link to myself.png")
    (folder / "deep/back up").symlink_to(folder)
    if os.name != "nt":
        os.mkfifo(folder / "pipe.png")
        with pytest.MonkeyPatch.context() as patch, socket.socket(socket.AF_UNIX) as listener:
            patch.chdir(folder)  # a socket's path may have 107 characters
            listener.bind("socket.png")
    if sys.platform == "linux":
        with suppress(OSError):  # file systems that take UTF-8 alone
            Path(os.fsdecode(bytes(folder) + b"/name \xff\xfe.png")).write_bytes(PNG)
    return pack(folder)


@pytest.mark.parametrize("name", PACKED)
def test_odd_files_that_are_packed(corpus, name):
    i, (_, (width, height)) = corpus.names.index(name), PACKED[name]
    assert corpus.hr(i).shape == (height, width, 3)
    assert corpus.lr(i).shape == (height // 4, width // 4, 3)
    expected = np.asarray(to_rgb(open_image(corpus_folder(corpus) / name)))
    assert np.array_equal(corpus.hr(i), expected[:height, :width])


def corpus_folder(corpus: Pack) -> Path:
    return corpus.folder.parent.parent / "odd"


@pytest.mark.parametrize("name", SKIPPED)
def test_broken_files_that_are_skipped_with_the_reason(corpus, name):
    assert name not in corpus.names
    reason = dict(corpus.skipped)[name]
    assert reason and SKIPPED[name][1] in reason
    assert "/" not in reason, "a reason repeats no path"


def test_links_pipes_and_strange_names(corpus):
    reasons = dict(corpus.skipped)
    assert "link to photo.png" in corpus.names
    assert reasons["link to nothing.png"] == "a link to nothing"
    assert "link to myself.png" in reasons
    if os.name != "nt":
        assert reasons["pipe.png"] == reasons["socket.png"] == "not an ordinary file"
    assert not any("back up" in name for name in corpus.names)
    if Path(os.fsdecode(bytes(corpus_folder(corpus)) + b"/name \xff\xfe.png")).exists():
        assert "name \\xff\\xfe.png" in corpus.names
    repr(corpus).encode()  # every name can be printed


def test_no_file_is_silently_gone(corpus):
    folder = corpus_folder(corpus)
    files = {os.fsencode(path.relative_to(folder)).decode(errors="backslashreplace") for path in folder.rglob("*")
             if path.is_symlink() and path.name != "back up" or not path.is_dir() and "back up" not in path.parts}
    assert files == set(corpus.names) | set(dict(corpus.skipped))
    assert repr(corpus).startswith(f"{len(corpus)} photos, {len(corpus.skipped)} skipped: ")


def test_pictures_are_upright(corpus):
    upright = corpus.hr(corpus.names.index("exif 1.jpg")).astype(int)
    turned = corpus.hr(corpus.names.index("exif 6.jpg")).astype(int)
    assert abs(np.rot90(upright, 3) - turned).mean() < 3  # JPEG's blocks lie otherwise


def test_only_damaged_files_is_an_error_that_says_what_was_looked_for(tmp_path):
    fill(tmp_path / "bad", {"a.png": PNG[:1000], "b.txt": b"text", "c.png": encoded(picture(50, 50), "PNG")})
    with pytest.raises(UserError, match="looked for PNG, JPEG, WebP, TIFF and BMP .*among 3 files.*a.png: damaged"):
        pack(tmp_path / "bad")
    assert not [path for path in (tmp_path / "packs").iterdir() if path.is_dir()]


@pytest.mark.parametrize("make, message", [
    (lambda folder: folder.mkdir(), "among 0 files"), (lambda folder: None, "no such file or folder"),
    (lambda folder: folder.write_bytes(b"text"), "not a PNG"),
    (lambda folder: fill(folder, {"a.png": encoded(picture(50, 50), "PNG")}), "a.png: too small: 50x50")])
def test_nothing_there_is_said_with_the_folder_s_name(tmp_path, make, message):
    make(tmp_path / "folder")
    with pytest.raises(UserError, match=f"^{re.escape(str(tmp_path))}.*{message}"):
        pack(tmp_path / "folder")


def test_names_come_from_a_folder_a_file_or_a_list(tmp_path):
    fill(tmp_path, {"one/a.png": PNG, "two/b.png": PNG, "two/c.png": PNG})
    options = {"cache": tmp_path / "packs", "progress": False}
    assert pack_photos(tmp_path / "two", **options).names == ["b.png", "c.png"]
    assert pack_photos(tmp_path / "two/b.png", **options).names == ["b.png"]
    assert pack_photos([tmp_path / "two", tmp_path / "one/a.png"], **options).names == [
        "one/a.png", "two/b.png", "two/c.png"]
    with pytest.raises(UserError):
        pack_photos([], **options)


@pytest.mark.parametrize("high, low", [("HR", "LRx4"), ("HR_jpeg", "LR"), ("HR", "LR_bicubic"),
                                       ("DIV2K_train_HR", "DIV2K_train_LR_bicubic")])
def test_lr_pictures_beside_hr_ones_are_not_learned_from(tmp_path, high, low):
    fill(tmp_path / "sets", {f"Set5/{high}/a.png": PNG, f"Set5/{low}/X4/a.png": PNG})
    named_as_pairs = not high.startswith("DIV2K")  # in a folder that is given itself these are pairs to learn from
    for folder in (tmp_path / "sets", tmp_path / "sets/Set5")[:1 if named_as_pairs else 2]:
        with pytest.raises(UserError, match=rf"LR pictures \({low}\) .*give only .*{high}, and"):
            pack(folder)
    assert pack(tmp_path / f"sets/Set5/{high}").names == ["a.png"]
    fill(tmp_path / "named", {"HRH/a.png": PNG, "LRose/a.png": PNG})
    assert len(pack(tmp_path / "named")) == 2


@pytest.mark.parametrize("name", ["照" * 80, "🐈" * 60, "long " * 50 + "end"])
def test_a_folder_s_name_may_be_as_long_as_the_system_allows(tmp_path, name):
    fill(tmp_path / name, {"照" * 80 + ".png": PNG})
    one = pack(tmp_path / name)
    assert one.names == ["照" * 80 + ".png"] and pack(tmp_path / name).folder == one.folder


# Pixels ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("scale, size", [(2, (130, 98)), (4, (128, 96)), (8, (128, 96))])
def test_scales(tmp_path, scale, size):
    fill(tmp_path / "in", {"a.png": encoded(picture(131, 99), "PNG")})
    one = pack(tmp_path / "in", scale=scale)
    assert one.hr(0).shape == (*size[::-1], 3) and one.lr(0).shape == (size[1] // scale, size[0] // scale, 3)


def pairs(folder, scale=4, **sizes):
    "HR and LR pictures of noise below a folder, name -> (HR size, LR size); what is None is not there."
    draws = np.random.default_rng(0)
    for name, both in sizes.items():
        for kind, ending, size in zip(("HR", "LR"), ("", f"x{scale}"), both, strict=True):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            if size is not None:
                Image.fromarray(draws.integers(0, 255, (*size[::-1], 3), np.uint8)).save(folder / kind / f"{name}{ending}.png")


def test_lrs_of_one_s_own_are_packed_as_they_are(tmp_path):
    pairs(tmp_path / "mine", a=((100, 120), (25, 30)), b=((103, 99), (25, 24)))
    packed = pack(tmp_path / "mine")
    assert packed.names == ["a.png", "b.png"] and [packed.hr(i).shape for i in (0, 1)] == [(120, 100, 3), (96, 100, 3)]
    for index, name in enumerate("ab"):
        assert np.array_equal(packed.lr(index), np.asarray(Image.open(tmp_path / f"mine/LR/{name}x4.png")))
        hr = np.asarray(Image.open(tmp_path / f"mine/HR/{name}.png"))
        assert np.array_equal(packed.hr(index), hr[:packed.hr(index).shape[0], :100])
    assert packed.hash != pack(tmp_path / "mine/HR").hash
    before = packed.hash
    Image.new("RGB", (25, 24)).save(tmp_path / "mine/LR/bx4.png")
    again = pack(tmp_path / "mine")
    assert again.hash != before and not again.lr(1).any()


@pytest.mark.parametrize("kind", [str, Path])
def test_lrs_beside_hrs_that_lie_in_the_folder_itself_are_not_taken_for_photographs(kind, tmp_path, monkeypatch):
    fill(tmp_path / "mine", {"a.png": PNG, "LR/a.png": PNG})
    with pytest.raises(UserError, match="1 pair of other sizes than 1 to 4: a.png is 128x100 and its LR 128x100"):
        pack_photos(kind(tmp_path / "mine"), cache=tmp_path / "packs", progress=False)
    for name, size in (("a.png", (512, 400)), ("LR/a.png", (128, 100))):
        Image.new("RGB", size).save(tmp_path / "mine" / name)
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path / "mine", "mine"):
        assert pack_photos(kind(folder), cache=tmp_path / "packs", progress=False).names == ["a.png"]


@pytest.mark.parametrize("sizes, told", [
    ({"a": ((100, 100), (25, 25)), "b": ((100, 100), None)}, "1 HR picture without an LR of the same name: b.png"),
    ({"a": ((100, 100), (26, 25)), "b": ((100, 100), (25, 25))}, "1 pair of other sizes than 1 to 4: a.png is 100x100"),
    ({"a": ((100, 104), (25, 25))}, "pair .* a.png is 100x104 and its LR 25x25"),
])
def test_pairs_that_are_none_are_named_before_any_work(sizes, told, tmp_path):
    pairs(tmp_path / "mine", **sizes)
    with pytest.raises(UserError, match=told):
        pack(tmp_path / "mine")


@pytest.mark.parametrize("lr_size, packed", [((24, 40), ["a.png", "b.jpg"]), ((40, 24), ["a.png"])])
def test_pairs_are_compared_upright(lr_size, packed, tmp_path):
    pairs(tmp_path, a=((160, 96), (40, 24)), b=(None, lr_size))
    turned = Image.Exif()
    turned[0x0112] = 6  # upright this one is 96 wide and 160 high
    Image.new("RGB", (160, 96)).save(tmp_path / "HR/b.jpg", exif=turned)
    both = pack(tmp_path)
    assert both.names == packed and [both.lr(i).shape for i in range(len(both))] == [(24, 40, 3), (40, 24, 3)][:len(packed)]
    if len(packed) == 1:  # an LR that was made without a look at EXIF
        assert both.skipped == [("b.jpg", "HR is 96x160 and LR 40x24: not 4 times")]


def test_degraded_pairs_are_the_same_for_a_seed_and_worse_the_more_is_asked(tmp_path):
    picture = Image.open(demo_photo("chelsea")).convert("RGB").crop((100, 20, 230, 150))
    (tmp_path / "photos/deep").mkdir(parents=True)
    picture.save(tmp_path / "photos/deep/a.jpg")

    def made(name, **options):
        packed = pack(packs.degrade_photos(tmp_path / "photos", tmp_path / name, **options))
        assert packed.names == ["deep/a.png"] and packed.hr(0).shape == (128, 128, 3) and packed.lr(0).shape == (32, 32, 3)
        return packed.lr(0).astype(float)

    clean = pack(tmp_path / "photos").lr(0).astype(float)
    nothing = dict(blur=(0.01, 0.01), noise=(0.0, 0.0), jpeg=(100, 100))
    error = {name: np.abs(made(name, **nothing | options) - clean).mean() for name, options in {
        "nothing": {}, "blur": {"blur": (3.0, 3.0)}, "noise": {"noise": (20.0, 20.0)}, "jpeg": {"jpeg": (10, 10)}}.items()}
    assert error["nothing"] < 2 and all(error[name] > 2 * error["nothing"] for name in ("blur", "noise", "jpeg"))
    assert np.array_equal(made("one"), made("two")) and not np.array_equal(made("three", seed=1), made("four"))
    with pytest.raises(UserError, match="name a new folder"):
        packs.degrade_photos(tmp_path / "photos", tmp_path / "one")


@needs_benchmarks
@pytest.mark.parametrize("name, hr, count", [("Set5", "HR", 5), ("Set14", "HR", 14), ("BSD100", "HR_jpeg", 100)])
def test_every_low_resolution_picture_of_the_benchmarks_bit_for_bit(name, hr, count):
    folder, equal = SHARED / "data/benchmarks" / name, 0
    for path in sorted((folder / hr).iterdir()):
        given = np.asarray(to_rgb(open_image(folder / "LRx4" / f"{path.stem}.png")))
        equal += np.array_equal(make_pair(path, 4)[0], given)
    assert equal == count


# Content ---------------------------------------------------------------------------------------------------------

@pytest.fixture
def photos(tmp_path):
    return fill(tmp_path / "photos", {f"{k}.png": encoded(picture(seed=k), "PNG") for k in range(4)})


def test_a_pack_belongs_to_the_content(photos, tmp_path):
    first = pack(photos)
    assert pack(photos).folder == first.folder
    fill(tmp_path / "elsewhere", {path.name: path.read_bytes() for path in photos.iterdir()})
    assert pack(tmp_path / "elsewhere").hash == first.hash
    folders, hashes = {first.folder}, {first.hash}
    (photos / "3.png").write_bytes(encoded(picture(seed=9), "PNG"))          # changed
    (photos / "4.png").write_bytes(PNG)                                      # then added
    for change in (lambda: None, lambda: (photos / "4.png").rename(photos / "5.png"), (photos / "0.png").unlink):
        change()
        folders.add(pack(photos).folder)
        hashes.add(pack(photos).hash)
    assert len(folders) == len(hashes) == 4
    assert pack(photos, scale=2).hash not in hashes


def test_files_that_are_no_photos_do_not_change_the_pack_but_are_listed(photos):
    first = pack(photos)
    (photos / "notes.txt").write_text("hello")
    again = pack(photos)
    assert again.folder == first.folder and again.hash == first.hash
    assert again.skipped == [("notes.txt", NOT)]


def test_unchanged_files_are_not_read_again_and_disguised_changes_are_noticed(photos, monkeypatch):
    later = time.time_ns() + 10**10  # as if ten seconds had passed
    monkeypatch.setattr(packs.time, "time_ns", lambda: later)
    first, read = pack(photos), set()
    with watched_opens(lambda path, to_write: read.add(path.name) if path.parent == photos else None):
        pack(photos)
        assert read == set()
    before = (photos / "1.png").stat()
    data = bytearray((photos / "1.png").read_bytes())
    data[-1] ^= 1                                                            # same size ...
    (photos / "1.png").write_bytes(bytes(data))
    os.utime(photos / "1.png", ns=(before.st_atime_ns, before.st_mtime_ns))  # ... and the old date
    assert pack(photos).hash != first.hash


def test_a_file_that_changes_while_it_is_packed_is_an_error(photos):
    def change(path, to_write):
        if path.name == "hr.bin" and to_write:  # all files were read, none is decoded yet
            (photos / "2.png").write_bytes(PNG)

    with watched_opens(change), pytest.raises(UserError, match="changed while it was being packed"):
        pack(photos)


def test_split_and_hash(photos):
    one = pack(photos)
    training, validation = one.split(1)
    assert training.names == ["0.png", "1.png", "2.png"] and validation.names == ["3.png"]
    assert np.array_equal(validation.hr(0), one.hr(3))
    assert len({one.hash, training.hash, validation.hash}) == 3
    for wrong in (0, 4, -1):
        with pytest.raises(UserError):
            one.split(wrong)
    assert repr(validation) == "1 photo, 0 skipped"
    with pytest.raises(UserError, match="hold out 1 of 1 photo: two are needed at least"):
        validation.split(1)
    sent = pickle.loads(pickle.dumps(training))
    assert sent.names == training.names and np.array_equal(sent.hr(2), training.hr(2))


# Faults ----------------------------------------------------------------------------------------------------------

def whole(folder: Path) -> bool:
    one = Pack(folder)
    return len(one) == 6 and one.hr(5).shape == (300, 400, 3) and one.lr(5)[-1, -1].size == 3


@pytest.mark.slow
def test_killed_at_any_moment_leaves_nothing_or_a_whole_pack(tmp_path):
    fill(tmp_path / "photos", {f"{k}.png": encoded(picture(400, 300, k), "PNG") for k in range(6)})
    for number in itertools.count():
        cache = tmp_path / f"packs{number}"
        packing = pack_photos, tmp_path / "photos", 4, cache, 96, 2, False
        killed = killed_at_change(number, cache, *packing)
        folders = [path for path in cache.glob("*") if path.is_dir() and not path.name.startswith(".")]
        assert all(whole(folder) for folder in folders)
        if not killed:
            break
        pack_photos(*packing[1:])
        folders = [path for path in cache.iterdir() if path.is_dir()]
        assert len(folders) == 1 and whole(folders[0]), "the next run completes it and leaves nothing else"
    assert number > 5 and len(folders) == 1


@pytest.mark.slow
def test_processes_that_start_together_pack_once(tmp_path):
    fill(tmp_path / "photos", {f"{k}.png": encoded(picture(400, 300, k), "PNG") for k in range(20)})
    together = [context.Process(target=pack_photos, args=(tmp_path / "photos", 4, tmp_path / "packs", 96, 1, False))
                for _ in range(3)]
    for process in together:
        process.start()
    for process in together:
        process.join()
    assert [process.exitcode for process in together] == [0, 0, 0]
    assert len([path for path in (tmp_path / "packs").iterdir() if path.is_dir()]) == 1


def test_a_full_disk_is_said_before_and_while_packing(photos, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda folder: type("usage", (), {"free": 1000}))
        with pytest.raises(UserError, match="make room"):
            pack(photos)

    def no_room(path, to_write):
        if path.name == "lr.bin":
            raise OSError(28, "No space left on device")

    with watched_opens(no_room), pytest.raises(UserError, match="No space left"):
        pack(photos)
    assert not [path for path in (photos.parent / "packs").iterdir() if path.is_dir()]


def test_an_interruption_stops_soon_and_leaves_nothing(tmp_path, monkeypatch):
    "Whatever the threads have begun when the interruption arrives waits until the pool is shut; nothing else is begun."
    fill(tmp_path / "photos", {f"{k}.png": encoded(picture(seed=k), "PNG") for k in range(50)})
    decoded, counting, is_shut, shutdown = [], threading.Lock(), threading.Event(), ThreadPoolExecutor.shutdown

    def shut(pool, wait=True, **options):
        shutdown(pool, wait=False, **options)
        if decoded:
            is_shut.set()
        shutdown(pool, wait)

    def interrupt(path, to_write):
        if path.name == "hr.bin":
            decoded.append("they begin to be decoded")
        elif decoded and path.parent == tmp_path / "photos":
            with counting:
                decoded.append(path)
                begun = len(decoded)
            if begun == 6:
                raise KeyboardInterrupt
            if begun > 6:
                is_shut.wait()

    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", shut)
    with watched_opens(interrupt), pytest.raises(KeyboardInterrupt):
        pack(tmp_path / "photos", workers=2)
    assert len(decoded) < 12
    assert not [path for path in (tmp_path / "packs").iterdir() if path.is_dir()]


@pytest.mark.parametrize("damage", [
    lambda folder: (folder / "index.json").unlink(), lambda folder: (folder / "index.json").write_text("{"),
    lambda folder: (folder / "hr.bin").write_bytes((folder / "hr.bin").read_bytes()[:-1]),
    lambda folder: (folder / "lr.bin").unlink(), lambda folder: (folder / "lr.bin").write_bytes(b""),
    lambda folder: (folder / "index.json").write_text("[]")])
def test_a_damaged_pack_is_an_error(photos, damage):
    one = pack(photos)
    damage(one.folder)
    with pytest.raises(UserError, match="delete it and run pack_photos again"):
        pack(photos)
    with pytest.raises(UserError):
        Pack(one.folder)


def test_a_cache_that_cannot_be_written_is_an_error(photos, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="can't write"):
        pack_photos(photos, cache=tmp_path / "file/packs", progress=False)


@pytest.mark.skipif(os.name == "nt", reason="folders have other permissions there")
def test_a_pack_in_a_folder_that_can_only_be_read(photos, monkeypatch):
    "Nothing is locked or written any more."
    later = time.time_ns() + 10**10  # as if ten seconds had passed: what was seen of the files is settled
    monkeypatch.setattr(packs.time, "time_ns", lambda: later)
    one, written = pack(photos), []
    with watched_opens(lambda path, to_write: written.append(path) if to_write else None):
        assert pack(photos).folder == one.folder
    assert written == []


def test_an_old_or_broken_memory_of_digests_does_no_harm(photos):
    one = pack(photos)
    for memory in one.folder.parent.glob("*.seen.json"):
        for text in ("", "[1]", json.dumps({"0.png": [1]}), json.dumps({"0.png": [[], "", "", 0, 0]})):
            memory.write_text(text)
            assert pack(photos).hash == one.hash


def test_pixels_are_read_only(photos):
    with pytest.raises(ValueError):
        pack(photos).hr(0)[0, 0] = 0


def test_threads_leave_the_warning_filters_alone(photos):
    before = list(warnings.filters)
    pack(photos, workers=8)
    assert warnings.filters == before
