"""What a type checker tells a user: nothing where the use is right, and every wrong name, option and kind."""

import re
import subprocess
import sys
from inspect import signature
from pathlib import Path

import pytest

import srgan_nb
from srgan_nb.upscaling import Upscaler
from tests.conftest import ROOT

RIGHT = """
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from typing_extensions import assert_type

import srgan_nb

generator = srgan_nb.load_generator("srresnet")
assert_type(srgan_nb.upscale(Path("photo.jpg"), max_memory="1GB"), Image.Image)
assert_type(srgan_nb.upscale(Image.new("RGB", (4, 4)), model=generator), Image.Image)
assert_type(srgan_nb.upscale(torch.zeros(3, 4, 4), device="cpu"), torch.Tensor)
srgan_nb.upscale(np.zeros((4, 4, 3), np.uint8)).astype(np.float32)
print(srgan_nb.download("Set5")["Set5"].name, srgan_nb.evaluate("Set5").mean, srgan_nb.diagnose("runs/srgan"))
print(srgan_nb.Generator(channels=32), srgan_nb.Discriminator(), srgan_nb.VGGContentLoss("VGG22"), srgan_nb.__version__)
srgan_nb.Trainer.resume("runs/srgan").fit()
"""
WRONG = """
import torch, srgan_nb
srgan_nb.upscael("photo.jpg")
srgan_nb.upscale("photo.jpg", modle="srgan")
srgan_nb.upscale("photo.jpg", max_memory=[1])
srgan_nb.upscale(3)
srgan_nb.upscale("photo.jpg").shape
srgan_nb.upscale(torch.zeros(3, 4, 4)).save("photo_x4.png")
srgan_nb.load_generator("srgan", devise="cuda")
srgan_nb.Generator(chanels=32)
srgan_nb.Discriminator(chanels=32)
srgan_nb.VGGContentLoss(layers="VGG22")
srgan_nb.evaluate("Set5", models=["srgan"])
srgan_nb.diagnose()
srgan_nb.download("Set5", to="data")
srgan_nb.Trainer.resume("runs/srgan").train()
"""


@pytest.mark.slow
def test_mypy(tmp_path: Path) -> None:
    "The package, the examples of its docstring and the README, RIGHT: clean. WRONG: an error in every line."
    readme = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    docstring = re.findall(r"^    (.*)", srgan_nb.__doc__, re.MULTILINE)
    programs = {"docstring": "\n".join(docstring), "readme": "\n".join(readme), "right": RIGHT, "wrong": WRONG}
    for name, text in programs.items():
        (tmp_path / f"{name}.py").write_text(text)
    done = subprocess.run([sys.executable, "-m", "mypy", "srgan_nb", *tmp_path.glob("*.py")], cwd=ROOT, text=True,
                          capture_output=True)
    errors = re.findall(r"^(.*?):(\d+): error: .*", done.stdout, re.MULTILINE)
    seen = {int(line) for file, line in errors if Path(file).name == "wrong.py"}
    others = [line for line in done.stdout.splitlines() if "wrong.py" not in line and ": error:" in line]
    assert not done.stderr and not others
    lines = WRONG.splitlines()
    assert not [line for number, line in enumerate(lines, start=1) if line.startswith("srgan_nb") and number not in seen]


def test_upscale_takes_every_option_of_its_upscaler() -> None:
    whole, kept = (list(signature(one).parameters.values()) for one in (srgan_nb.upscale, Upscaler))
    assert whole[1:] == kept
