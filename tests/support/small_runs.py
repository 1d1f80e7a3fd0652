"""Training runs small enough for tests: made-up photographs, tiny networks, and how two runs are compared."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from srgan_nb.checkpoints import load_state
from srgan_nb.runs import RunFolder
from srgan_nb.settings import settings_for
from srgan_nb.trainer import Trainer

SMALL = dict(steps=8, batch_size=4, patch_size=16, channels=4, blocks=1, held_out=1, log_every=2, validate_every=4,
             checkpoint_every=4, device="cpu", threads=1)
SMALL_GAN = dict(SMALL, content="MSE", adversarial_weight=1e-3, discriminator_channels=4, discriminator_dense=8)


def made_up_photos(folder: Path) -> Path:
    "Five small pictures of smooth noise in a new folder."
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(5):
        coarse = Image.fromarray(random.integers(0, 256, (10, 12, 3), dtype=np.uint8))
        coarse.resize((48, 40), Image.BICUBIC).save(folder / f"{i}.png")
    return folder


def finished_run(photos: Path, out: Path) -> Path:
    "Trains a first stage into `out`."
    Trainer(settings_for("srresnet", "lite", data=str(photos), out=str(out), **SMALL), quiet=True).fit()
    return out


def run_settings(stage, photos, trained, out, **changes):
    sizes = SMALL if stage == "srresnet" else dict(SMALL_GAN, init=str(trained))
    return settings_for(stage, "lite", data=str(photos), out=str(out), **{**sizes, **changes})


def final_state(out: Path) -> dict:
    return load_state(RunFolder(out).saved()[-1])


def assert_same(first, second, where="state") -> None:
    "Two trees of tensors and numbers are equal in every bit; what the clock decides is left out."
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for name in first.keys() - {"seconds"}:
            assert_same(first[name], second[name], f"{where}.{name}")
    elif isinstance(first, list):
        for i, (a, b) in enumerate(zip(first, second, strict=True)):
            assert_same(a, b, f"{where}[{i}]")
    else:
        assert first == second, where
