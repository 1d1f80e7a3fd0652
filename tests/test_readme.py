"""Every command and every line of Python in the README, run: long ones with short settings, all without a network."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import urllib.request
from collections.abc import Callable
from glob import glob
from pathlib import Path

import pytest

from srgan_nb.settings import PRESETS, settings_for
from tests.conftest import ROOT
from tests.support.figures import FIGURES, figure
from tests.support.notebooks import NOTEBOOKS
from tests.support.processes import run_module
from tests.support.waiting import wait_for

README = (ROOT / "README.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent
BLOCKS = [block.splitlines() for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)]
WITHOUT_MAKE, = (block for block in BLOCKS if ".venv" in block[0])
BY_MAKE = {  # command -> what make starts, and the test that runs it
    "make demo": ("python -m srgan_nb.demo --out demo", "tests/test_demo.py::test_stopped_and_run_again"),
    "make test": ('python -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal -m "not browser"', "this run"),
    "make lab": ("jupyter lab", "tests/test_readme.py::test_make_lab_serves_the_start_page"),
}
SMALL = "--discriminator-channels 4 --discriminator-dense 8 --batch-size 2 --patch-size 48 --held-out 1"
SHORTENED = {  # how a command begins -> what makes it short
    "srgan_train srresnet --data": f"--steps 2 {SMALL}",
    "srgan_train srgan --init": f"--steps 1 --content MSE --adversarial-weight 0.001 {SMALL}",
    "srgan_train srgan --resume": "--steps 2",
    "srgan_evaluate Set5": "--limit 1",
}


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    "A folder as the README takes it for granted: photo.jpg, photos, holiday pictures, somebody else's enlargements."
    from srgan_nb.images import demo_photo, open_image, to_rgb
    for folder, names in {"photos": ("coffee", "chelsea", "rocket"), "holiday": ("chelsea",)}.items():
        (tmp_path / folder).mkdir()
        for name in names:
            to_rgb(open_image(demo_photo(name))).crop((100, 50, 228, 146)).save(tmp_path / folder / f"{name}.png")
    shutil.copytree(tmp_path / "photos", tmp_path / "theirs")
    to_rgb(open_image(demo_photo("astronaut"))).crop((118, 20, 246, 84)).save(tmp_path / "photo.jpg")
    return tmp_path


def run(command: str, folder: Path, **more: str) -> subprocess.CompletedProcess:
    "By a shell what only a shell understands; for the others, what test_packaging.py tests of their names is taken as given."
    nowhere = "http://127.0.0.1:9"  # what is not on this machine can't be reached
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "http_proxy": nowhere,
                   "https_proxy": nowhere, **more}
    if ours := re.fullmatch(r"(?:srgan_|python -m srgan_nb )(\w+ [^<>|]*)", command):
        words = [name for word in shlex.split(ours[1]) for name in glob(word, root_dir=folder) or [word]]
        return run_module(["srgan_nb", *words], folder, environment)
    return subprocess.run(command, shell=True, cwd=folder, env=environment, text=True, capture_output=True)


@pytest.mark.slow
@pytest.mark.parametrize("block", [block for block in BLOCKS if block is not WITHOUT_MAKE], ids=lambda block: block[0])
def test_commands(block: list[str], desk: Path, request: pytest.FixtureRequest) -> None:
    for command in block:
        if command.startswith("make "):
            started, _ = BY_MAKE[command]
            done = run(f"{command} --dry-run --old-file=.venv/installed", ROOT)
            assert started in " ".join(done.stdout.split())
        elif command.startswith("srgan_download"):  # test_downloads.py has the downloads; here, the lines that say why not
            done = run(command, desk, SRGAN_NB_DATA=str(desk / "data"))
            assert done.returncode == 1 and len(done.stderr.splitlines()) < 40 and "Traceback" not in done.stderr
            continue
        else:
            if command.startswith("srgan_evaluate Set5"):
                request.getfixturevalue("shared")
            command = command.replace("--nproc-per-node 4", "--local-addr 127.0.0.1 --nproc-per-node 2")  # four: test_upscaling.py
            done = run(f"{command} {next((SHORTENED[start] for start in SHORTENED if command.startswith(start)), '')}", desk)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_python(desk: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        done = subprocess.run([sys.executable, "-c", block], cwd=desk, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr
    from PIL import Image, ImageChops

    from srgan_nb import upscale
    with Image.open(desk / "photo_onnx.png") as by_onnx:  # the block that needs neither torch nor this package
        difference = ImageChops.difference(by_onnx, upscale(desk / "photo.jpg"))
    assert max(high for _, high in difference.getextrema()) <= 1


def answers(log: Path) -> bool:
    "Whether the address that JupyterLab wrote into its log, once it has, leads to JupyterLab."
    found = re.search(r"http://127\S+/lab\S*", log.read_text(encoding="utf-8"))
    try:
        with urllib.request.urlopen(found[0]) as page:
            return page.status == 200 and b"JupyterLab" in page.read()
    except (TypeError, OSError):  # nothing in the log yet, or the server does not listen yet
        return False


@pytest.mark.slow
def test_make_lab_serves_the_start_page(tmp_path: Path) -> None:
    "`make lab` as it is, with a browser that does nothing; its address answers."
    private = {name: str(tmp_path / name) for name in
               ("JUPYTER_CONFIG_DIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR", "JUPYTER_RUNTIME_DIR")}
    environment = {**os.environ, **private, "BROWSER": "true", "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    command = ["make", "--old-file=.venv/installed", "lab"]
    with open(tmp_path / "log", "w", encoding="utf-8") as log:
        lab = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(lambda: answers(tmp_path / "log") or lab.poll() is not None, "JupyterLab's start page")
        assert lab.poll() is None, (tmp_path / "log").read_text()
    finally:
        if lab.poll() is None:
            os.killpg(lab.pid, signal.SIGTERM)
            lab.wait()


@pytest.mark.slow
def test_without_make(tmp_path: Path) -> None:
    "In a copy of the project, without a network: packages that are here stand in for those that pip would fetch."
    for name in ("settings.ini", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "srgan_nb", tmp_path / "srgan_nb")
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment = {**kept, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
                   "PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}

    def said(command: str) -> str:
        done = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, text=True, capture_output=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    venv, install, demo, lab, test = WITHOUT_MAKE
    said(venv)
    folder = Path(said('.venv/bin/python -c "import sysconfig; print(sysconfig.get_path(\'purelib\'))"').strip())
    shutil.rmtree(folder / "setuptools", ignore_errors=True)  # the old one that Python 3.11 brings
    (folder / "here.pth").write_text(sysconfig.get_path("purelib"))
    said(install)
    assert (folder / "__editable__.srgan_nb-0.1.0.pth").read_text().strip() == str(tmp_path), "as type checkers need it"
    assert "srgan_demo" in said(f"{demo} --help")
    assert said(f"{lab} --version") and "pytest" in said(f"{test} --version")


def test_the_table_of_hours_is_of_the_presets_and_adds_up() -> None:
    rows = re.findall(r"^\| (\w+) \| (srresnet|srgan) \|" + 5 * r" ([\d.,]+) \|" + "$", README, re.MULTILINE)
    assert {(stage, preset) for preset, stage, *_ in rows} == PRESETS.keys()
    for preset, stage, patches, side, seconds, updates, hours in rows:
        settings = settings_for(stage, preset, init="srresnet")
        assert (int(patches), int(side), updates) == (settings.batch_size, settings.patch_size, f"{settings.steps:,}")
        assert float(hours) == pytest.approx(settings.steps * float(seconds) / 3600, rel=0.05)


def test_table_names_every_notebook() -> None:
    listed = re.findall(r"^\| \[(\w+)\]\(nbs/\1\.ipynb\) \|", README, re.MULTILINE)
    assert listed == [path.stem for path in NOTEBOOKS if path.stem != "index"]


@pytest.mark.parametrize("path", FIGURES)
def test_pictures_are_the_notebooks_figures(path: str, judged_copy: Callable[[str], Path]) -> None:
    notebook, cell = FIGURES[path]
    taken = figure(judged_copy(f"{notebook}.ipynb"), cell)
    assert (ROOT / path).read_bytes() == taken, "python -m tests.support.figures takes it anew"
    assert f"]({path})" in README


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_and_files_are_there(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", text) if "://" not in target]
    targets += re.findall(r"\b(?:tests|nbs|srgan_nb)/(?:\w+/)*\w*\.?\w*", text)
    assert not [target for target in targets if not (ROOT / target).exists()]
