"""Odd and broken picture files, and the corners of the conversions that the notebook has no room for."""

import io
import pickle
import random
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms

from srgan_nb.errors import UserError
from srgan_nb.images import demo_photo, luma, open_image, read_image, save_image, to_pil, to_rgb, to_tensor


@pytest.fixture(scope="module")
def photo():
    return Image.open(demo_photo("chelsea")).convert("RGB").crop((100, 80, 164, 128))


def png(width, height, depth, colour_type, rows):
    """A PNG file from its header's numbers and the bytes of its rows."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    lines = b"".join(b"\0" + row for row in rows)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b""))


# Reading

@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff", "bmp", "gif", "ppm"])
def test_every_format_is_read_whole_and_stays_usable(photo, tmp_path, suffix):
    path = tmp_path / f"photo.{suffix}"
    photo.save(path)
    image = open_image(path)
    path.unlink()
    assert image.size == photo.size and pickle.loads(pickle.dumps(image)).size == photo.size
    error = np.abs(np.array(to_rgb(image), dtype=int) - np.array(photo)).mean()
    assert error == 0 if suffix in ("png", "tiff", "bmp", "ppm") else error < 8


def test_the_content_decides_not_the_name(photo, tmp_path):
    photo.save(tmp_path / "wrong.jpg", "png")
    assert np.array_equal(open_image(tmp_path / "wrong.jpg"), photo)


def test_the_first_of_several_frames(photo, tmp_path):
    frames = [photo, photo.rotate(180)]
    for name in ("film.gif", "pages.tiff", "film.webp"):
        options = {"lossless": True} if name.endswith("webp") else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        first = np.array(to_rgb(open_image(tmp_path / name)), dtype=int)
        assert np.abs(first - np.array(photo)).mean() < 8


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff", "gif", "bmp"])
def test_damaged_files_give_a_picture_or_one_line(photo, tmp_path, suffix):
    whole = io.BytesIO()
    photo.save(whole, {"jpg": "jpeg"}.get(suffix, suffix))
    whole, chance, refused = whole.getvalue(), random.Random(suffix), 0
    for trial in range(60):
        damaged = bytearray(whole[: chance.randrange(len(whole))] if trial % 2 else whole)
        for _ in range(0 if trial % 2 else 8):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path = tmp_path / f"{trial}.{suffix}"
        path.write_bytes(damaged)
        try:
            assert read_image(path).shape[0] == 3
        except UserError as error:
            refused += 1
            assert str(error).startswith(str(path)) and "\n" not in str(error)
    assert refused > 20


def test_broken_exif_around_sound_pixels(photo, tmp_path):
    photo.save(tmp_path / "odd.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12\0\x03")
    assert open_image(tmp_path / "odd.jpg").size == photo.size


def test_orientation_is_applied_once(photo, tmp_path):
    note = Image.Exif()
    note[0x0112] = 6
    photo.save(tmp_path / "phone.png", exif=note)
    turned = open_image(tmp_path / "phone.png")
    assert turned.size == (photo.height, photo.width)
    turned.save(tmp_path / "again.png", exif=turned.getexif())
    assert np.array_equal(open_image(tmp_path / "again.png"), turned)


def test_a_bomb_is_refused_before_it_unpacks(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png(60_000, 60_000, 8, 2, [b"\0"]))
    with pytest.raises(UserError, match="too many pixels"):
        open_image(tmp_path / "bomb.png")


def test_a_large_picture_is_no_bomb(photo, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", photo.width * photo.height - 1)  # Pillow warns from here on
    photo.save(tmp_path / "large.png")
    assert open_image(tmp_path / "large.png").size == photo.size


def test_postscript_is_not_run(tmp_path):
    (tmp_path / "program.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    with pytest.raises(UserError, match="not a picture that can be read"):
        open_image(tmp_path / "program.eps")


# To RGB

@pytest.mark.parametrize(("image", "pixel"), [
    (Image.new("1", (2, 2), 1), (255, 255, 255)),
    (Image.new("L", (2, 2), 77), (77, 77, 77)),
    (Image.new("LA", (2, 2), (77, 0)), (255, 255, 255)),
    (Image.new("RGBA", (2, 2), (10, 20, 30, 255)), (10, 20, 30)),
    (Image.new("RGBA", (2, 2), (0, 0, 0, 51)), (204, 204, 204)),
    (Image.new("CMYK", (2, 2), (0, 255, 255, 0)), (255, 0, 0)),
    (Image.new("YCbCr", (2, 2), (128, 128, 128)), (128, 128, 128)),
    (Image.new("I;16", (2, 2), 65535), (255, 255, 255)),
    (Image.new("I;16", (2, 2), 32896), (128, 128, 128)),
    (Image.new("I", (2, 2), 32896), (128, 128, 128)),
])
def test_modes(image, pixel):
    rgb = to_rgb(image)
    assert rgb.mode == "RGB" and rgb.getpixel((1, 1)) == pixel


def test_sixteen_bits_are_rounded():
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = np.round(levels / 257).astype(np.uint8)
    assert np.array_equal(np.array(to_rgb(Image.fromarray(levels)))[:, :, 0], expected)


def test_sixteen_bit_colour_is_at_most_one_level_off(tmp_path):
    values = np.random.default_rng(0).integers(0, 65536, (8, 8, 3), dtype=np.uint16)
    (tmp_path / "deep.png").write_bytes(png(8, 8, 16, 2, [row.astype(">u2").tobytes() for row in values]))
    read = np.array(to_rgb(open_image(tmp_path / "deep.png")), dtype=float)
    assert np.abs(read - values / 257).max() <= 1


@pytest.mark.parametrize("options", [{"photometric": "miniswhite"}, {"photometric": "rgb", "planarconfig": "separate"}])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_tiff_s_layout_is_read_right_or_refused(bits, options, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 2**bits, (3, 9, 11)).astype(f"u{bits // 8}")
    pixels = pixels if "planarconfig" in options else pixels[0]
    tifffile.imwrite(tmp_path / "scan.tif", pixels, **options)
    if bits == 16:
        with pytest.raises(UserError, match="scan.tif: 16 bits.*plain TIFF"):
            read_image(tmp_path / "scan.tif")
    else:
        expected = pixels.transpose(1, 2, 0) if pixels.ndim == 3 else 255 - pixels[:, :, None].repeat(3, 2)
        assert np.array_equal(to_rgb(open_image(tmp_path / "scan.tif")), expected)


def test_a_transparent_grey_of_16_bits_shows_white():
    image = Image.fromarray(np.array([[1234, 0]], dtype=np.uint16))
    image.info["transparency"] = 1234
    assert [to_rgb(image).getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (0, 0, 0)]


def test_palette_with_a_transparent_entry_shows_white():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 0), 1)
    image.info["transparency"] = 0
    assert [to_rgb(image).getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (0, 255, 0)]


def test_a_transparent_colour_of_an_rgb_png_shows_white(tmp_path):
    image = Image.new("RGB", (2, 1), (9, 9, 9))
    image.putpixel((1, 0), (1, 2, 3))
    image.save(tmp_path / "keyed.png", transparency=(9, 9, 9))
    rgb = to_rgb(open_image(tmp_path / "keyed.png"))
    assert [rgb.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (1, 2, 3)]


@pytest.mark.parametrize(("mode", "value"), [("F", 0.5), ("I", 70000), ("I", -1)])
def test_an_unknown_white_is_refused(mode, value, tmp_path):
    image = Image.new(mode, (2, 2), value)
    with pytest.raises(UserError, match="8 or 16 bits"):
        to_rgb(image)
    image.save(tmp_path / "odd.tiff")
    with pytest.raises(UserError, match="odd.tiff"):  # read_image names the file
        read_image(tmp_path / "odd.tiff")


# Tensors

@pytest.mark.parametrize("mode", ["P", "CMYK", "1", "I;16", "F"])
def test_to_tensor_refuses_what_is_not_grey_or_colour(mode):
    with pytest.raises(UserError, match="to_rgb first"):
        to_tensor(Image.new(mode, (2, 2)))


def test_a_file_whose_white_is_unknown_is_named(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "floats.tif")
    with pytest.raises(UserError, match=r"floats.tif: a picture of floats"):
        read_image(tmp_path / "floats.tif")


def test_to_tensor_refuses_floats():
    with pytest.raises(UserError, match="float64"):
        to_tensor(np.zeros((2, 2, 3)))


@pytest.mark.parametrize(("shape", "mode"), [((1, 4, 6), "L"), ((3, 4, 6), "RGB"), ((4, 4, 6), "RGBA"),
                                             ((1, 3, 4, 6), "RGB")])
def test_to_pil_and_back(shape, mode):
    values = torch.randint(0, 256, shape, dtype=torch.uint8)
    for tensor in (values, values.float() / 255, values.double() / 255, (values.float() / 255).requires_grad_()):
        image = to_pil(tensor)
        assert image.mode == mode and image.size == (6, 4)
        assert torch.equal(to_tensor(image), values.reshape(shape[-3:]).float() / 255)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16])
def test_to_pil_refuses_whole_numbers_other_than_bytes(dtype):
    with pytest.raises(UserError, match=r"uint8, or floats in \[0, 1\], not torch.int"):
        to_pil(torch.full((3, 4, 4), 99, dtype=dtype))


def test_a_profile_of_inks_does_not_go_along_with_colours():
    image = Image.new("CMYK", (4, 4))
    image.info["icc_profile"] = b"of inks"
    assert "icc_profile" not in to_rgb(image).info


def test_to_pil_clips_infinity_and_refuses_nan():
    assert to_pil(torch.tensor([[[-torch.inf, -0.1, 1.1, torch.inf]]])).tobytes() == bytes([0, 0, 255, 255])
    with pytest.raises(ValueError, match="NaN"):
        to_pil(torch.full((3, 2, 2), torch.nan))


def test_luma_keeps_batch_dtype_and_matches_by_hand():
    rgb = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64).view(3, 1, 1).expand(2, 5, 3, 4, 6)
    y = luma(rgb)
    assert y.shape == (2, 5, 1, 4, 6) and y.dtype == torch.float64
    assert abs(y[0, 0, 0, 0, 0].item() * 255 - (16 + 0.2 * 65.481 + 0.5 * 128.553 + 0.9 * 24.966)) < 1e-9


# Saving

def test_lossless_formats_keep_every_value(photo, tmp_path):
    for suffix in ("png", "tiff", "bmp"):
        save_image(to_tensor(photo), tmp_path / f"photo.{suffix}")
        assert np.array_equal(open_image(tmp_path / f"photo.{suffix}"), photo)


def test_jpeg_keeps_colour_detail_unless_told(photo, tmp_path):
    photo = photo.copy()
    photo.info.pop("icc_profile", None)  # three kilobytes in either file
    save_image(photo, tmp_path / "careful.JPG")
    save_image(photo, tmp_path / "small.jpg", quality=30, subsampling=2)
    careful, small = (Image.open(tmp_path / name) for name in ("careful.JPG", "small.jpg"))
    assert careful.layer[0][1:3] == (1, 1) and small.layer[0][1:3] == (2, 2)  # sampling of the first channel
    assert (tmp_path / "small.jpg").stat().st_size < (tmp_path / "careful.JPG").stat().st_size / 2


def test_a_tensor_of_0_to_255_is_refused(photo, tmp_path):
    with pytest.raises(UserError, match=r"is in \[0, 1\], not 0 to 255"):
        save_image(255 * to_tensor(photo), tmp_path / "white.png")
    assert not list(tmp_path.iterdir())
    save_image(torch.full((3, 4, 4), torch.inf), tmp_path / "white.png")
    assert read_image(tmp_path / "white.png").min() == 1


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff"])
def test_a_colour_profile_is_kept(photo, tmp_path, suffix):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo = photo.copy()
    photo.info["icc_profile"] = profile
    save_image(photo, tmp_path / f"photo.{suffix}")
    assert open_image(tmp_path / f"photo.{suffix}").info["icc_profile"] == profile


@pytest.mark.parametrize(("name", "mode", "reason"), [
    ("photo.xyz", "RGB", "no picture format"), ("photo", "RGB", "no picture format"),
    ("clear.jpg", "RGBA", "not written"), ("missing/photo.png", "RGB", "does not exist"),
])
def test_what_cannot_be_saved_is_told_in_one_line(tmp_path, name, mode, reason):
    with pytest.raises(UserError, match=reason) as caught:
        save_image(Image.new(mode, (4, 4)), tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


# Demo photos, imports

def test_demo_photos_are_named_when_absent(monkeypatch):
    with pytest.raises(UserError, match="choose one of astronaut"):
        demo_photo("tiger")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install scikit-image"):
        demo_photo("chelsea")


@pytest.mark.slow
def test_importing_the_ground_floor_is_light():
    code = ("import sys, srgan_nb.bicubic, srgan_nb.images, srgan_nb.plots; "
            "heavy = {'matplotlib', 'skimage', 'IPython', 'torchvision', 'fastcore', 'nbdev'} & set(sys.modules); "
            "sys.exit(f'imported {heavy}' if heavy else 0)")
    subprocess.run([sys.executable, "-c", code], check=True)
