"""Every notebook by nbdev_test, each in a process of its own; two pytest workers run two of them at a time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))
NBDEV_TEST = Path(sys.executable).with_name("nbdev_test")


def run_notebook(path: Path, private: Path, cwd: Path = ROOT) -> tuple[int, str]:
    "The exit status and all output of nbdev_test over one notebook, which writes what it writes into `private`."
    environment = {**os.environ, "MPLBACKEND": "agg", "TMPDIR": str(private), "SRGAN_NB_DATA": str(private / "data")}
    command = [NBDEV_TEST, "--path", path, "--n_workers", "0", "--do_print"]
    done = subprocess.run(command, cwd=cwd, env=environment, text=True, errors="replace", stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    return done.returncode, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, tmp_path: Path) -> None:
    status, output = run_notebook(path, tmp_path)
    assert status == 0, output[-8000:]


@pytest.mark.slow
def test_a_failing_cell_fails_the_notebook(tmp_path: Path) -> None:
    "The guard that the tests above can fail: a notebook whose one assertion is wrong."
    (tmp_path / "settings.ini").write_bytes((ROOT / "settings.ini").read_bytes())
    (tmp_path / "nbs").mkdir()
    (tmp_path / "nbs" / "wrong.ipynb").write_text(
        '{"cells": [{"cell_type": "code", "execution_count": null, "id": "a", "metadata": {}, "outputs": [],'
        ' "source": ["assert 1 + 1 == 3"]}], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
    status, output = run_notebook(tmp_path / "nbs" / "wrong.ipynb", tmp_path, tmp_path)
    assert status == 1 and "AssertionError" in output
