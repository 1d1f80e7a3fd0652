"""The rule that makes .venv: when it runs, and the one line it says for each common trouble."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    "What the rule reads, in a folder with a name such as people give; programs put into its bin/ come first."
    folder = tmp_path / "Fotos für später"
    (folder / "bin").mkdir(parents=True)
    for name in ("Makefile", "settings.ini", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / ".ci", folder / ".ci")
    return folder


def stand_in(clone: Path, name: str, script: str) -> None:
    (clone / name).parent.mkdir(parents=True, exist_ok=True)
    (clone / name).write_text(f"#!/bin/sh\n{script}\n")
    (clone / name).chmod(0o755)


def put(clone: Path, name: str, script: str) -> None:
    stand_in(clone, f"bin/{name}", script)


def made(clone: Path) -> None:
    "As if the environment had been made: what the rule writes at its end."
    (clone / ".venv").mkdir()
    said = "pwd -P; cat settings.ini setup.py pyproject.toml | cksum"
    (clone / ".venv/installed").write_text(subprocess.run(said, shell=True, cwd=clone, text=True, capture_output=True).stdout)


def make(clone: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "MAKE", "MFLAGS"))}
    path = f"{clone / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(["make", *arguments], cwd=clone, text=True, capture_output=True,
                          env={**kept, "PATH": path, **environment})


def test_every_target_makes_the_environment_once(clone: Path) -> None:
    for target in ("demo", "lab", "test", "browser-test", "export", "notebooks"):
        assert ".ci/venv .venv" in make(clone, "--dry-run", target).stdout
    made(clone)
    assert ".ci/venv" not in make(clone, "--dry-run", "demo").stdout
    os.utime(clone / ".venv/installed", (0, 0))
    assert ".ci/venv" in make(clone, "--dry-run", "demo").stdout, "older than settings.ini"
    (clone / ".venv/installed").write_text("/elsewhere\n")
    assert ".ci/venv" in make(clone, "--dry-run", "demo").stdout, "made in another place"


def test_nothing_is_installed_again_where_the_files_are_newer_and_the_same(clone: Path) -> None:
    made(clone)
    os.utime(clone / ".venv/installed", (0, 0))  # as after `git checkout` of another branch and back
    stand_in(clone, ".venv/bin/python", "touch asked; exit 0")
    done = make(clone, "export")
    assert not (clone / "asked").exists() and (clone / ".venv/installed").stat().st_mtime > 0, done.stdout + done.stderr
    (clone / "settings.ini").write_text((clone / "settings.ini").read_text() + "\n")
    os.utime(clone / ".venv/installed", (0, 0))
    make(clone, "export")
    assert (clone / "asked").exists(), "another settings.ini"


def test_a_moved_clone_is_told(clone: Path) -> None:
    made(clone)
    stand_in(clone, ".venv/bin/pip", "exit 1")  # its first line would name a Python that is no longer there
    moved = clone.rename(clone.with_name("moved"))
    done = make(moved, "demo")
    assert done.returncode and "this folder was moved after .venv was made, or its Python is gone: delete .venv" in done.stderr


def test_lab_opens_the_index_with_the_settings_of_the_project(clone: Path) -> None:
    made(clone)
    put(clone, "jupyter", 'printf "%s\\n" "$JUPYTER_CONFIG_PATH" "$@"')
    settings, *arguments = make(clone, "lab").stdout.splitlines()
    assert Path(settings) == clone / ".ci/jupyter"
    assert arguments[0] == "lab" and arguments[-1] == "nbs/index.ipynb"


def test_an_old_python_is_named(clone: Path) -> None:
    put(clone, "oldpython", '[ "$1" = --version ] && echo Python 3.6.15; exit 1')
    done = make(clone, "demo", PYTHON="oldpython")
    assert done.returncode and "Python 3.10 or newer is needed" in done.stderr
    assert not (clone / ".venv").exists()


def test_a_full_disk_is_named(clone: Path) -> None:
    put(clone, "df", "printf 'Filesystem blocks used free\\n/dev/disk 9000000 8000000 1000000 89%% /\\n'")
    done = make(clone, "demo", PYTHON=sys.executable)
    assert done.returncode and "the packages need about 7 GB, this disk has 1 GB free: make room" in done.stderr
    assert not (clone / ".venv").exists()


@pytest.mark.slow
def test_a_missing_network_is_named(clone: Path) -> None:
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull}
    done = make(clone, "demo", PYTHON=sys.executable, **nowhere)
    assert done.returncode and "could not reach the package index: check the network" in done.stderr.splitlines()[-2]
    assert not (clone / ".venv/installed").exists()
