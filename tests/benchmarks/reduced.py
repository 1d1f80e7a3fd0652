"""Copies of photographs, reduced by a whole factor: a camera's picture is soft at full size, and soft patches teach
little. One fact for each factor: how much of a photograph a fourfold bicubic reduction loses (less is softer).

    python -m tests.benchmarks.reduced PHOTOS OUT FACTOR
"""

import argparse
from pathlib import Path

from tqdm import tqdm

from srgan_nb.bicubic import crop_to_multiple, downsample, upsample_bicubic
from srgan_nb.files import UserError
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
    lost, skipped = [], []
    for name, path in tqdm(photo_files(options.photos)[1].items(), unit="photo"):
        try:
            photo = read_image(path)[None]
        except UserError as error:
            skipped.append(str(error))
            continue
        reduced = downsample(crop_to_multiple(photo, options.factor), options.factor)
        measured = crop_to_multiple(reduced)
        lost.append(psnr(upsample_bicubic(downsample(measured)), measured).item())
        target = (options.out / name).with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        save_image(reduced[0], target)
    print("\n".join([f"{len(lost)} photographs, bicubic enlargement x4 of them: {sum(lost) / len(lost):.2f} dB",
                     *skipped]))


if __name__ == "__main__":
    main()
