"""The bicubic against exact rational arithmetic, against the benchmarks' own files, and along each of its routes."""

import hashlib
import math
import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch

from srgan_nb import bicubic
from srgan_nb.bicubic import bicubic_resize, crop_to_multiple, downsample, upsample_bicubic
from srgan_nb.errors import UserError
from srgan_nb.images import luma, open_image, to_rgb

COUNTS = {"Set5": 5, "Set14": 14, "BSD100": 100}


def bytes_of(*shape, seed=0, two=None):
    """Random bytes, or only 0 and `two`: 255 makes the largest sums, 128 makes sums that end in exactly one half."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 2 if two else 256, shape, dtype=torch.uint8, generator=generator)
    return values * two if two else values


def float64_route(pixels, height, width):
    return bicubic._resize_exact_8bit(bicubic._resize_exact_8bit(pixels, -2, height), -1, width)


def rational_pass(column, new_length):
    """One pass over a list of integers in exact fractions: an independent writing of the recipe."""
    def kernel(x):
        x = abs(x)
        if x <= 1:
            return Fraction(3, 2) * x**3 - Fraction(5, 2) * x**2 + 1
        return -Fraction(1, 2) * x**3 + Fraction(5, 2) * x**2 - 4 * x + 2 if x < 2 else Fraction(0)

    shrink = Fraction(len(column), new_length)
    stretch = max(Fraction(1), shrink)
    resized = []
    for index in range(new_length):
        centre = shrink * (index + Fraction(1, 2)) - Fraction(1, 2)
        positions = range(math.floor(centre - 2 * stretch), math.ceil(centre + 2 * stretch) + 1)
        weights = [kernel((centre - position) / stretch) for position in positions]
        values = [column[min(max(position, 0), len(column) - 1)] for position in positions]
        exact = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
        resized.append(min(max(math.floor(exact + Fraction(1, 2)), 0), 255))
    return resized


@pytest.mark.parametrize(("height", "width", "factor"), [
    (32, 24, Fraction(1, 8)), (20, 12, Fraction(1, 4)), (10, 14, Fraction(1, 2)), (9, 12, Fraction(1, 3)),
    (8, 8, Fraction(1, 8)), (3, 5, Fraction(2)), (4, 3, Fraction(4)), (2, 3, Fraction(8)), (3, 4, Fraction(3)),
    (1, 1, Fraction(4))])
@pytest.mark.parametrize("two", [None, 255, 128])
def test_equals_exact_fractions(height, width, factor, two):
    pixels = bytes_of(height, width, two=two)
    new_height, new_width = int(height * factor), int(width * factor)
    columns = [rational_pass(column, new_height) for column in pixels.T.tolist()]
    rows = [rational_pass(list(row), new_width) for row in zip(*columns, strict=True)]
    assert bicubic_resize(pixels, new_height, new_width).tolist() == rows
    assert float64_route(pixels[None, None], new_height, new_width)[0, 0].tolist() == rows


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("two", [None, 255, 128])
def test_fast_route_equals_the_float64_route(scale, two):
    assert bicubic._fast_is_exact()  # on this machine the fast route is taken
    for seed, (batch, channels, rows, columns) in enumerate([(1, 3, 1, 1), (1, 3, 5, 31), (2, 3, 24, 24), (3, 1, 7, 2),
                                                             (1, 4, 6, 9), (5, 3, 2, 40)]):
        pixels = bytes_of(batch, channels, scale * rows, scale * columns, seed=seed, two=two)
        small = pixels[..., :rows, :columns]
        for layout in (torch.contiguous_format, torch.channels_last):
            shrunk = downsample(pixels.contiguous(memory_format=layout), scale)
            enlarged = upsample_bicubic(small.contiguous(memory_format=layout), scale)
            assert torch.equal(shrunk, float64_route(pixels, rows, columns))
            assert torch.equal(enlarged, float64_route(small, scale * rows, scale * columns))


def test_views_are_read_as_they_look():
    pixels = bytes_of(96, 64, 3)
    for view in (pixels.permute(2, 0, 1), pixels.permute(2, 0, 1).flip(-1), pixels.permute(2, 1, 0),
                 pixels[::2, 8:40].permute(2, 0, 1), pixels[None, :, :, :].permute(0, 3, 1, 2)):
        assert torch.equal(downsample(view), downsample(view.clone(memory_format=torch.contiguous_format)))


def test_without_the_fast_route_the_bytes_are_the_same():
    pixels = bytes_of(2, 3, 64, 48, two=255)
    assert torch.equal(float64_route(pixels, 16, 12), downsample(pixels))
    assert torch.equal(float64_route(pixels, 256, 192), upsample_bicubic(pixels))


@pytest.mark.slow
def test_plain_processors_give_the_same_bytes():
    """The kernels that torch takes where a processor has no AVX2."""
    code = """
import hashlib, torch
from srgan_nb.bicubic import downsample
pixels = torch.randint(0, 256, (2, 3, 64, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
print(torch.backends.cpu.get_cpu_capability(), hashlib.sha256(downsample(pixels).numpy().tobytes()).hexdigest())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env=os.environ | {"ATEN_CPU_CAPABILITY": "default"})
    capability, there = done.stdout.split()
    here = hashlib.sha256(downsample(bytes_of(2, 3, 64, 48)).numpy().tobytes()).hexdigest()
    assert "AVX" not in capability and there == here


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_floats_give_the_bytes_divided_by_255(dtype):
    pixels = bytes_of(3, 32, 40)
    lr = downsample(pixels.to(dtype) / 255)
    assert lr.dtype == dtype and torch.equal(lr.mul(255).round().to(torch.uint8), downsample(pixels))


@pytest.mark.parametrize("shape", [(16, 24), (3, 16, 24), (5, 3, 16, 24), (2, 5, 3, 16, 24)])
def test_any_number_of_leading_axes(shape):
    pixels = bytes_of(*shape)
    lr = downsample(pixels)
    assert lr.shape == (*shape[:-2], 4, 6)
    assert torch.equal(lr.reshape(-1, 4, 6)[-1], downsample(pixels.reshape(-1, 16, 24)[-1]))


@pytest.mark.cuda
def test_same_bytes_on_cuda():
    pixels = bytes_of(4, 3, 96, 128)
    for scale in (2, 4, 8):
        assert torch.equal(downsample(pixels.cuda(), scale).cpu(), downsample(pixels, scale))
        assert torch.equal(upsample_bicubic(pixels.cuda(), scale).cpu(), upsample_bicubic(pixels, scale))


def test_unquantised_keeps_gradients_and_agrees_to_rounding():
    images = bytes_of(1, 3, 16, 16).double().div(255).requires_grad_()
    smooth = bicubic_resize(images, 4, 4, quantize=False)
    assert (smooth.clamp(0, 1) - downsample(images)).abs().max() < 1.2 / 255  # half a level in each of two passes
    smooth.sum().backward()
    assert images.grad.abs().min() > 0 and abs(images.grad.sum().item() - smooth.numel()) < 1e-9
    with pytest.raises(TypeError, match="float"):
        bicubic_resize(bytes_of(3, 8, 8), 2, 2, quantize=False)


def test_sizes_that_do_not_divide():
    for shape in [(3, 15, 16), (3, 16, 18), (3, 0, 16)]:
        with pytest.raises(UserError, match="use crop_to_multiple first"):
            downsample(torch.zeros(shape))
    cropped = crop_to_multiple(torch.arange(15 * 18).view(1, 15, 18), 4)
    assert cropped.shape == (1, 12, 16) and cropped[0, 0, 0] == 0  # top left is kept


def pairs(shared, name):
    folder = shared / "data" / "benchmarks" / name
    for lr_path in sorted((folder / "LRx4").glob("*.png")):
        hr_path, *_ = folder.glob(f"HR*/{lr_path.stem}.*")
        hr, lr = (torch.from_numpy(np.array(to_rgb(open_image(path)))).permute(2, 0, 1) for path in (hr_path, lr_path))
        yield hr[:, : 4 * lr.shape[1], : 4 * lr.shape[2]], lr


def test_reproduces_every_benchmark_lr_bit_for_bit(shared):
    for name, count in COUNTS.items():
        assert [torch.equal(downsample(hr), lr) for hr, lr in pairs(shared, name)] == [True] * count


def test_reproduces_the_benchmarks_without_the_fast_route(shared):
    assert all(torch.equal(float64_route(hr[None], *lr.shape[1:])[0], lr) for hr, lr in pairs(shared, "Set5"))


@pytest.mark.parametrize(("name", "known"), [("Set5", 28.430), ("Set14", 26.088), ("BSD100", 25.961)])
def test_bicubic_baseline(shared, name, known):
    def luma_inside(pixels):
        return luma(pixels / 255)[..., 4:-4, 4:-4]

    scores = [-10 * (luma_inside(hr) - luma_inside(upsample_bicubic(lr))).square().mean().log10()
              for hr, lr in pairs(shared, name)]
    assert len(scores) == COUNTS[name] and abs(np.mean(scores) - known) < 0.005
