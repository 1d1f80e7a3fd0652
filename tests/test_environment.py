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


def put(clone: Path, name: str, script: str) -> None:
    (clone / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
    (clone / "bin" / name).chmod(0o755)


def make(clone: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "MAKE", "MFLAGS"))}
    path = f"{clone / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(["make", *arguments], cwd=clone, text=True, capture_output=True,
                          env={**kept, "PATH": path, **environment})


def test_every_target_makes_the_environment_once(clone: Path) -> None:
    for target in ("demo", "lab", "test", "browser-test", "export", "notebooks"):
        assert ".ci/venv .venv" in make(clone, "--dry-run", target).stdout
    (clone / ".venv").mkdir()
    (clone / ".venv/installed").touch()
    assert ".ci/venv" not in make(clone, "--dry-run", "demo").stdout
    os.utime(clone / ".venv/installed", (0, 0))
    assert ".ci/venv" in make(clone, "--dry-run", "demo").stdout, "older than settings.ini"


def test_lab_opens_the_index_with_the_settings_of_the_project(clone: Path) -> None:
    (clone / ".venv").mkdir()
    (clone / ".venv/installed").touch()
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
