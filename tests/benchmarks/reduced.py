"""Copies of photographs, reduced by a factor: other pixels of the same scenes, and sharper ones where they were soft.

    python -m tests.benchmarks.reduced PHOTOS OUT FACTOR [--leave-out N]

How soft they are, `srgan_evaluate OUT --model bicubic` tells: the higher its PSNR, the softer. Leave out those that a
run holds out for validation, or it would learn from their copies.
"""

import argparse
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from srgan_nb.images import read_image, save_image, to_pil, to_tensor
from srgan_nb.packs import photo_files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path, help="a new folder, for PNG files of the same names")
    parser.add_argument("factor", type=float, help="2 halves height and width; 1.25 and the like will do")
    parser.add_argument("--leave-out", type=int, default=0, metavar="N", help="the last N by name get no copy")
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    files = photo_files(options.photos)[1]
    for name in tqdm(sorted(files)[:len(files) - options.leave_out], unit="photo"):
        photo = to_pil(read_image(files[name]))
        size = [round(side / options.factor) for side in photo.size]
        target = (options.out / name).with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        save_image(to_tensor(photo.resize(size, Image.Resampling.BICUBIC)), target)


if __name__ == "__main__":
    main()
