"""The tool behind `make notebooks`: what it compares, what it says of a change and of a failure."""

import json
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.notebooks import text_outputs
from tests.support.processes import run_module


def notebook(*cells: tuple[str, list[dict]]) -> dict:
    return {"metadata": {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}},
            "nbformat": 4, "nbformat_minor": 5,
            "cells": [{"cell_type": "code", "id": f"cell{i}", "metadata": {}, "execution_count": None,
                       "outputs": outputs, "source": [source]} for i, (source, outputs) in enumerate(cells)]}


def printed(text: str, name: str = "stdout") -> dict:
    return {"output_type": "stream", "name": name, "text": text.splitlines(keepends=True)}


def result(text: str, kind: str = "text/plain") -> dict:
    return {"output_type": "display_data", "metadata": {}, "data": {kind: [text], "text/plain": [text]}}


def test_what_is_compared():
    "How a text came in pieces makes no difference; pictures, progress and measured times do not count."
    whole = notebook(("", [printed("one\ntwo\n"), result("3")]))
    pieces = notebook(("", [printed("on"), printed("e\n"), printed("bar", "stderr"), printed("two\n"), result("3")]))
    assert text_outputs(whole) == text_outputs(pieces) == ["one", "two", "3"]
    assert text_outputs(notebook(("", [printed("end"), result("value")]))) == ["end", "value"]
    assert text_outputs(notebook(("", [result("<Figure>", "image/png"), printed("took 3.4 s\n1.2 GB\nsum 3\n")]))) == ["sum 3"]


@pytest.mark.slow
def test_changes_and_failures_are_told_and_stop_nothing(tmp_path: Path):
    committed = {"broken": notebook(("print(1)", []), ("1 / 0", [])),
                 "changed": notebook(("print('new')", [printed("old\n")])),
                 "same": notebook(("print('same')", [printed("same\n")]))}
    for name, cells in committed.items():
        (tmp_path / f"{name}.ipynb").write_text(json.dumps(cells))
    tool = "tests.support.run_notebooks"
    checked = run_module([tool, *sorted(map(str, tmp_path.glob("*.ipynb"))), "--check"], ROOT)
    assert checked.returncode == 1 and "ZeroDivisionError" in checked.stderr
    assert "    -old\n    +new\n" in checked.stdout and re.search(r"\| same \| \d+\.\d \| \d+\.\d \|", checked.stdout)
    assert "2 run; text outputs changed in: changed; failed: broken" in checked.stdout
    for name, cells in committed.items():
        assert json.loads((tmp_path / f"{name}.ipynb").read_text()) == cells, "it worked on a copy"

    changed = tmp_path / "changed.ipynb"
    done = run_module([tool, str(changed)], ROOT)
    assert done.returncode == 0 and "changed in: changed; failed: none" in done.stdout
    assert json.loads(changed.read_text())["cells"][0]["outputs"] == [printed("new\n")]
    assert run_module([tool, "nowhere.ipynb"], ROOT).returncode == 2

    saved = tmp_path / "saved.ipynb"
    saved.write_text(json.dumps(notebook((f"print(open({str(saved)!r}, 'a').write(' '))", []))))  # as JupyterLab may
    before = saved.read_text()
    done = run_module([tool, str(saved)], ROOT)
    assert done.returncode == 1 and "was saved while it ran" in done.stderr and saved.read_text() == before + " "
