"""Every notebook as its reader meets it: JupyterLab in a real browser, Run All Cells, pictures, widgets, the mouse."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from tests.conftest import ROOT
from tests.support.browser import WHY_NOT, NotebookPage, chromium, jupyterlab
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.browser, pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))]

NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))
SLIDER = ".jp-OutputArea .widget-slider"
SHOWN_BY = """  // all that the cell of a slider shows, its slider left out: pictures by their bytes
const output = arguments[0].closest('.jp-Cell-outputWrapper').cloneNode(true);
output.querySelectorAll('.widget-slider').forEach(it => it.remove());
return output.innerHTML;
"""

# Small notebooks that show that the checks below can fail and the mouse is real.
SLIDER_CELL = """from ipywidgets import interact
@interact(number=(0, 100))
def double(number=10):
    print(2 * number)"""
TROUBLES = (
    "1 / 0",
    "display(HTML('<img src=\"missing.png\">'))",
    "display(Javascript('setTimeout(() => { throw new Error(\"thrown by the page\") })'))",
)


def write_notebook(path: Path, *sources: str) -> None:
    kernel = dict(kernelspec=dict(display_name="Python 3", language="python", name="python3"))
    nbformat.write(v4.new_notebook(cells=[v4.new_code_cell(source) for source in sources], metadata=kernel), path)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    "JupyterLab over a copy of the notebooks: what the browser runs or saves never reaches the repository."
    folder = tmp_path_factory.mktemp("jupyterlab")
    shutil.copytree(ROOT / "nbs", folder / "nbs")
    write_notebook(folder / "nbs" / "slider.ipynb", SLIDER_CELL)
    for number, trouble in enumerate(TROUBLES):
        write_notebook(folder / "nbs" / f"trouble_{number}.ipynb", "from IPython.display import *", trouble)
    with jupyterlab(folder, folder) as address:
        yield address


@pytest.fixture(scope="module")
def driver() -> Iterator:
    with chromium() as driver:
        yield driver


def drag_sliders(page: NotebookPage) -> int:
    "Drags every slider's handle and waits until what its cell shows has followed; returns how many there are."
    from selenium.webdriver.common.by import By
    sliders = page.driver.find_elements(By.CSS_SELECTOR, SLIDER)
    for number, slider in enumerate(sliders):
        handle, track = (slider.find_element(By.CSS_SELECTOR, name) for name in (".noUi-handle", ".noUi-base"))
        on_the_left = handle.location["x"] < track.location["x"] + track.size["width"] / 2
        before = page.driver.execute_script(SHOWN_BY, slider)
        page.drag(handle, track.size["width"] // 3 * (1 if on_the_left else -1))
        wait_for(lambda: page.driver.execute_script(SHOWN_BY, slider) != before,  # noqa: B023
                 f"what slider {number + 1} should change in its cell")
    return len(sliders)


def read_and_run(page: NotebookPage) -> list[str]:
    "Runs a notebook, drags its sliders, and returns all troubles that a reader would have met."
    try:
        state = page.run_all()
        troubles = [f"the picture {source} did not load" for source in state["broken"]]
        if not any(cell["errors"] for cell in state["cells"]) and drag_sliders(page):
            page.wait_until_idle()
            state = page.state()
        troubles += [error for cell in state["cells"] for error in cell["errors"]]
        return troubles + page.page_errors()
    finally:
        page.shut_down_kernel()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_reads_and_runs(path: Path, address: str, driver) -> None:
    assert read_and_run(NotebookPage(driver, address, f"nbs/{path.name}")) == []


def test_long_lines_of_code_are_wrapped(address: str, driver) -> None:
    page = NotebookPage(driver, address, "nbs/slider.ipynb")
    assert page.driver.execute_script("return document.querySelectorAll('.jp-CodeCell .cm-lineWrapping').length") == 1
    page.shut_down_kernel()


def test_a_dragged_slider_changes_its_cell(address: str, driver) -> None:
    page = NotebookPage(driver, address, "nbs/slider.ipynb")
    page.run_all()
    assert drag_sliders(page) == 1
    page.shut_down_kernel()


@pytest.mark.parametrize("number", range(len(TROUBLES)))
def test_troubles_are_seen(number: int, address: str, driver) -> None:
    troubles = read_and_run(NotebookPage(driver, address, f"nbs/trouble_{number}.ipynb"))
    assert len(troubles) == 1 and ("division by zero", "missing.png", "thrown by the page")[number] in troubles[0]
