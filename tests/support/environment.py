"""The environment in which tests and notebooks run: a data folder of their own, and in it what lies at hand."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path


def prepare_environment() -> None:
    """Names a new folder, which goes at the end, as SRGAN_NB_DATA, so that nothing is read from or left in the user's.

    SRGAN_NB_SHARED, where it is set, names a folder with data/benchmarks/, weights/ and torch_home/: the benchmark
    sets become links in the data folder, and variables name the weights and LPIPS's network that are there.
    """
    data = Path(tempfile.mkdtemp(prefix="srgan_nb_data_"))
    atexit.register(shutil.rmtree, data, ignore_errors=True)
    os.environ["SRGAN_NB_DATA"] = str(data)
    shared = Path(os.environ.get("SRGAN_NB_SHARED", "/nowhere"))
    for folder in (shared / "data/benchmarks").glob("*"):
        (data / folder.name).symlink_to(folder.resolve())
    for variable, place in {"TORCH_HOME": "torch_home", "SRGAN_NB_VGG": "weights/vgg19_conv3_1.pth",
                            "SRGAN_NB_VGG16": "weights/vgg16_conv5_3.safetensors"}.items():
        if (shared / place).exists():
            os.environ.setdefault(variable, str(shared / place))
