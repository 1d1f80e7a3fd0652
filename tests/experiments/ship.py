"""Scores a run's generator on the benchmark sets and writes it into the package, with these figures in its passport.

    python -m tests.experiments.ship RUN NAME [--best] [--mean RUN ...] [--after RUN:STEP ...] [--licence TEXT] [--note TEXT]

RUN is a run's folder, NAME one of srresnet, srgan, srresnet-base, srgan-base. With --mean the weights are the mean over
several runs with a common past; what the passport tells of the recipe is then the first one's. They go in half precision
where that costs under 0.01 dB on Set5, else in single. Ship an SRResNet before its SRGAN, whose passport says what lies
between the two. The run's curves go beside them, as a reference for what a healthy run looks like.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from srgan_nb.checkpoints import SHIPPED, load_generator, save_generator
from srgan_nb.evaluation import (
    evaluate,
    find_dataset,
    find_pairs,
    interpolate_generators,
    perception_distortion,
    read_pair,
)
from srgan_nb.files import package_file
from srgan_nb.generator import Generator

SETS = ("Set5", "Set14", "BSD100")
LICENCE = "trained on CC0, public-domain and CC BY-SA 4.0 photographs (51 and 122); weights under Apache 2.0"


def rounded_scores(path: Path) -> dict[str, dict[str, float]]:
    """The mean scores of a weight file on each set, by the paper's protocol, with LPIPS.

    "colour_shift" is the largest difference of the mean red, green or blue between SR and HR, of 255 grey levels.
    """
    found = {}
    for name in SETS:
        shifts = []
        result = evaluate(name, str(path), lpips_net="squeeze", progress=False,
                          each=lambda _, title, lr, sr, hr: shifts.append((sr.clamp(0, 1) - hr).mean((1, 2))))  # noqa: B023
        shift = 255 * torch.stack(shifts).mean(0).abs().max().item()
        found[name] = {metric: round(value, 4) for metric, value in {**result.mean, "colour_shift": shift}.items()}
    return found


def mean_generator(paths: list[Path]) -> Generator:
    "The mean of the weights in several files, with the passport of the first and the number of files in it."
    mean = load_generator(paths[0])
    passport = mean.passport
    for count, path in enumerate(paths[1:], start=2):
        mean = interpolate_generators(mean, load_generator(path), 1 / count)
    mean.passport = {name: value for name, value in passport.items() if name != "validation_psnr_y"}
    mean.passport["mean_of_runs"] = len(paths)
    return mean


def road_between(srresnet: Generator, srgan: Generator) -> list[dict[str, float]]:
    "PSNR-Y and LPIPS on Set14 between an SRResNet and an SRGAN that was trained on from it."
    pairs = [read_pair(hr, lr) for _, hr, lr in find_pairs(find_dataset("Set14"))[0]]
    rows = perception_distortion(srresnet, srgan, pairs)
    return [{name: round(value, 4) for name, value in row.items()} for row in rows]


def write_joined_table(table: str, earlier: list[str], last: Path, path: Path) -> None:
    "The rows of the runs that led to the weights, one after another, their steps counted on; the last run's columns."
    rows, done = list[dict[str, str]](), 0
    for run, step in [*(each.rsplit(":", 1) for each in earlier), (last, sys.maxsize)]:
        with open(Path(run) / f"{table}.csv", newline="") as file:
            found = [row for row in csv.DictReader(file) if int(row["step"]) <= int(step)]
        names = list(found[-1])
        rows += [{**row, "step": str(done + int(row["step"]))} for row in found]
        done += int(step)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, restval="", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("name", choices=("srresnet", "srgan", "srresnet-base", "srgan-base"))
    parser.add_argument("--best", action="store_true", help="the weights of the best validation, not of the last step")
    parser.add_argument("--mean", nargs="*", default=[], type=Path, metavar="RUN", help="more runs to average with RUN")
    parser.add_argument("--after", nargs="*", default=[], metavar="RUN:STEP",
                        help="earlier runs of this stage, up to the step that the next one started from")
    parser.add_argument("--licence", default=LICENCE)
    parser.add_argument("--note", help="what the recipe does not tell, such as settings that changed on the way")
    options = parser.parse_args()
    file = "best.safetensors" if options.best else "generator.safetensors"
    weights, half = (Path(tempfile.mkdtemp()) / name for name in ("weights.safetensors", "half.safetensors"))
    generator = load_generator(options.run / file)
    if options.mean:
        generator = mean_generator([run / file for run in (options.run, *options.mean)])
    save_generator(generator, weights)
    save_generator(generator, half, dtype=torch.float16)
    cost = (evaluate("Set5", str(weights), progress=False).mean["psnr_y"]
            - evaluate("Set5", str(half), progress=False).mean["psnr_y"])
    dtype = torch.float16 if cost < 0.01 else torch.float32
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    passport = {**generator.passport, "commit": commit, "scores": rounded_scores(weights),
                "licence": options.licence}
    if options.note:
        passport["note"] = options.note
    if "srgan" in options.name:
        passport["road"] = road_between(load_generator(options.name.replace("srgan", "srresnet")), generator)
    save_generator(generator, SHIPPED / f"{options.name}.safetensors", passport, dtype)
    for table in ("log", "validation"):
        write_joined_table(table, options.after, options.run, package_file(f"curves/{options.name}-{table}.csv"))
    print(f"{options.name}: {dtype}, which costs {cost:.4f} dB on Set5; {passport['scores']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
