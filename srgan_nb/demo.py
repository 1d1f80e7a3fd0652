"""`make demo`: both stages of SRGAN learn from photographs in installed packages and enlarge one they never saw.

    python -m srgan_nb.demo [--steps 500] [--out demo]

Trains the lite SRResNet for --steps updates, and the adversarial stage for four fifths as many, from the SRResNet that
comes with the package, since a judge of textures has little to teach a beginner. Then it writes OUT/result.png: LR,
bicubic, SRResNet, the start of stage 2, SRGAN, HR beside each other, and OUT/shipped_weights.png: the same by the weights
that come with the package. Interrupted, it says what was saved; run again it goes on from there. Offline; no GPU needed.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from srgan_nb.bicubic import downsample, upsample_bicubic
from srgan_nb.checkpoints import SHIPPED, load_generator
from srgan_nb.cli import exits_cleanly
from srgan_nb.errors import UserError, counted
from srgan_nb.files import write_atomically
from srgan_nb.images import demo_photo, read_image
from srgan_nb.metrics import lpips, psnr, texture
from srgan_nb.runs import RunFolder
from srgan_nb.settings import Settings, settings_for
from srgan_nb.trainer import Interrupted, Trainer

TRAINING_PHOTOS = ("coffee", "chelsea", "rocket", "hubble", "hopper")
HELD_OUT = "astronaut"
START = SHIPPED / "srresnet.safetensors"  # of stage 2
ADVERSARIAL: dict[str, Any] = dict(  # what differs from preset lite
    content="D", content_weight=0.05, pixel_weight=0.5, adversarial_weight=0.06, discriminator_luma=False,
    discriminator_channels=16, discriminator_learning_rate=1e-3, learning_rate=4e-4, schedule="constant", ema=0.98,
    patch_size=64)
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
    "SRResNet, then SRGAN from the shipped one; each goes on where an earlier run of the demo stopped."
    data, validation = (str(folder) for folder in photo_folders(out))
    shared = dict(data=data, validation=validation, device="cpu", log_every=10)
    first = dict(shared, steps=steps, validate_every=max(1, steps // 5), checkpoint_every=max(1, steps // 10))
    print(f"\nStage 1 of 2: SRResNet learns by pixel differences, {counted(steps, 'step')}", flush=True)
    stage_trainer(settings_for("srresnet", "lite", out=str(out / "srresnet"), **first)).fit()

    adversarial_steps = max(1, 4 * steps // 5)
    print(f"\nStage 2 of 2: SRGAN, a discriminator joins in, {counted(adversarial_steps, 'step')}\n"
          "It starts from the SRResNet that comes with the package, trained for hours; the content loss compares in the\n"
          "layers of the discriminator, so no VGG19 is needed", flush=True)
    second = dict(shared, **ADVERSARIAL, init=str(START), steps=adversarial_steps,
                  validate_every=max(1, adversarial_steps // 4), checkpoint_every=max(1, adversarial_steps // 8))
    stage_trainer(settings_for("srgan", "lite", out=str(out / "srgan"), **second)).fit()


@torch.inference_mode()
def enlarge_held_out(networks: dict[str, Path]) -> dict[str, torch.Tensor]:
    "Name -> picture (3, H, W) in [0, 1] of the held-out photo: LR, bicubic, by each of the networks' weights, HR."
    hr = read_image(demo_photo(HELD_OUT))[None]
    lr = downsample(hr)
    pictures = {"LR": lr, "bicubic": upsample_bicubic(lr)}
    pictures.update({name: load_generator(weights)(lr).clamp(0, 1) for name, weights in networks.items()})
    return {name: picture[0] for name, picture in {**pictures, "HR": hr}.items()}


def scores(pictures: dict[str, torch.Tensor]) -> dict[str, str]:
    "The PSNR on luma of each enlargement among the pictures."
    return {name: f"{psnr(picture, pictures['HR']).item():.2f} dB" for name, picture in pictures.items()
            if name not in ("LR", "HR")}


def save_comparison(pictures: dict[str, torch.Tensor], path: Path) -> None:
    "Draws the pictures side by side with an enlarged crop under each, into a PNG."
    import matplotlib
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    from srgan_nb.plots import show_images
    found = scores(pictures)
    titles = [f"{name}\n{found.get(name, '')}".rstrip() for name in pictures]
    show_images(list(pictures.values()), titles, crop=CROP)
    with write_atomically(path) as temporary:
        plt.savefig(temporary, dpi=160)
    plt.close()


def print_table(columns: dict[str, dict[str, torch.Tensor]]) -> None:
    "Prints the PSNR on luma, a row for each way, a column for each origin."
    found = {origin: scores(pictures) for origin, pictures in columns.items()}
    print("\n" + f"{'the held-out photo, by':<24}" + "".join(f"{origin:>18}" for origin in found))
    for way in next(iter(found.values())):
        print((f"{way:<24}" + "".join(f"{column.get(way, ''):>18}" for column in found.values())).rstrip())


def print_change(before: torch.Tensor, after: torch.Tensor, hr: torch.Tensor) -> None:
    "Prints what stage 2 did to the picture (3, H, W): its fine detail, and LPIPS where that needs no download."
    fine = [texture(picture, hr)["fine_power"] for picture in (before, after)]
    print(f"\nwhat stage 2 changed: fine detail {fine[0]:+.1f} -> {fine[1]:+.1f} dB, the photograph's own being 0", end="")
    if list(Path(torch.hub.get_dir(), "checkpoints").glob("squeezenet1_1-*")):
        with suppress(UserError):  # torchmetrics is not installed
            distances = [lpips(picture, hr).item() for picture in (before, after)]
            print(f";\nLPIPS {distances[0]:.3f} -> {distances[1]:.3f}, {1 - distances[1] / distances[0]:.0%} lower", end="")
    print()


@exits_cleanly
def demo(arguments: Sequence[str] | None = None) -> int:
    "srgan_demo: what `make demo` runs."
    parser = argparse.ArgumentParser("srgan_demo", description=__doc__.split("\n\n")[0])
    parser.add_argument("--steps", type=int, default=500, help="updates of SRResNet; four fifths as many for SRGAN (500)")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for everything the demo writes (demo)")
    options = parser.parse_args(arguments)
    if options.steps < 1:
        raise UserError(f"--steps is {options.steps}: it must be at least 1")
    try:
        train_both_stages(options.out, options.steps)
    except Interrupted as stop:
        print(f"\nstopped; what was learned is in {options.out}. Run the same command to go on.", file=sys.stderr)
        return 128 + stop.signal
    learned = enlarge_held_out({"SRResNet": options.out / "srresnet", "start of stage 2": START, "SRGAN": options.out / "srgan"})
    shipped = enlarge_held_out({"SRResNet": START, "SRGAN": SHIPPED / "srgan.safetensors"})  # trained longer
    save_comparison(learned, options.out / "result.png")
    save_comparison(shipped, options.out / "shipped_weights.png")
    print_table({"learned here": learned, "shipped weights": shipped})
    print_change(learned["start of stage 2"], learned["SRGAN"], learned["HR"])
    print(f"\nthe picture: {options.out / 'result.png'}, and by the shipped weights: {options.out / 'shipped_weights.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(demo())
