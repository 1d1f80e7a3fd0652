"""What an evaluation of bicubic costs, part by part, on Set5 and Set14 or on pictures of their sizes.

    python tests/benchmarks/evaluation.py [--threads 2] [--repeats 3] [--command]

Every part runs once a round, in turns, so that other load on the machine disturbs all alike; the best round counts.
--command times `srgan_evaluate Set5 Set14 --model bicubic` as well, from start to end of its process.
"""

import argparse
import os
import subprocess
import sys
import time
from dataclasses import replace

import torch

from srgan_nb.bicubic import downsample, upsample_bicubic
from srgan_nb.errors import UserError
from srgan_nb.evaluation import find_dataset, find_pairs, read_pair
from srgan_nb.metrics import PAPER, psnr, ssim

SIZES = [(512, 512), (288, 288), (256, 256), (280, 280), (344, 228), (480, 500), (576, 720), (512, 512), (288, 352),
         (360, 248), (276, 276), (360, 500), (288, 352), (512, 512), (512, 512), (512, 768), (512, 512), (656, 528),
         (388, 584)]  # about those of Set5 and Set14


def pictures() -> tuple[str, list[tuple[torch.Tensor, torch.Tensor]]]:
    try:
        files = [pair for name in ("Set5", "Set14") for pair in find_pairs(find_dataset(name))[0]]
        return "Set5 and Set14", [read_pair(hr, lr) for _, hr, lr in files]
    except UserError:
        torch.manual_seed(0)
        hrs = [torch.randint(0, 256, (3, *size)) / 255 for size in SIZES]
        return "random pictures of their sizes", [(downsample(hr), hr) for hr in hrs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--command", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)

    what, pairs = pictures()
    srs = [upsample_bicubic(lr) for lr, _ in pairs]
    scored = [(sr, hr) for sr, (_, hr) in zip(srs, pairs, strict=True)]
    parts = {"bicubic": lambda: [upsample_bicubic(lr) for lr, _ in pairs],
             "PSNR": lambda: [psnr(*pair) for pair in scored],
             **{f"SSIM {kind}": lambda kind=kind: [ssim(*pair, replace(PAPER, ssim=kind)) for pair in scored]
                for kind in ("wang", "uniform", "daala")}}
    best = dict.fromkeys(parts, float("inf"))
    for _ in range(given.repeats):
        for name, part in parts.items():
            start = time.perf_counter()
            part()
            best[name] = min(best[name], time.perf_counter() - start)
    megapixels = sum(hr[0].numel() for _, hr in pairs) / 1e6
    print(f"{what}: {len(pairs)} pictures, {megapixels:.1f} megapixels, {given.threads} threads")
    for name, seconds in best.items():
        print(f"{name:13} {seconds:6.2f} s  {1e3 * seconds / megapixels:7.1f} ms a megapixel  "
              f"{seconds / best['PSNR']:5.1f} x PSNR")
    if given.command:
        code = "from srgan_nb.cli import evaluate; raise SystemExit(evaluate())"
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code, "Set5", "Set14", "--model", "bicubic"],
                              capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": str(given.threads)})
        print(f"srgan_evaluate Set5 Set14 --model bicubic: {time.perf_counter() - start:.1f} s, exit {done.returncode}")


if __name__ == "__main__":
    main()
