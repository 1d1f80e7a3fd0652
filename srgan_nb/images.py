import importlib.util
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from srgan_nb.files import UserError, write_atomically

__all__ = ["open_image", "to_rgb", "to_tensor", "to_pil", "read_image", "save_image", "luma", "to_signed", "to_unit", "demo_photo"]

DEMO_PHOTOS = {"astronaut": ("skimage", "data/astronaut.png"), "coffee": ("skimage", "data/coffee.png"),
               "chelsea": ("skimage", "data/chelsea.png"), "rocket": ("skimage", "data/rocket.jpg"),
               "hubble": ("skimage", "data/hubble_deep_field.jpg"),
               "hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg")}


def demo_photo(name: str) -> Path:
    "The path of a photograph that comes with an installed package: astronaut, coffee, chelsea, rocket, hubble, hopper."
    if name not in DEMO_PHOTOS:
        raise UserError(f"no demo photo {name!r}: choose one of {', '.join(DEMO_PHOTOS)}")
    package, file = DEMO_PHOTOS[name]
    spec = importlib.util.find_spec(package)
    path = Path(spec.origin).parent / file if spec else None
    if path is None or not path.exists():
        pip_name = {"skimage": "scikit-image"}.get(package, package)
        raise UserError(f"the photo {name!r} comes with {pip_name}, which is not installed: pip install {pip_name}")
    return path


def open_image(path) -> Image.Image:
    "Reads a picture file whole, turned upright as its EXIF says, in its own mode."
    path = Path(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                image.load()
                return ImageOps.exif_transpose(image)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder, not a picture") from None
    except UnidentifiedImageError:
        raise UserError(f"{path}: not a picture that Pillow can read") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"{path}: refused, it unpacks to too many pixels ({error})") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UserError(f"{path}: damaged or truncated picture ({error})") from None


def to_rgb(image: Image.Image) -> Image.Image:
    "8-bit RGB by stated rules: transparency is laid over white, 16-bit divided by 257, grey repeated, CMYK by Pillow."
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.asarray(image, dtype=np.float64)
        peak = 255 if values.max(initial=0) <= 255 and image.mode == "F" else 65535
        image = Image.fromarray((values.clip(0, peak) * (255 / peak)).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def to_tensor(image) -> torch.Tensor:
    "(C, H, W) float32 in [0, 1] from an 8-bit picture or array (H, W) or (H, W, C)."
    array = np.array(image)
    if array.dtype != np.uint8:
        raise UserError(f"to_tensor takes 8-bit pictures, not {array.dtype}: use to_rgb first")
    array = array[:, :, None] if array.ndim == 2 else array
    return torch.from_numpy(array).permute(2, 0, 1).float().div_(255)


def to_pil(tensor: torch.Tensor) -> Image.Image:
    "A picture from (C, H, W) or (1, C, H, W) in [0, 1]: clipped, rounded to 8 bits."
    tensor = tensor.detach().squeeze(0) if tensor.ndim == 4 else tensor.detach()
    array = tensor.float().clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def read_image(path) -> torch.Tensor:
    "(3, H, W) float32 in [0, 1] from a picture file: upright, 8-bit RGB."
    return to_tensor(to_rgb(open_image(path)))


def save_image(image, path, **options) -> None:
    "Writes a tensor (C, H, W) in [0, 1] or a PIL picture; the file appears whole or not at all."
    image = to_pil(image) if isinstance(image, torch.Tensor) else image
    with write_atomically(path) as temporary:
        image.save(temporary, **options)


def luma(rgb: torch.Tensor) -> torch.Tensor:
    "(..., 3, H, W) in [0, 1] -> Y (..., 1, H, W), BT.601 studio range: 16/255 for black, 235/255 for white."
    weights = rgb.new_tensor([65.481, 128.553, 24.966]).view(3, 1, 1)
    return ((rgb * weights).sum(-3, keepdim=True) + 16) / 255


def to_signed(x: torch.Tensor) -> torch.Tensor:
    "[0, 1] -> [-1, 1], the range in which the paper states its HR images and its MSE (section 3.2)."
    return x * 2 - 1


def to_unit(x: torch.Tensor) -> torch.Tensor:
    "[-1, 1] -> [0, 1]"
    return (x + 1) / 2
