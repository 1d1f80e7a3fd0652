"""Pictures of every kind: what a network sees of them, and the same kind back. The chores of file formats.

| kind | what the network sees | what comes back |
|---|---|---|
| RGB, 8 bits | the values / 255 | RGB |
| grey (L) | the grey three times | the mean of the three answers |
| black and white (1) | as grey | black and white, cut at one half |
| transparent (RGBA, LA) | the colours, those of invisible pixels filled in from visible neighbours | alpha by bicubic |
| palette (P) | its colours | RGB, or RGBA where it has transparency: an enlarged picture needs colours between |
| 16 bits, grey or colour | the values / 65535, never by way of 8 bits | 16 bits |
| CMYK | the light that cyan, magenta, yellow leave, as a colour picture; black as a grey one | CMYK |
| YCbCr, HSV | their RGB | YCbCr, HSV |
| LAB | L as grey | a and b by bicubic |
| 32-bit integers, floats (I, F) | 0..65535, 0..1 as they are; other ranges stretched to 0..1 | the range they had |
| several frames | one after the other | as many frames, with their times |

Values go to the network as they are stored: a colour profile is kept, not applied. EXIF's orientation is applied;
the rest of EXIF, profile, XMP, resolution and PNG texts go along.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch.nn import functional as F

from srgan_nb.files import UserError

__all__ = ["Picture", "picture_of", "image_of", "enlarge_picture", "fill_hidden", "kept_info"]

Enlarge = Callable[[np.ndarray], np.ndarray]  # (H, W, C) -> (scale*H, scale*W, C), of the same type

WORKING_MODES = {"RGBX": "RGB", "HSV": "RGB", "YCbCr": "RGB", "La": "LA", "RGBa": "RGBA", "PA": "RGBA"}
COMES_BACK = ("HSV", "YCbCr", "La", "RGBa")  # of these, the ones that Pillow can make again
KEPT_TAGS = (270, 271, 272, 305, 306, 315, 33432)  # EXIF: description, camera, software, date, artist, copyright


@dataclass(frozen=True)
class Picture:
    """Pixels and what goes along with them.

    `pixels`: (H, W, C) uint8, uint16, int32 or float32. `mode`: Pillow's name, or "RGB;16" and "RGBA;16", which it
    lacks. `info`: what Pillow's writers take as options (exif, icc_profile, dpi, ...), and a frame's duration.
    """

    pixels: np.ndarray
    mode: str
    info: dict = field(default_factory=dict)


def picture_of(image: Image.Image) -> Picture:
    """A PIL picture taken apart, by the rules at the top of this file. Raises `UserError` for a mode without a rule."""
    mode = image.mode
    if mode.startswith("I;16"):
        mode, pixels = "I;16", np.asarray(image).astype(np.uint16)
    else:
        if mode == "P" or (mode in ("1", "L", "RGB") and image.has_transparency_data):
            image = image.convert(("LA" if mode in ("1", "L") else "RGBA") if image.has_transparency_data else "RGB")
        elif mode in WORKING_MODES:
            image = image.convert(WORKING_MODES[mode])
        mode = mode if mode in COMES_BACK else image.mode
        if image.mode not in ("1", "L", "LA", "RGB", "RGBA", "CMYK", "LAB", "I", "F"):
            raise UserError(f"pictures of mode {image.mode} can't be enlarged: convert it to RGB first")
        pixels = np.asarray(image)
    return Picture(pixels if pixels.ndim == 3 else pixels[:, :, None], mode, kept_info(image))


def image_of(picture: Picture) -> Image.Image:
    """The PIL picture; raises `UserError` for 16-bit colour, which a PIL picture can't hold."""
    if picture.mode in ("RGB;16", "RGBA;16"):
        raise UserError("a PIL picture can't hold 16-bit colour: let upscale_file (srgan_upscale) write the file")
    pixels = picture.pixels[:, :, 0] if picture.pixels.shape[2] == 1 else picture.pixels
    image = Image.fromarray(pixels, WORKING_MODES.get(picture.mode)) if picture.mode not in ("CMYK", "LAB") else \
        Image.frombytes(picture.mode, pixels.shape[1::-1], np.ascontiguousarray(pixels))
    image = image if image.mode == picture.mode else image.convert(picture.mode)
    for name, value in picture.info.items():  # as Pillow's readers leave it
        if name != "pnginfo":
            image.info[name] = value.tobytes() if name == "exif" else value
    return image


# ---------------------------------------------------------------------------------------------------------------------
# Enlarging each kind

def enlarge_picture(picture: Picture, sharp: Enlarge, smooth: Enlarge) -> Picture:
    """The picture enlarged by the rules at the top of this file: `sharp` is the network, `smooth` is bicubic.

    Raises `UserError` where a float picture holds values that are no numbers.
    """
    pixels, mode = picture.pixels, picture.mode
    if mode in ("LA", "RGBA", "RGBA;16", "La", "RGBa"):
        colour, alpha = pixels[:, :, :-1], pixels[:, :, -1:]
        enlarged = np.concatenate([sharp(fill_hidden(colour, alpha)), smooth(alpha)], 2)
    elif mode == "CMYK":
        light = 255 - pixels
        enlarged = 255 - np.concatenate([sharp(light[:, :, :3]), sharp(light[:, :, 3:])], 2)
    elif mode == "LAB":
        enlarged = np.concatenate([sharp(pixels[:, :, :1]), smooth(pixels[:, :, 1:2]), smooth(pixels[:, :, 2:])], 2)
    elif mode == "1":
        enlarged = sharp(pixels.astype(np.uint8) * 255) >= 128
    elif mode in ("I", "F"):
        enlarged = _enlarge_any_range(pixels, sharp)
    else:
        enlarged = sharp(pixels)
    return replace(picture, pixels=enlarged, info=resized_info(picture.info, enlarged.shape[1], enlarged.shape[0]))


def _enlarge_any_range(pixels: np.ndarray, sharp: Enlarge) -> np.ndarray:
    """(H, W, 1) int32 or float32 of any range; see the table."""
    low, high = float(pixels.min()), float(pixels.max())
    if not np.isfinite([low, high]).all():
        raise UserError("the picture holds values that are not numbers (NaN or infinity): mend them first")
    integers = pixels.dtype == np.int32
    if integers and 0 <= low and high <= 65535:
        return sharp(pixels.astype(np.uint16)).astype(np.int32)
    if integers or low < 0 or high > 1:
        stretch = high - low or 1.0
        enlarged = sharp(((pixels.astype(np.float64) - low) / stretch).astype(np.float32)) * stretch + low
        return np.round(enlarged).astype(np.int32) if integers else enlarged.astype(np.float32)
    return sharp(pixels)


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
    return np.where(alpha > 0, colour, filled.round().astype(colour.dtype))


# ---------------------------------------------------------------------------------------------------------------------
# What goes along

def kept_info(image: Image.Image) -> dict:
    """What is worth keeping of a picture's metadata, in the form that Pillow's writers take."""
    names = ("icc_profile", "xmp", "dpi", "duration", "comment")
    info = {name: image.info[name] for name in names if image.info.get(name) not in (None, "", b"", 0, (1, 1))}
    exif = image.getexif()
    kept = Image.Exif()
    for tag in (*(tag for tag in KEPT_TAGS if tag in exif), 0x8769, 0x8825):  # the last two: camera settings, place
        if tag in KEPT_TAGS:
            kept[tag] = exif[tag]
        elif exif.get_ifd(tag):
            kept.get_ifd(tag).update(exif.get_ifd(tag))
    if kept.tobytes() != Image.Exif().tobytes():
        info["exif"] = kept
    texts = getattr(image, "text", {})  # PNG
    if texts:
        info["pnginfo"] = PngInfo()
        for name, text in texts.items():
            info["pnginfo"].add_itxt(name, text)
    return info


def resized_info(info: dict, width: int, height: int) -> dict:
    """The metadata with EXIF's two numbers for the picture's size set right."""
    if "exif" in info and info["exif"].get_ifd(0x8769):
        info["exif"].get_ifd(0x8769).update({40962: width, 40963: height})
    return info
