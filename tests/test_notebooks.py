"""Every notebook by nbdev_test, alone in a folder, in a process of its own; two pytest workers run two at a time."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.notebooks import BIN, NOTEBOOKS


def run_notebook(path: Path, private: Path) -> tuple[int, str]:
    """The exit status and all output of nbdev_test over a copy of one notebook, which writes what it writes into `private`.

    Nothing lies beside the copy, and a file that it leaves there is a failure too.
    """
    folder = private / "alone"
    folder.mkdir()
    shutil.copy(ROOT / "settings.ini", private)
    environment = {**os.environ, "MPLBACKEND": "agg", "TMPDIR": str(private), "SRGAN_NB_DATA": str(private / "data")}
    command = [BIN / "nbdev_test", "--path", shutil.copy(path, folder), "--n_workers", "0", "--do_print"]
    done = subprocess.run(command, cwd=private, env=environment, text=True, errors="replace", stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    left = sorted(file.name for file in folder.iterdir() if file.name != path.name)
    return done.returncode or len(left), done.stdout + (f"\nleft in the notebook's folder: {left}" if left else "")


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, tmp_path: Path) -> None:
    status, output = run_notebook(path, tmp_path)
    assert status == 0, output[-8000:]


@pytest.mark.parametrize(("source", "trouble"), [
    ("assert 1 + 1 == 3", "AssertionError"),
    ("open('table.csv')", "FileNotFoundError"),
    ("open('result.png', 'w').close()", "left in the notebook's folder: ['result.png']"),
], ids=["wrong", "needs a neighbour", "leaves a file"])
def test_a_failing_cell_fails_the_notebook(source: str, trouble: str, tmp_path: Path) -> None:
    "The guard that the tests above can fail."
    (tmp_path / "table.csv").touch()
    cell = dict(cell_type="code", execution_count=None, id="a", metadata={}, outputs=[], source=[source])
    (tmp_path / "trouble.ipynb").write_text(json.dumps(dict(cells=[cell], metadata={}, nbformat=4, nbformat_minor=5)))
    status, output = run_notebook(tmp_path / "trouble.ipynb", tmp_path)
    assert status and trouble in output
