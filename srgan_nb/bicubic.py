import torch
from torch import Tensor

__all__ = ["bicubic_kernel", "resize_weights", "bicubic_resize", "downsample", "upsample_bicubic"]


def bicubic_kernel(x: Tensor) -> Tensor:
    "Keys' cubic convolution kernel with a = -0.5, as in MATLAB."
    x = x.abs()
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def resize_weights(length: int, new_length: int) -> tuple[Tensor, Tensor]:
    "For each of `new_length` outputs: the positions (new_length, taps) it reads of `length`, and their weights in float64."
    scale = new_length / length
    stretch = max(1.0, 1 / scale)  # antialiasing: a shrinking picture widens the kernel
    centre = (torch.arange(new_length, dtype=torch.float64) + 0.5) / scale - 0.5
    first = torch.floor(centre - 2 * stretch).long()
    position = first[:, None] + torch.arange(int(4 * stretch) + 2)
    weight = bicubic_kernel((centre[:, None] - position) / stretch)
    return position.clamp(0, length - 1), weight / weight.sum(1, keepdim=True)


def resize_rows(images: Tensor, new_height: int) -> Tensor:
    "(..., H, W) -> (..., new_height, W)"
    position, weight = resize_weights(images.shape[-2], new_height)
    matrix = torch.zeros(new_height, images.shape[-2], dtype=torch.float64).scatter_add_(1, position, weight)
    return matrix.to(images) @ images


def bicubic_resize(images: Tensor, height: int, width: int, quantize: bool = True) -> Tensor:
    "(..., H, W) in [0, 1] -> (..., height, width): MATLAB's imresize, exact; quantize rounds to 8 bits after each pass."
    def rounded(x):
        return x.add(0.5).floor().clamp(0, 255) if quantize else x

    x = images.double() * 255
    x = rounded(x.round()) if quantize else x
    x = rounded(resize_rows(x, height))
    x = rounded(resize_rows(x.transpose(-1, -2), width).transpose(-1, -2))
    return (x / 255).to(images.dtype)


def downsample(hr: Tensor, scale: int = 4) -> Tensor:
    "(..., 3, scale*H, scale*W) -> (..., 3, H, W)"
    return bicubic_resize(hr, hr.shape[-2] // scale, hr.shape[-1] // scale)


def upsample_bicubic(lr: Tensor, scale: int = 4) -> Tensor:
    return bicubic_resize(lr, lr.shape[-2] * scale, lr.shape[-1] * scale)
