"""What the discriminator adds: the adversarial stage with it and without, from one start, over the same patches.

    python -m tests.experiments.adversarial RUN --data FOLDER --validation FOLDER --vgg-weights FILE [--steps 800]

RUN is a lite SRResNet: a run's folder or a shipped name. Both trainings are preset lite's with a shorter moving average;
they differ in the weight of the adversarial loss. Judged on the validation photographs: PSNR-Y, LPIPS (squeeze), fine
power, fine power between the axes and the weave in dB to HR's own (`srgan_nb.metrics`), and how far the two results lie
apart in grey levels. A variant that has its row in srgan_nb/experiments/adversarial.csv is not run again. Beside it a
picture: from left to right the start, without, with, HR.
"""

import argparse
import sys
from pathlib import Path

import torch

from srgan_nb.bicubic import crop_to_multiple, downsample
from srgan_nb.checkpoints import load_generator
from srgan_nb.files import package_file
from srgan_nb.images import demo_photo, read_image, save_image, to_tensor
from srgan_nb.metrics import TextureMeter, decibels, lpips, psnr
from srgan_nb.packs import pack_photos
from srgan_nb.runs import append_row
from srgan_nb.settings import settings_for
from srgan_nb.trainer import Trainer
from tests.experiments.ablation import known_variants

START, WITHOUT, WITH = "start: SRResNet", "VGG alone", "VGG and the discriminator"
CROPS = {"chelsea": (100, 200), "coffee": (40, 180), "astronaut": (30, 130), "rocket": (280, 250)}  # top, left


def pairs_of(photos: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    "(LR, HR) of every photograph, (3, H, W) in [0, 1]."
    pack = pack_photos(photos, 4)
    return [(to_tensor(pack.lr(i)), to_tensor(pack.hr(i))) for i in range(len(pack))]


@torch.inference_mode()
def scored(generator, pairs) -> dict[str, float]:
    "The figures of one row: scores are means over the pictures, powers are over all their patches."
    meter, scores = TextureMeter(), []
    for lr, hr in pairs:
        sr = generator(lr[None])[0].clamp(0, 1)
        meter.add(sr, hr)
        scores.append((psnr(sr, hr).item(), lpips(sr, hr, "squeeze").item()))
    between = torch.cat(meter.powers, dim=-1)[2].sum(-1)
    figures = dict(zip(("psnr_y", "lpips"), torch.tensor(scores).mean(0).tolist(), strict=True), **meter.read(),
                   between_power=decibels(between[0] / between[1]))
    return {name: round(value, 4) for name, value in figures.items()}


@torch.inference_mode()
def grey_levels_apart(one, other, pairs) -> float:
    "Root mean square of the difference between two generators' pictures, in levels of 255."
    differences = [(one(lr[None]).clamp(0, 1) - other(lr[None]).clamp(0, 1)).square().mean() for lr, _ in pairs]
    return 255 * torch.stack(differences).mean().sqrt().item()


@torch.inference_mode()
def draw(generators, photos, path: Path, size: int = 96) -> None:
    "Pieces of photographs (picture, top, left), a row each: every generator's enlargement, then HR; pixels 2x2."
    rows = []
    for photo, top, left in photos:
        hr = crop_to_multiple(photo, 4)
        lr = downsample(hr)[None]
        pictures = [*(generator(lr)[0].clamp(0, 1) for generator in generators), hr]
        rows.append(torch.cat([picture[:, top:top + size, left:left + size] for picture in pictures], dim=2))
    save_image(torch.cat(rows, dim=1).repeat_interleave(2, 1).repeat_interleave(2, 2), path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("run")
    for name in ("--data", "--validation", "--vgg-weights"):
        parser.add_argument(name, required=True)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path, default=Path("runs/adversarial"))
    options = parser.parse_args()
    table = package_file("experiments/adversarial.csv")
    known = known_variants(table)
    pairs = pairs_of(options.validation)
    generators = [load_generator(options.run)]
    if START not in known:
        append_row(table, {"variant": START, "steps": 0, **scored(generators[0], pairs)})
    for name, changes in {WITHOUT: dict(adversarial_weight=0.0), WITH: {}}.items():
        out = options.out / name.replace(" ", "-")
        if name not in known:
            settings = settings_for("srgan", "lite", init=options.run, out=str(out), data=options.data,
                                    validation=options.validation, vgg_weights=options.vgg_weights,
                                    steps=options.steps, ema=0.98, precision=options.precision,
                                    threads=options.threads, **changes)
            Trainer(settings).fit()
            append_row(table, {"variant": name, "steps": options.steps, **scored(load_generator(out), pairs)})
        generators.append(load_generator(out))
    print(table.read_text())
    print(f"{grey_levels_apart(*generators[1:], pairs):.2f} grey levels apart")
    photos = [(read_image(demo_photo(name)), *corner) for name, corner in CROPS.items()]
    draw(generators, photos, package_file("experiments/adversarial.png"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
