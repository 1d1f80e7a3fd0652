"""What the tests share: where the repository is, the folder with photographs and weights, and the reasons to skip."""

import os
from pathlib import Path

import pytest

from tests.support.environment import prepare_environment

pytest_plugins = ["tests.support.small_runs"]  # the fixtures photos and trained
ROOT = Path(__file__).resolve().parents[1]

prepare_environment()


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
