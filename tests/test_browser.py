"""Every notebook as its reader meets it, in JupyterLab in a real browser: pictures, widgets, the mouse, links, saving."""

import json
import re
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.browser import IS_DRAWN, WHY_NOT, NotebookPage, chromium, jupyterlab
from tests.support.notebooks import NBS, NOTEBOOKS, clean_copies, git, judged_copies
from tests.support.waiting import wait_for, wait_for_rest

pytestmark = [pytest.mark.browser, pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))]

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
TROUBLES = {
    "division by zero": "1 / 0",
    "missing.png": "display(HTML('<img src=\"missing.png\">'))",
    "thrown by the page": "display(Javascript('setTimeout(() => { throw new Error(\"thrown by the page\") })'))",
    "an empty box": "import sys; print('50 %\\r    \\r', end='', file=sys.stderr)",
    "is unfolded": "# Solution 1",
}
TALL = "\n\n".join(["![](images/demo.jpg)", *(rf"$$\sum_{{i=1}}^{{{n}}} x_i$$" for n in range(1, 9))])


def write_notebook(path: Path, *cells: dict) -> None:
    import nbformat  # takes seconds: not where tests are collected
    from nbformat import v4
    kernel = dict(kernelspec=dict(display_name="Python 3", language="python", name="python3"))
    nbformat.write(v4.new_notebook(cells=cells, metadata=kernel), path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "Copies of the notebooks in a git checkout: what the browser runs or saves never reaches the repository."
    from nbformat import v4
    folder = tmp_path_factory.mktemp("browser") / "Fotos für später"
    shutil.copytree(NBS, folder / "nbs")
    assert git(folder, "init") and git(folder, "add", "nbs") is not None
    write_notebook(folder / "nbs/slider.ipynb", v4.new_code_cell(SLIDER_CELL))
    for number, source in enumerate(TROUBLES.values()):
        imports = v4.new_code_cell("from IPython.display import *")
        write_notebook(folder / f"nbs/trouble_{number}.ipynb", imports, v4.new_code_cell(source))
    tall = [v4.new_markdown_cell(TALL) for _ in range(6)]
    there = v4.new_markdown_cell("## There", id="there")
    write_notebook(folder / "nbs/sections.ipynb", *tall[:4], there, *tall[4:])
    write_notebook(folder / "nbs/contents.ipynb", v4.new_markdown_cell("[There](sections.ipynb#cell-id=there)"))
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with jupyterlab(folder, folder.parent) as address:
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
        assert slider.is_displayed(), f"slider {number + 1} lies under a closed heading: nobody sees it"
        handle, track = (slider.find_element(By.CSS_SELECTOR, name) for name in (".noUi-handle", ".noUi-base"))
        on_the_left = handle.location["x"] < track.location["x"] + track.size["width"] / 2
        before = page.driver.execute_script(SHOWN_BY, slider)
        page.drag(handle, track.size["width"] // 3 * (1 if on_the_left else -1))
        wait_for(lambda: page.driver.execute_script(SHOWN_BY, slider) != before,  # noqa: B023
                 f"what slider {number + 1} should change in its cell")
    return len(sliders)


def troubles_in(page: NotebookPage, state: dict) -> list[str]:
    "All that a reader would not want to see in a notebook, its solutions among it."
    found = [f"the picture {source} did not load" for source in state["broken"]] + page.page_errors()
    for cell in state["cells"]:
        found += cell["errors"] + ["an empty box of stderr" for text in cell["stderr"] if not text.split("\r")[-1].strip()]
        if cell["source"].startswith("# Solution") and not cell["hidden"]:
            found.append(f"{cell['source'][:12]} is unfolded")
    return found


def run_and_save(page: NotebookPage) -> list[str]:
    "Runs a notebook, drags its sliders, saves it, and returns all troubles that a reader would have met."
    try:
        state = page.run_all()
        if not any(cell["errors"] for cell in state["cells"]) and drag_sliders(page):
            page.wait_until_idle()
            state = page.state()
        page.save()
        return troubles_in(page, state)
    finally:
        page.close()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_reads(path: Path, address: str, driver) -> None:
    page = NotebookPage(driver, address, f"nbs/{path.name}")
    try:
        assert troubles_in(page, page.state()) == []
    finally:
        page.close()


def moves(path: Path) -> list[pytest.MarkDecorator]:
    "Notebooks that do in a browser what no other test sees run always; `pytest -m browser` runs all."
    return [] if re.search(r"LiveCurves|live=True|ipywidgets", path.read_text(encoding="utf-8")) else [pytest.mark.slow]


@pytest.mark.parametrize("path", [pytest.param(path, marks=moves(path), id=path.stem) for path in NOTEBOOKS])
def test_runs_and_saves(path: Path, folder: Path, address: str, driver, tmp_path: Path) -> None:
    "And what is saved then is not what the other tests judge."
    saved = folder / "nbs" / path.name
    before = saved.read_bytes()
    assert run_and_save(NotebookPage(driver, address, f"nbs/{path.name}")) == []
    assert saved.read_bytes() != before
    judged = judged_copies([saved], tmp_path / "judged", clean_copies([saved], tmp_path / "cleaned"))
    assert (judged / path.name).read_bytes() == before


@pytest.mark.parametrize("trouble", TROUBLES)
def test_troubles_are_seen(trouble: str, address: str, driver) -> None:
    number = list(TROUBLES).index(trouble)
    (found,) = run_and_save(NotebookPage(driver, address, f"nbs/trouble_{number}.ipynb"))
    assert trouble in found


def test_a_dragged_slider_changes_its_cell(address: str, driver) -> None:
    page = NotebookPage(driver, address, "nbs/slider.ipynb")
    assert page.driver.execute_script("return document.querySelectorAll('.jp-CodeCell .cm-lineWrapping').length") == 1
    page.run_all()
    assert drag_sliders(page) == 1
    page.close()


def test_a_link_lands_at_its_section_at_the_first_click(address: str, driver) -> None:
    "And the section stays there, while pictures and formulas above it are drawn."
    page = NotebookPage(driver, address, "nbs/contents.ipynb", place="lab")
    page.click("//a[text()='There']")

    def top() -> list[float] | bool:
        "Where the section is, in pixels below the notebook's upper edge, if it is drawn there."
        seen = driver.execute_script(
            "const heading = document.querySelector('.jp-Notebook h2');"
            "return heading && heading.getBoundingClientRect().top"
            " - heading.closest('.jp-WindowedPanel-outer').getBoundingClientRect().top")
        return page.says(IS_DRAWN) and seen is not None and 0 <= seen < 100 and [seen]

    wait_for_rest(top, "the section at the top")
    page.close()


@pytest.mark.parametrize(("plugin", "name", "value"), [
    ("docmanager-extension:plugin", "autosave", False),
    ("apputils-extension:notification", "fetchNews", "false"),
    ("apputils-extension:notification", "checkForUpdates", False),
])
def test_nothing_is_saved_or_fetched_unasked(plugin: str, name: str, value: object, address: str) -> None:
    "As JupyterLab understands the project's settings: what it does not know has no type there."
    with urllib.request.urlopen(f"{address}/lab/api/settings/@jupyterlab/{plugin}") as answer:
        setting = json.load(answer)["schema"]["properties"][name]
    assert setting["default"] == value and "type" in setting
