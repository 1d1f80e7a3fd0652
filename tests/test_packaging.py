"""What a user gets from pip: the wheel out of the sdist, alone in an empty folder; and how light its import is."""

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from filelock import FileLock

from tests.conftest import ROOT

pytestmark = pytest.mark.slow
SOURCES = ("nbs", "srgan_nb", "tests", "settings.ini", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")
BUILT_FROM = {"settings.ini", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "PKG-INFO", "setup.cfg"}
COMMANDS = ("srgan_train", "srgan_evaluate", "srgan_upscale", "srgan_download", "srgan_demo")
NOT_FOR_USERS = {"nbdev", "fastcore", "execnb", "IPython", "ipywidgets", "matplotlib", "skimage", "scipy", "onnx",
                 "onnxruntime", "tensorboard", "torchmetrics", "pytest"}


def python(code: str, cwd: Path, *options: str, **environment: str) -> str:
    done = subprocess.run([sys.executable, *options, "-c", code], cwd=cwd, text=True, capture_output=True,
                          env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout


def module(*arguments: str | Path) -> None:
    "python -m ARGUMENTS, without a network."
    done = subprocess.run([sys.executable, "-m", *arguments], env={**os.environ, "PIP_NO_INDEX": "1"}, text=True,
                          capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr


def build(folder: Path) -> None:
    "folder/dist: the sdist and the wheel that was built from it; folder/target: the wheel, by pip install --no-deps."
    (folder / "source").mkdir(parents=True)
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / "source" / name)
    module("build", "--no-isolation", "--outdir", folder / "dist", folder / "source")
    module("pip", "install", "--no-deps", "--target", folder / "target", next((folder / "dist").glob("*.whl")))


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    "The folder that `build` filled, once for all workers."
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "built"
    with FileLock(f"{folder}.lock"):
        if not (folder / "target").exists():
            shutil.rmtree(folder, ignore_errors=True)
            build(folder)
    return folder


@pytest.fixture(scope="session")
def dist(built: Path) -> Path:
    return built / "dist"


@pytest.fixture(scope="session")
def installed(built: Path) -> Path:
    return built / "target"


def settings() -> configparser.SectionProxy:
    found = configparser.ConfigParser(delimiters=["="], interpolation=None)
    found.read(ROOT / "settings.ini", encoding="utf-8")
    return found["DEFAULT"]


def test_facts_that_stand_twice_agree() -> None:
    "nbdev reads the name and the oldest Python in settings.ini, uv and pip in pyproject.toml."
    version = settings()["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^## (\S+)\b", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[1] == version
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'\nname = "{settings()["lib_name"]}"\n' in project
    assert f'\nrequires-python = ">={settings()["min_python"]}"\n' in project


def test_sdist_holds_what_the_wheel_is_built_from(dist: Path) -> None:
    "And neither tests nor notebooks: half of them could not be run."
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        names = {Path(each.name).relative_to(Path(each.name).parts[0]) for each in archive if each.isfile()}
    tops = {name.parts[0] for name in names}
    assert tops == BUILT_FROM | {"srgan_nb", "srgan_nb.egg-info"}


def test_wheel_holds_the_package_and_its_data(installed: Path) -> None:
    here = {path.relative_to(ROOT) for path in (ROOT / "srgan_nb").rglob("*")
            if path.is_file() and path.suffix != ".pyc" and not path.name.startswith(".")}
    there = {path.relative_to(installed) for path in (installed / "srgan_nb").rglob("*")
             if path.is_file() and path.suffix != ".pyc"}
    assert there == here
    others = [path.name for path in installed.iterdir() if path.suffix != ".dist-info"]
    assert set(others) == {"bin", "srgan_nb"}, "nothing else lands beside the user's other packages"


def test_works_where_it_was_installed(installed: Path, tmp_path: Path) -> None:
    "Its names, and its weights."
    code = ("import srgan_nb, torch\n"
            "names = {name: getattr(srgan_nb, name) for name in srgan_nb.__all__}\n"
            "lr = torch.rand(1, 3, 8, 9)\n"
            "assert names['Generator'].from_preset('lite')(lr).shape == (1, 3, 32, 36)\n"
            "from PIL import Image\nsmall = Image.new('RGB', (12, 10), 'teal')\n"
            "assert {srgan_nb.upscale(small, model=model).size for model in ('srresnet', 'srgan')} == {(48, 40)}\n"
            "print(srgan_nb.__file__)")
    assert Path(python(code, tmp_path, PYTHONPATH=str(installed)).strip()).is_relative_to(installed)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_installed_and_explain_themselves(command: str, installed: Path, tmp_path: Path) -> None:
    assert f"{command}=" in settings()["console_scripts"]
    done = subprocess.run([installed / "bin" / command, "--help"], cwd=tmp_path, text=True, capture_output=True,
                          env={**os.environ, "PYTHONPATH": str(installed)})
    assert done.returncode == 0 and command in done.stdout and not done.stderr, done.stderr


def test_without_the_photographs_the_demo_says_so_before_any_work(installed: Path, tmp_path: Path) -> None:
    "After a plain `pip install .` scikit-image is missing; the line is signed with the name that was typed."
    (tmp_path / "skimage.py").write_text("")  # found first, and without photographs
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(installed)])}
    done = subprocess.run([installed / "bin/srgan_demo", "--out", tmp_path / "demo"], cwd=tmp_path, env=environment,
                          text=True, capture_output=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert re.match(r"srgan_demo: the photo '\w+' comes with scikit-image, which is not installed", done.stderr)
    assert not (tmp_path / "demo").exists()


IMPORT = """
import json, sys
import torch, torchvision
loaded = [set(sys.modules)]
import srgan_nb
loaded.append(set(sys.modules))
names = [getattr(srgan_nb, name) for name in srgan_nb.__all__]
loaded.append(set(sys.modules))
print(json.dumps([sorted({name.split(".")[0] for name in more - loaded[0]}) for more in loaded]))
"""


def test_import_is_light(tmp_path: Path) -> None:
    "Itself alone beyond torch and torchvision; and no tool for notebooks, plots or tests, whatever name is used."
    _, imported, used = json.loads(python(IMPORT, tmp_path))
    assert imported == ["srgan_nb"]
    assert not set(used) & NOT_FOR_USERS


def test_missing_name_is_an_attribute_error() -> None:
    import srgan_nb
    assert not hasattr(srgan_nb, "no_such_name")
    assert set(srgan_nb.__all__) <= set(dir(srgan_nb))
