"""What making the LR costs beside decoding the HR. Run: python tests/benchmarks/bicubic.py

One thread; every round times all ways in turn, and the median of the rounds is printed as a multiple of decoding.
"""

import io
import statistics
import time

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from srgan_nb.bicubic import _resize_exact_8bit, downsample
from srgan_nb.images import demo_photo, open_image

HEIGHT, WIDTH, ROUNDS = 1356, 2040, 7


def example() -> bytes:
    """A PNG of the size of a DIV2K photo: a demo photo enlarged, with a little noise so that it packs like a photo."""
    photo = open_image(demo_photo("coffee")).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    noisy = np.array(photo) + np.random.default_rng(0).normal(0, 2, (HEIGHT, WIDTH, 3))
    file = io.BytesIO()
    Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8)).save(file, "png")
    return file.getvalue()


def float64_recipe(pixels: torch.Tensor) -> torch.Tensor:
    return _resize_exact_8bit(_resize_exact_8bit(pixels[None], -2, HEIGHT // 4), -1, WIDTH // 4)[0]


def main() -> None:
    torch.set_num_threads(1)
    png = example()
    picture = Image.open(io.BytesIO(png))
    picture.load()
    interleaved = torch.from_numpy(np.array(picture)).permute(2, 0, 1)  # as Pillow's bytes lie in memory
    planar = interleaved.contiguous()
    assert torch.equal(downsample(interleaved), float64_recipe(planar))
    assert torch.equal(downsample(planar), float64_recipe(planar))
    small = WIDTH // 4, HEIGHT // 4
    by_torch = {"size": small[::-1], "mode": "bicubic", "antialias": True}
    ways = {
        "decode the PNG with Pillow": lambda: Image.open(io.BytesIO(png)).load(),
        "downsample, bytes as Pillow has them": lambda: downsample(interleaved),
        "downsample, one plane a channel": lambda: downsample(planar),
        "the same bytes in float64": lambda: float64_recipe(planar),
        "Pillow's resize (other bytes)": lambda: picture.resize(small, Image.Resampling.BICUBIC),
        "torch, antialias (other bytes)": lambda: F.interpolate(interleaved[None], **by_torch),
    }
    seconds = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            start = time.process_time()
            way()
            seconds[name].append(time.process_time() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    decoding = next(iter(medians.values()))
    print(f"{WIDTH}x{HEIGHT}, PNG of {len(png) / 1e6:.1f} MB, torch {torch.__version__}, one thread")
    for name, value in medians.items():
        print(f"{name:38} {value * 1000:8.1f} ms   {value / decoding:6.3f} x decoding")


if __name__ == "__main__":
    main()
