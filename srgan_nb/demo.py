"""`make demo`: both stages of SRGAN learn from photographs in installed packages and enlarge one they never saw.

    python -m srgan_nb.demo [--steps 500] [--out demo]

Trains the lite SRResNet for --steps updates and the adversarial stage for a quarter as many, then writes
OUT/result.png: LR, bicubic, SRResNet, SRGAN, HR beside each other, and OUT/shipped_weights.png: the same by the weights
that come with the package. Interrupted, it says what was saved; run again it goes on from there. Offline; no GPU needed.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from srgan_nb.bicubic import downsample, upsample_bicubic
from srgan_nb.checkpoints import SHIPPED, load_generator
from srgan_nb.cli import exits_cleanly
from srgan_nb.errors import UserError, counted
from srgan_nb.files import write_atomically
from srgan_nb.images import demo_photo, read_image
from srgan_nb.losses import find_vgg_weights
from srgan_nb.metrics import psnr
from srgan_nb.runs import RunFolder
from srgan_nb.settings import Settings, settings_for
from srgan_nb.trainer import Interrupted, Trainer

TRAINING_PHOTOS = ("coffee", "chelsea", "rocket", "hubble", "hopper")
HELD_OUT = "astronaut"
CROP = (48, 160, 120, 128)  # top, left, height, width in HR pixels: what the picture shows enlarged


def photo_folders(out: Path) -> tuple[Path, Path]:
    "Copies the photographs into OUT/photos/train and OUT/photos/held_out; returns the two folders."
    folders = out / "photos" / "train", out / "photos" / "held_out"
    photos = [demo_photo(name) for name in TRAINING_PHOTOS], [demo_photo(HELD_OUT)]  # what is missing is told before work
    for folder, sources in zip(folders, photos, strict=True):
        folder.mkdir(parents=True, exist_ok=True)
        for source in sources:
            if not (folder / source.name).exists():
                with write_atomically(folder / source.name) as temporary:
                    shutil.copyfile(source, temporary)
    return folders


def stage_trainer(settings: Settings) -> Trainer:
    "A trainer for a new run, or for one that was interrupted in the same folder."
    folder = str(settings.out)
    if RunFolder(folder).exists():
        return Trainer.resume(folder, steps=settings.steps)
    return Trainer(settings)


def train_both_stages(out: Path, steps: int) -> None:
    "SRResNet, then SRGAN from it; each goes on where an earlier run of the demo stopped."
    data, validation = (str(folder) for folder in photo_folders(out))
    shared = dict(data=data, validation=validation, device="cpu", log_every=10)
    first = dict(shared, steps=steps, validate_every=max(1, steps // 5), checkpoint_every=max(1, steps // 10))
    print(f"\nStage 1 of 2: SRResNet learns by pixel differences, {counted(steps, 'step')}", flush=True)
    stage_trainer(settings_for("srresnet", "lite", out=str(out / "srresnet"), **first)).fit()

    vgg, adversarial_steps = find_vgg_weights(), max(1, steps // 4)
    content = dict(vgg_weights=str(vgg)) if vgg else dict(content="MSE", adversarial_weight=1e-3)
    print(f"\nStage 2 of 2: SRGAN, a discriminator joins in, {counted(adversarial_steps, 'step')}", flush=True)
    if not vgg:
        print("The content loss is MSE, since no VGG19 weights are here; name their file in SRGAN_NB_VGG to have features")
    second = dict(shared, steps=adversarial_steps, validate_every=max(1, adversarial_steps // 4),
                  checkpoint_every=max(1, adversarial_steps // 8))
    init = f"{out}/srresnet"  # with a slash it can't be the shipped one's name
    stage_trainer(settings_for("srgan", "lite", out=str(out / "srgan"), init=init, **content, **second)).fit()


@torch.inference_mode()
def enlarge_held_out(srresnet: Path | str, srgan: Path | str) -> dict[str, torch.Tensor]:
    "Title -> picture (3, H, W) in [0, 1] of the held-out photo, by each way, with its PSNR on luma."
    hr = read_image(demo_photo(HELD_OUT))[None]
    lr = downsample(hr)
    ways = {"bicubic": upsample_bicubic(lr)}
    ways.update({name: load_generator(weights)(lr).clamp(0, 1)
                 for name, weights in (("SRResNet", srresnet), ("SRGAN", srgan))})
    pictures = {"LR": lr[0]}
    pictures.update({f"{name}, {psnr(sr, hr).item():.2f} dB": sr[0] for name, sr in ways.items()})
    return {**pictures, "HR": hr[0]}


def save_comparison(pictures: dict[str, torch.Tensor], path: Path) -> None:
    "Draws the pictures side by side with an enlarged crop under each, into a PNG."
    import matplotlib
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    from srgan_nb.plots import show_images
    show_images(list(pictures.values()), list(pictures), crop=CROP)
    with write_atomically(path) as temporary:
        plt.savefig(temporary, dpi=160)
    plt.close()


def print_table(columns: dict[str, dict[str, torch.Tensor]]) -> None:
    "Prints the PSNR on luma that stands in the pictures' titles, a row for each way, a column for each origin."
    scores = {origin: dict(title.split(", ") for title in pictures if "," in title) for origin, pictures in columns.items()}
    print("\n" + f"{'the held-out photo, by':<24}" + "".join(f"{origin:>18}" for origin in scores))
    for way in next(iter(scores.values())):
        print(f"{way:<24}" + "".join(f"{found[way]:>18}" for found in scores.values()))


@exits_cleanly
def demo(arguments: Sequence[str] | None = None) -> int:
    "srgan_demo: what `make demo` runs."
    parser = argparse.ArgumentParser("srgan_demo", description=__doc__.split("\n\n")[0])
    parser.add_argument("--steps", type=int, default=500, help="updates of SRResNet; a quarter for SRGAN (500)")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for everything the demo writes (demo)")
    options = parser.parse_args(arguments)
    if options.steps < 1:
        raise UserError(f"--steps is {options.steps}: it must be at least 1")
    try:
        train_both_stages(options.out, options.steps)
    except Interrupted as stop:
        print(f"\nstopped; what was learned is in {options.out}. Run the same command to go on.", file=sys.stderr)
        return 128 + stop.signal
    learned = enlarge_held_out(options.out / "srresnet", options.out / "srgan")
    shipped = enlarge_held_out(SHIPPED / "srresnet.safetensors", SHIPPED / "srgan.safetensors")  # trained longer
    save_comparison(learned, options.out / "result.png")
    save_comparison(shipped, options.out / "shipped_weights.png")
    print_table({"learned here": learned, "shipped weights": shipped})
    print(f"\nthe picture: {options.out / 'result.png'}, and by the shipped weights: {options.out / 'shipped_weights.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(demo())
