"""Every notebook by nbdev_test, each in a process of its own, with a time limit; two at a time, one thread each."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import ROOT

NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))
TIME_LIMIT = 300  # seconds; a notebook should need under 30
NBDEV_TEST = Path(sys.executable).with_name("nbdev_test")


def run_notebook(path: Path, cwd: Path = ROOT) -> tuple[int, str]:
    "The exit status and all output of nbdev_test over one notebook."
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    command = [NBDEV_TEST, "--path", path, "--n_workers", "0", "--do_print"]
    try:
        done = subprocess.run(command, cwd=cwd, env=environment, timeout=TIME_LIMIT, text=True, errors="replace",
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except subprocess.TimeoutExpired as expired:
        return -1, f"{(expired.output or b'').decode(errors='replace')}\nno end after {TIME_LIMIT} seconds"
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> Iterator[Callable[[Path], tuple[int, str]]]:
    "Starts the notebooks that were asked for, two at a time; the value waits for one notebook's end."
    wanted = [item.callspec.params["path"] for item in request.session.items
              if getattr(item, "originalname", None) == "test_notebook_runs"]
    with ThreadPoolExecutor(min(len(wanted), os.cpu_count() or 1, 4)) as pool:
        futures: dict[Path, Future] = {path: pool.submit(run_notebook, path) for path in wanted}
        yield lambda path: futures[path].result()
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, results: Callable[[Path], tuple[int, str]]) -> None:
    status, output = results(path)
    assert status == 0, output[-8000:]


def test_a_failing_cell_fails_the_notebook(tmp_path: Path) -> None:
    "The guard that the tests above can fail: a notebook whose one assertion is wrong."
    (tmp_path / "settings.ini").write_bytes((ROOT / "settings.ini").read_bytes())
    (tmp_path / "nbs").mkdir()
    (tmp_path / "nbs" / "wrong.ipynb").write_text(
        '{"cells": [{"cell_type": "code", "execution_count": null, "id": "a", "metadata": {}, "outputs": [],'
        ' "source": ["assert 1 + 1 == 3"]}], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
    status, output = run_notebook(tmp_path / "nbs" / "wrong.ipynb", tmp_path)
    assert status == 1 and "AssertionError" in output
