"""Copies of photographs, reduced by a whole factor: what is soft at full size is sharper in each pixel then.

Prints how near a fourfold bicubic reduction and enlargement comes to them (PSNR-Y; higher is softer).

    python -m tests.benchmarks.reduced PHOTOS OUT FACTOR
"""

import argparse
from pathlib import Path
from statistics import mean

from tqdm import tqdm

from srgan_nb.bicubic import crop_to_multiple, downsample, upsample_bicubic
from srgan_nb.images import read_image, save_image
from srgan_nb.metrics import psnr
from srgan_nb.packs import photo_files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path, help="a new folder, for PNG files of the same names")
    parser.add_argument("factor", type=int)
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    scores = []
    for name, path in tqdm(photo_files(options.photos)[1].items(), unit="photo"):
        reduced = downsample(crop_to_multiple(read_image(path), options.factor), options.factor)
        target = (options.out / name).with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        save_image(reduced, target)
        measured = crop_to_multiple(reduced)[None]
        scores.append(psnr(upsample_bicubic(downsample(measured)), measured).item())
    print(f"{len(scores)} photographs, bicubic enlargement x4 of them: {mean(scores):.2f} dB")


if __name__ == "__main__":
    main()
