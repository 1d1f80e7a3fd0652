"""What the tests share: where the repository is, the folder with photographs and weights, and the reasons to skip."""

import os
from pathlib import Path

import pytest

pytest_plugins = ["tests.support.small_runs"]  # the fixtures photos and trained
ROOT = Path(__file__).resolve().parents[1]

# SRGAN_NB_SHARED names a folder with data/, weights/ and torch_home/; the last one holds LPIPS's network.
for variable, place in {"TORCH_HOME": "torch_home", "SRGAN_NB_VGG": "weights/vgg19_conv3_1.pth",
                        "SRGAN_NB_VGG16": "weights/vgg16_conv5_3.safetensors"}.items():
    there = Path(os.environ.get("SRGAN_NB_SHARED", "/nowhere"), place)
    if there.exists():
        os.environ.setdefault(variable, str(there))


@pytest.fixture(scope="session")
def shared() -> Path:
    "The folder that SRGAN_NB_SHARED names; the test skips where there is none."
    folder = os.environ.get("SRGAN_NB_SHARED")
    if not folder or not Path(folder).is_dir():
        pytest.skip("SRGAN_NB_SHARED names no folder with data/ and weights/")
    return Path(folder)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda"):
        import torch
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
