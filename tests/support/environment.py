"""The environment in which tests and notebooks run: nothing of the user's settings, folders of their own, what is at hand."""

import atexit
import os
import shutil
import site
import tempfile
from collections.abc import Mapping
from pathlib import Path

FORGOTTEN = (  # beginnings of the names of variables that change what Python, torch, Jupyter or a shell's tools do
    "SRGAN_NB_DATA", "SRGAN_NB_VGG", "TORCH", "PYTORCH_", "TRITON_", "OMP_", "MKL_", "RANK", "LOCAL_RANK", "WORLD_SIZE",
    "XDG_", "JUPYTER", "JPY_", "IPYTHON", "IPY_", "MPL", "MATPLOTLIB", "IN_TEST", "LANG", "LC_", "COLUMNS", "LINES",
    "FORCE_COLOR", "PYTHONWARNINGS", "PYTHONOPTIMIZE", "PYTHONHASHSEED", "PYTHONUTF8", "PIP_", "UV_", "MAKE", "MFLAGS", "GIT_",
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
AT_HAND = {  # variable -> its place in the folder that SRGAN_NB_SHARED names
    "TORCH_HOME": "torch_home",  # LPIPS's network
    "SRGAN_NB_VGG": "weights/vgg19_conv3_1.pth", "SRGAN_NB_VGG16": "weights/vgg16_conv5_3.safetensors"}


def private_environment(environment: Mapping[str, str], folder: Path) -> dict[str, str]:
    "`environment` without the user's settings; home, caches, data and temporary files below `folder`, which is made."
    kept = {name: value for name, value in environment.items() if not name.upper().startswith(FORGOTTEN)}
    home, temporary, data = (folder / name for name in ("home", "tmp", "data"))
    for new in (home, temporary, data):
        new.mkdir(parents=True)
    shared = Path(environment.get("SRGAN_NB_SHARED", "/nowhere"))
    for benchmark in (shared / "data/benchmarks").glob("*"):
        (data / benchmark.name).symlink_to(benchmark.resolve())
    at_hand = {variable: str(shared / place) for variable, place in AT_HAND.items() if (shared / place).exists()}
    return {**kept, **dict.fromkeys(("HOME", "USERPROFILE"), str(home)), "PYTHONUSERBASE": site.getuserbase(),
            **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary)), "SRGAN_NB_DATA": str(data), **at_hand,
            "LC_ALL": "C.UTF-8", "COLUMNS": "80"}


def prepare_environment() -> None:
    """Gives this process and all that it starts an environment in a new folder, which goes when the process ends.

    SRGAN_NB_SHARED, where it is set, names a folder with data/benchmarks/, weights/ and torch_home/: the benchmark
    sets become links in the data folder, and variables name the weights and LPIPS's network that are there.
    """
    folder = Path(tempfile.mkdtemp(prefix="srgan_nb-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    environment = private_environment(os.environ, folder)
    os.environ.clear()
    os.environ.update(environment)
