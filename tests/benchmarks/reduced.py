"""Copies of photographs, reduced by a whole factor: what is soft at full size is sharper in each pixel then.

    python -m tests.benchmarks.reduced PHOTOS OUT FACTOR

How soft they are, `srgan_evaluate OUT --model bicubic` tells: the higher its PSNR, the softer.
"""

import argparse
from pathlib import Path

from tqdm import tqdm

from srgan_nb.bicubic import crop_to_multiple, downsample
from srgan_nb.images import read_image, save_image
from srgan_nb.packs import photo_files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path, help="a new folder, for PNG files of the same names")
    parser.add_argument("factor", type=int)
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    for name, path in tqdm(photo_files(options.photos)[1].items(), unit="photo"):
        target = (options.out / name).with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        save_image(downsample(crop_to_multiple(read_image(path), options.factor), options.factor), target)


if __name__ == "__main__":
    main()
