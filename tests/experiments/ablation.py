"""What one change does to a short adversarial training: one row of srgan_nb/experiments/QUESTION.csv a variant.

    python -m tests.experiments.ablation QUESTION RUN --vgg-weights FILE [--steps 400] [--only NAME ...] [--out FOLDER]

QUESTION is "ablation", the suspects of the fine grid, or "opponents", what makes a steadier game with the discriminator.
RUN is the folder of a lite SRResNet. Every variant starts from it, sees the same patches and differs from the first in
what its name says. PSNR-Y, LPIPS (squeeze) and the grid (`srgan_nb.metrics`, in squared grey levels, its peak in dB) are
means over the demo photographs: the benchmarks choose nothing. A variant that has its row is not run again.
"""

import argparse
import csv
import sys
import time
from pathlib import Path

import torch
from torch.nn import functional as F

from srgan_nb.bicubic import crop_to_multiple, downsample
from srgan_nb.checkpoints import load_generator
from srgan_nb.files import package_file
from srgan_nb.images import DEMO_PHOTOS, demo_photo, read_image, save_image
from srgan_nb.metrics import flat_grid, flat_patches, grid_peak, lpips, psnr
from srgan_nb.runs import append_row, inherited
from srgan_nb.settings import settings_for
from srgan_nb.trainer import Trainer

EARLIER = dict(vgg_network="VGG19", vgg_relative=False, vgg_share=1.0, pixel_weight=0.0, discriminator_kind="paper",
               discriminator_luma=False, discriminator_dense=256, discriminator_learning_rate=None,
               discriminator_beta1=0.9, beta2=0.999, schedule="one-cycle")  # preset lite when these questions were asked
PLAIN = dict(EARLIER, content="VGG22", relativistic=None, gradient_penalty=0.0, discriminator_batch_norm=True)
GRID = dict(PLAIN, vgg_pool="max", adversarial_weight=0.01, ema=0.0, balanced_shuffle=False, patch_size=64,
            learning_rate=3e-4)
SUSPECTS = {
    "all suspects": {},
    "average pooling in VGG": dict(vgg_pool="avg"),
    "no batch normalisation in D": dict(discriminator_batch_norm=False),
    "MSE in place of VGG": dict(content="MSE"),
    "no discriminator": dict(adversarial_weight=0.0),
    "balanced filters": dict(balanced_shuffle=True),
    "balanced filters, no discriminator": dict(balanced_shuffle=True, adversarial_weight=0.0),
    "balanced filters, average pooling": dict(balanced_shuffle=True, vgg_pool="avg"),
    "the same, adversarial x 3": dict(balanced_shuffle=True, vgg_pool="avg", adversarial_weight=0.03),
    "the same, adversarial x 10": dict(balanced_shuffle=True, vgg_pool="avg", adversarial_weight=0.1),
}
GAME = dict(PLAIN, adversarial_weight=0.1, ema=0.99, patch_size=64, learning_rate=3e-4)
STEADIER = dict(relativistic="average", gradient_penalty=1.0, discriminator_batch_norm=False)
OPPONENTS = {
    "the paper's opponent": {},
    "relativistic, gradient penalty": STEADIER,
    "content VGG22+VGG31": dict(content="VGG22+VGG31"),
    "both": dict(STEADIER, content="VGG22+VGG31"),
}
QUESTIONS = {"ablation": (GRID, SUSPECTS), "opponents": (GAME, OPPONENTS)}


def known_variants(table: Path) -> set[str]:
    "The variants that have their row."
    return {row["variant"] for row in csv.DictReader(open(table, encoding="utf-8"))} if table.exists() else set()


@torch.inference_mode()
def scored(run: Path) -> dict[str, float]:
    "The figures of one row: means over the demo photographs, which nothing here is trained on."
    generator, rows = load_generator(run), []
    for name in DEMO_PHOTOS:
        hr = crop_to_multiple(read_image(demo_photo(name)), 4)
        sr = generator(downsample(hr)[None])[0].clamp(0, 1)
        rows.append((psnr(sr, hr).item(), lpips(sr, hr, "squeeze").item(), *flat_grid(sr, hr),
                     grid_peak(flat_patches(sr, hr))))
    columns = zip(("psnr_y", "lpips", "grid", "grid_hr", "peak"), zip(*rows, strict=True), strict=True)
    return {name: round(sum(values) / len(values), 4) for name, values in columns}


@torch.inference_mode()
def draw_sky(runs: dict[str, Path], path: Path) -> None:
    "A piece of the rocket's sky: the photograph, then each run's enlargement; contrast times 8, pixels 4x4."
    hr = crop_to_multiple(read_image(demo_photo("rocket")), 4)
    lr = downsample(hr)[None]
    pieces = [picture[:, 40:104, 400:464] for picture in (hr, *(load_generator(run)(lr)[0] for run in runs.values()))]
    raised = [(0.5 + 8 * (piece - piece.mean((1, 2), keepdim=True))).clamp(0, 1) for piece in pieces]
    strip = torch.cat([F.pad(piece, (0, 4, 0, 0), value=1) for piece in raised], dim=2)[..., :-4]
    save_image(strip.repeat_interleave(4, 1).repeat_interleave(4, 2), path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("question", choices=QUESTIONS)
    parser.add_argument("run", type=Path)
    parser.add_argument("--vgg-weights", required=True)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--only", nargs="*", metavar="NAME", help="some variants in place of all")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    options = parser.parse_args()
    base, variants = QUESTIONS[options.question]
    if unknown := set(options.only or ()) - set(variants):
        parser.error(f"no such variant: {', '.join(sorted(unknown))}; choose from {', '.join(variants)}")
    table = package_file(f"experiments/{options.question}.csv")
    known = known_variants(table)
    if "start: SRResNet" not in known:
        append_row(table, {"variant": "start: SRResNet", "steps": 0, **scored(options.run)})
    folders = {name: options.out / name.replace(" ", "-") for name in variants}
    for name in options.only or variants:
        if name in known:
            continue
        out, start = folders[name], time.perf_counter()
        start_settings = {**inherited(str(options.run)), "init": str(options.run), "out": str(out)}
        start_settings.pop("preset")
        settings = settings_for("srgan", "lite", **start_settings, **{**base, **variants[name]}, steps=options.steps,
                                vgg_weights=options.vgg_weights, precision=options.precision,
                                compile=options.compile, threads=options.threads,
                                validate_every=options.steps, checkpoint_every=options.steps)
        Trainer(settings, quiet=True).fit()
        append_row(table, {"variant": name, "steps": options.steps, **scored(out)})
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    if options.question == "ablation":
        draw_sky({name: folders[name] for name in ("all suspects", "balanced filters")}, package_file("experiments/grid.png"))
    print(table.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
