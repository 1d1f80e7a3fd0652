"""Every notebook by nbdev_test, alone in a folder, in a process of its own; two pytest workers run two at a time."""

import json
import multiprocessing
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.notebooks import NOTEBOOKS
from tests.support.processes import context

pytestmark = pytest.mark.slow


def nbdev_test_into(log: Path, path: Path, private: Path) -> None:
    "nbdev_test over one notebook, in `private`, where it also writes what it writes; all that it says goes into `log`."
    import matplotlib
    from matplotlib_inline.config import InlineBackend
    from nbdev.test import nbdev_test
    with open(log, "w", encoding="utf-8") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.environ.update(TMPDIR=str(private), SRGAN_NB_DATA=str(private / "data"))
    tempfile.tempdir = None  # it looks into TMPDIR again
    multiprocessing.set_start_method(None, force=True)
    os.chdir(private)
    matplotlib.use("agg")
    matplotlib.rcParams["figure.dpi"] = 25  # each figure is drawn, small, and once: a tight frame would draw it twice
    InlineBackend.instance().print_figure_kwargs = {"bbox_inches": None}
    nbdev_test(path=str(path), n_workers=0, do_print=True)


def run_notebook(path: Path, private: Path) -> tuple[int, str]:
    """The exit status and all output of nbdev_test over a copy of one notebook.

    Nothing lies beside the copy, and a file that it leaves there is a failure too.
    """
    folder = private / "alone"
    folder.mkdir()
    shutil.copy(ROOT / "settings.ini", private)
    process = context.Process(target=nbdev_test_into, args=(private / "log", shutil.copy(path, folder), private))
    process.start()
    try:
        process.join()
    finally:
        process.kill()
    left = sorted(file.name for file in folder.iterdir() if file.name != path.name)
    said = (private / "log").read_text(encoding="utf-8", errors="replace")
    return process.exitcode or len(left), said + (f"\nleft in the notebook's folder: {left}" if left else "")


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
