"""What the tests share: environment, photographs, weights, a run, reasons to skip, the seed. What imports torch does so inside."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.environment import prepare_environment

ROOT = Path(__file__).resolve().parents[1]
prepare_environment()
os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: there is a worker for each core


@pytest.fixture(scope="session")
def shared() -> Path:
    "The folder that SRGAN_NB_SHARED names; the test skips where there is none."
    folder = os.environ.get("SRGAN_NB_SHARED")
    if not folder or not Path(folder).is_dir():
        pytest.skip("SRGAN_NB_SHARED names no folder with data/ and weights/")
    return Path(folder)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A folder of photographs to train on."
    from tests.support.small_runs import made_up_photos
    return made_up_photos(tmp_path_factory.mktemp("made_up") / "photos")


@pytest.fixture(scope="session")
def trained(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A finished run of the first stage."
    from tests.support.small_runs import finished_run
    return finished_run(photos, tmp_path_factory.mktemp("runs") / "srresnet")


@pytest.fixture(scope="session")
def cleaned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "The project's notebooks as nbdev_clean leaves them."
    from tests.support.notebooks import NOTEBOOKS, clean_copies
    return clean_copies(NOTEBOOKS, tmp_path_factory.mktemp("cleaned") / "nbs")


@pytest.fixture(scope="session")
def copies(tmp_path_factory: pytest.TempPathFactory, cleaned: Path) -> Path:
    "The project's notebooks as they are judged, whatever a reader's JupyterLab has written into the files."
    from tests.support.notebooks import NOTEBOOKS, judged_copies
    return judged_copies(NOTEBOOKS, tmp_path_factory.mktemp("judged") / "nbs", cleaned)


@pytest.fixture(scope="session")
def judged_copy(copies: Path) -> Callable[[str], Path]:
    "The judged copy of the notebook that a file name names; the test skips where there is none."
    def find(name: str) -> Path:
        if not (copies / name).exists():
            pytest.skip("it was run and saved since it was cleaned, and no git says what it was")
        return copies / name
    return find


@pytest.fixture(autouse=True)
def the_same_random_numbers() -> None:
    "Whatever ran before, a test's random tensors are always the same ones."
    import torch
    torch.manual_seed(0)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda"):
        import torch
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
