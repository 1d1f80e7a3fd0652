"""What four ways of enlarging by 2 cost: multiply-adds and time, as ratios to the sub-pixel convolution.

    python tests/benchmarks/upsample.py [--device cuda] [--channels 64] [--side 48] [--batch 4] [--repeats 20]

Each way runs once a round, in turns, so that other load on the machine disturbs all alike; the best round counts.
"""

import argparse
import time

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from srgan_nb.generator import PixelShuffle


def ways_to_enlarge(channels: int) -> dict[str, nn.Module]:
    """Four modules (N, C, H, W) -> (N, C, 2H, 2W)."""
    return {"sub-pixel, kernel 3": nn.Sequential(nn.Conv2d(channels, 4 * channels, 3, padding=1), PixelShuffle(2)),
            "transposed, kernel 6": nn.ConvTranspose2d(channels, channels, 6, stride=2, padding=2),
            "transposed, kernel 4": nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1),
            "nearest, conv 3": nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(channels, channels, 3, padding=1))}


def multiply_adds(module: nn.Module, x: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(x)
    return counter.get_total_flops() // 2


def seconds(module: nn.Module, x: torch.Tensor, backward: bool) -> float:
    start = time.perf_counter()
    with torch.set_grad_enabled(backward):
        y = module(x)
    if backward:
        y.backward(torch.ones_like(y))
    if x.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--side", type=int, default=48, help="height and width of the small pictures")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()

    ways = {name: way.to(args.device) for name, way in ways_to_enlarge(args.channels).items()}
    x = torch.randn(args.batch, args.channels, args.side, args.side, device=args.device)
    for way in ways.values():  # the first run warms up
        seconds(way, x, backward=True)
    counts = {name: multiply_adds(way, x) for name, way in ways.items()}
    best = {(name, backward): float("inf") for name in ways for backward in (False, True)}
    for _ in range(args.repeats):
        for name, backward in best:
            best[name, backward] = min(best[name, backward], seconds(ways[name], x, backward))

    name = torch.cuda.get_device_name() if args.device.startswith("cuda") else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}, torch {torch.__version__}, batch {args.batch}, {args.channels} channels, {args.side}x{args.side}")
    print(f"{'relative to sub-pixel':24s}{'multiply-adds':>15s}{'forward':>12s}{'and backward':>15s}")
    base = next(iter(ways))
    for name in ways:
        forward, both = (best[name, backward] / best[base, backward] for backward in (False, True))
        print(f"{name:24s}{counts[name] / counts[base]:15.3f}{forward:12.2f}{both:15.2f}")


if __name__ == "__main__":
    main()
