"""What grey detail costs and buys: a generator's weights as they are, and with `grey_detail_`.

    python -m tests.experiments.grey_detail WEIGHTS --validation FOLDER

Judged as in adversarial.py, and by the colour that a grey photograph gets: the deviation of red, green and blue from
their mean, in grey levels. Writes srgan_nb/experiments/grey_detail.csv, and beside it a picture of fur and grass.
"""

import argparse
import sys

import torch
from skimage import data

from srgan_nb.bicubic import downsample
from srgan_nb.checkpoints import load_generator
from srgan_nb.files import package_file
from srgan_nb.generator import grey_detail_
from srgan_nb.images import demo_photo, read_image, to_tensor
from srgan_nb.runs import append_row
from tests.experiments.adversarial import draw, pairs_of, scored


@torch.inference_mode()
def colour(generator, grey: torch.Tensor) -> float:
    "How far from grey the enlargement of a grey photograph is, in levels of 255."
    sr = generator(downsample(grey)[None]).clamp(0, 1)
    return 255 * (sr - sr.mean(1, keepdim=True)).square().mean().sqrt().item()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("weights")
    parser.add_argument("--validation", required=True)
    options = parser.parse_args()
    table, grass = package_file("experiments/grey_detail.csv"), to_tensor(data.grass()).expand(3, -1, -1)
    table.unlink(missing_ok=True)
    pairs = pairs_of(options.validation)
    generators = {"colours free": load_generator(options.weights), "grey detail": grey_detail_(load_generator(options.weights))}
    for name, generator in generators.items():
        append_row(table, {"variant": name, **scored(generator, pairs), "colour": round(colour(generator, grass), 2)})
    print(table.read_text())
    draw(generators.values(), [(read_image(demo_photo("chelsea")), 20, 100), (grass, 200, 200)],
         package_file("experiments/grey_detail.png"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
