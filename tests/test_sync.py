"""The repository agrees with itself: modules with notebooks, notebooks with their form, everything with ruff."""

import ast
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.conftest import ROOT
from tests.support.notebooks import BIN, NOTEBOOKS, cells, clean_copies, git, judged_copies, tracked_files

LESSONS = [path for path in NOTEBOOKS if path.stem != "index"]
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
each_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


@pytest.fixture
def judged(path: Path, judged_copy: Callable[[str], Path]) -> Path:
    "A notebook as it is judged, whatever a reader's JupyterLab has written into the file."
    return judged_copy(path.name)


def test_modules_are_what_the_notebooks_export(tmp_path: Path) -> None:
    (tmp_path / "nbs").mkdir()
    for path in NOTEBOOKS:
        shutil.copy(path, tmp_path / "nbs")
    shutil.copytree(ROOT / "srgan_nb", tmp_path / "srgan_nb", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("settings.ini", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, tmp_path)
    subprocess.run([BIN / "nbdev_export"], cwd=tmp_path, check=True)
    exported, committed = ({path.name: path.read_text(encoding="utf-8") for path in (folder / "srgan_nb").glob("*.py")
                            if path.name != "_modidx.py"} for folder in (tmp_path, ROOT))  # nbdev's, in no version control
    different = sorted(name for name in exported | committed if exported.get(name) != committed.get(name))
    assert not different, "run nbdev_export; and edit notebooks, not the modules they export"


@pytest.mark.slow
def test_nbdev_does_not_overwrite_the_readme(tmp_path: Path) -> None:
    "A stand-in for quarto writes what it is told to, as the real one does, where the notebook is there."
    for name in ("settings.ini", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "nbs").mkdir()
    shutil.copy(ROOT / "nbs/index.ipynb", tmp_path / "nbs")
    quarto = tmp_path / "bin/quarto"
    quarto.parent.mkdir()
    quarto.write_text('#!/bin/sh\n[ -f "$2" ] && mkdir -p _docs && echo another text > _docs/README.md\n')
    quarto.chmod(0o755)
    environment = {**os.environ, "PATH": f"{quarto.parent}{os.pathsep}{BIN}{os.pathsep}{os.environ['PATH']}"}

    def readme_after() -> str:
        subprocess.run(["nbdev_readme"], cwd=tmp_path, env=environment, capture_output=True)
        return (tmp_path / "README.md").read_text(encoding="utf-8")

    assert readme_after() == (ROOT / "README.md").read_text(encoding="utf-8")
    settings = (tmp_path / "settings.ini").read_text(encoding="utf-8")
    (tmp_path / "settings.ini").write_text(re.sub("readme_nb = .*", "readme_nb = index.ipynb", settings))
    assert readme_after() == "another text\n", "it would, if it were told to"


@each_notebook
def test_notebook_is_clean(path: Path, judged: Path, cleaned: Path, tmp_path: Path) -> None:
    "As it lies in nbs/; or else as git has it, for then JupyterLab may have written into the file."
    if judged.read_bytes() != (cleaned / path.name).read_bytes():
        again = clean_copies([judged], tmp_path / "nbs") / path.name
        assert judged.read_bytes() == again.read_bytes(), f"run nbdev_clean --fname nbs/{path.name}, then git add it"


def small_notebook(text: str) -> dict:
    "A notebook as nbdev_clean leaves it: a folded solution and its output."
    printed = dict(name="stdout", output_type="stream", text=["4\n"])
    solutions = dict(cell_type="markdown", id="a", metadata={"jp-MarkdownHeadingCollapsed": True}, source=[text])
    solution = dict(cell_type="code", execution_count=None, id="b", metadata={}, outputs=[printed], source=["print(4)"])
    kernel = dict(display_name="python3", language="python", name="python3")
    return dict(cells=[solutions, solution], metadata=dict(kernelspec=kernel), nbformat=4, nbformat_minor=5)


def as_jupyterlab_saves(notebook: dict) -> dict:
    "That notebook unfolded, run by another Python and saved."
    solutions, solution = notebook["cells"]
    warned = dict(name="stderr", output_type="stream", text=["/home/reader/x.py: Warning\n" * 9])
    run = solution | dict(execution_count=7, outputs=[warned], metadata={"scrolled": True})
    return notebook | dict(cells=[solutions | dict(metadata={}), run],
                           metadata=notebook["metadata"] | dict(language_info={"version": "3.13.1"}))


def test_what_jupyterlab_saves_is_not_judged(tmp_path: Path) -> None:
    committed, edited = (small_notebook(text) for text in ("## Solutions", "## Solutions, better"))
    saved = as_jupyterlab_saves(committed)

    def judged(name: str, in_git: dict | None, now: dict) -> dict | None:
        "What is judged of a notebook of which git's index holds one version while another one lies in the folder."
        folder = tmp_path / name
        folder.mkdir()
        path = folder / "small.ipynb"
        for notebook in filter(None, (in_git, now)):
            path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
            if notebook is in_git:
                assert git(folder, "init") and git(folder, "add", ".") is not None
        kept = judged_copies([path], folder / "judged", clean_copies([path], folder / "cleaned")) / path.name
        return json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else None

    assert judged("read", committed, saved) == committed
    assert judged("committed as it was saved", saved, saved) == saved, "so test_notebook_is_clean finds it"
    assert judged("edited and cleaned", committed, edited) == edited
    assert judged("edited and saved", edited, saved) == edited
    assert judged("no git", None, edited) == edited and judged("read, no git", None, saved) is None


def test_ruff(copies: Path) -> None:
    modules = [path for path in tracked_files(ROOT) if path.suffix == ".py"] or ["srgan_nb", "tests", "setup.py"]
    done = subprocess.run([BIN / "ruff", "check", "--config", ROOT / "pyproject.toml", *modules, copies], cwd=ROOT,
                          text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr


@each_notebook
def test_outputs_are_fit_to_read(judged: Path) -> None:
    "No error, warning or leftover progress bar is committed, and the file stays small."
    outputs = [(cell["source"], output) for cell in cells(judged, "code") for output in cell["outputs"]]
    assert not [source for source, output in outputs if output["output_type"] == "error"]
    stray = [text for _, output in outputs if output.get("name") == "stderr"
             for text in ["".join(output["text"])] if "Warning" in text or len(text.strip().splitlines()) > 2]
    assert not stray
    assert judged.stat().st_size < 500_000


@each_notebook
def test_printed_lines_fit(judged: Path) -> None:
    "A window 900 pixels wide shows 91 characters; JupyterLab breaks longer lines in the middle of a word."
    printed = [line for cell in cells(judged, "code") for output in cell["outputs"]
               for line in "".join(output.get("text", output.get("data", {}).get("text/plain", ""))).splitlines()
               if not {"text/markdown", "text/html"} & set(output.get("data", {}))]
    assert not [line for line in printed if len(line) > 91]


@each_notebook
def test_every_code_cell_that_shows_pictures_has_them(judged: Path) -> None:
    "A notebook is committed as it was run: whoever only reads it sees what the cells show."
    source = "\n".join(cell["source"] for cell in cells(judged, "code") if "#| eval: false" not in cell["source"])
    kinds = {kind for cell in cells(judged, "code") for output in cell["outputs"] for kind in output.get("data", {})}
    if re.search(r"^(?:show_|plot_)\w+\(|plt\.show\(\)$", source, re.MULTILINE):
        assert kinds & {"image/png", "image/jpeg"}, "no picture: run make notebooks"


@each_notebook
def test_every_cell_has_an_id_of_its_own(path: Path) -> None:
    "Links lead to ids, and modules name the cells that they come from."
    ids = [cell["id"] for cell in cells(path)]
    assert len(ids) == len(set(ids))


@each_lesson
def test_a_lesson_has_its_parts(path: Path) -> None:
    "A title first, one module at most, what was shown, and exercises with folded solutions."
    text, code = cells(path, "markdown"), cells(path, "code")
    assert cells(path)[0]["source"].startswith("# ") and cells(path)[0] in text, "opens with its title"
    titles = [line for cell in text for line in re.sub(r"```.*?```", "", cell["source"], flags=re.DOTALL).splitlines()
              if re.match(r"#+ ", line)]
    assert sum(title.startswith("# ") for title in titles) == 1, "one title, so that the table of contents is a tree"
    assert any("what was shown" in title.lower() for title in titles)
    assert titles[-3:] == ["## Exercises", "## Solutions", "## Next"]
    assert sum("#| default_exp" in cell["source"] for cell in code) <= 1
    sources = [cell["source"] for cell in section(path, "## Solutions") if not cell["source"].startswith("#| hide")]
    assert sources and all(re.match(rf"(# |\*\*)Solution {i}\b", source) for i, source in enumerate(sources, start=1))


def section(path: Path, heading: str) -> list[dict]:
    "The cells between the one that begins with a heading and the next heading of a lesson."
    everything = cells(path)
    start = next(number for number, cell in enumerate(everything, 1) if cell["source"].startswith(heading))
    return list(itertools.takewhile(lambda cell: not cell["source"].startswith("## "), everything[start:]))


@each_lesson
def test_solutions_are_folded(judged: Path) -> None:
    "Under their heading, which stays closed when all cells are run; a cell that hides its output does not."
    closed = [cell["source"] for cell in cells(judged) if "jp-MarkdownHeadingCollapsed" in cell["metadata"]]
    assert "## Solutions" in closed and all(source.startswith("#") for source in closed)
    assert not [cell["source"] for cell in cells(judged) if "outputs_hidden" in cell["metadata"].get("jupyter", {})]


@each_lesson
def test_exercises_wait_to_be_filled_in(judged: Path) -> None:
    "Each stub says so as it stands, and knows every name that it uses."
    sources = [cell["source"] for cell in cells(judged)]
    start, end = (next(number for number, source in enumerate(sources) if heading in source)
                  for heading in ("## Exercises", "## Solutions"))
    stubs = [cell for cell in cells(judged)[start:end] if cell["cell_type"] == "code"]
    assert stubs and not re.search(r"^ *```python", "".join(sources[start:end]), re.MULTILINE)
    for stub in stubs:
        said = "".join(line for output in stub["outputs"] for line in output["text"])
        assert "..." in stub["source"] and "with exercise():" in stub["source"]
        assert said.startswith("not yet: ") and "not defined" not in said


@pytest.mark.parametrize("path", [path for path in LESSONS if path.stem < "3"], ids=lambda path: path.stem)
def test_an_exercise_is_a_text_and_a_stub(path: Path) -> None:
    "The last one is an open question and has none."
    asked = section(path, "## Exercises")
    assert len(asked) % 2 == 0 and "Open: " in asked[-1]["source"]
    assert [cell["cell_type"] for cell in asked] == len(asked) // 2 * ["code", "markdown"]


def headings(path: Path) -> set[str]:
    "The anchors that JupyterLab gives the headings of a notebook."
    text = "\n".join(re.sub(r"```.*?```", "", cell["source"], flags=re.DOTALL) for cell in cells(path, "markdown"))
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[`*]", "", title).strip().replace(" ", "-") for title in titles}


def sections(path: Path) -> set[str]:
    """The anchors of a notebook's cells that begin with a heading.

    A link to a heading itself is lost at the first click: JupyterLab looks for it before the other notebook is drawn.
    """
    return {f"cell-id={cell['id']}" for cell in cells(path, "markdown") if cell["source"].startswith("#")}


@each_notebook
def test_links_and_pictures_lead_somewhere(path: Path) -> None:
    text = "\n".join(cell["source"] for cell in cells(path, "markdown"))
    lost = []
    for target in re.findall(r"\]\(((?:[^()\s]|\([^()]*\))+)\)", text):
        file, _, anchor = target.partition("#")
        if "://" in target or target.startswith("attachment:"):
            continue
        there = path.parent / file if file else path
        if not there.exists() or anchor and unquote(anchor) not in (sections(there) if file else headings(path)):
            lost.append(target)
    assert not lost
    tests = re.findall(r"`(test_\w+\.py)`", text)
    assert [name for name in tests if not (ROOT / "tests" / name).exists()] == []


def test_the_way_leads_through_all_lessons() -> None:
    "The link at the end of each lesson, followed from the first one, leads through every other and back to the start."
    way, path = [], LESSONS[0]
    while path in LESSONS and path not in way:
        way.append(path)
        path = path.parent / re.findall(r"\]\(([\w-]+\.ipynb)", cells(path, "markdown")[-1]["source"])[-1]
    assert {path.name for path in way} == {path.name for path in LESSONS}


def test_the_start_page_leads_to_every_notebook() -> None:
    text = "\n".join(cell["source"] for cell in cells(LESSONS[0].with_name("index.ipynb"), "markdown"))
    assert set(re.findall(r"\]\((\w+\.ipynb)\)", text)) == {path.name for path in LESSONS}


def statements(source: str) -> int:
    "Lines of code in a cell: docstrings, comments and empty lines left out."
    tree = ast.parse(re.sub(r"^[%!].*$", "pass", source, flags=re.MULTILINE))
    documented = [node.body[0] for node in ast.walk(tree)
                  if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node)]
    skipped = {line for text in documented for line in range(text.lineno, text.end_lineno + 1)}
    return sum(number not in skipped and bool(line.strip()) and not line.strip().startswith("#")
               for number, line in enumerate(source.splitlines(), 1))


@each_lesson
def test_no_cell_is_a_wall(path: Path) -> None:
    assert not [cell["source"][:100] for cell in cells(path, "code") if statements(cell["source"]) > 60]


@each_notebook
def test_notebook_names_its_kernel(path: Path) -> None:
    "Without it JupyterLab asks which kernel to use; with another name it does not find one."
    assert json.loads(path.read_text(encoding="utf-8"))["metadata"]["kernelspec"]["name"] == "python3"


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    return tracked_files(ROOT) or pytest.skip("not a git checkout")


def test_no_path_of_this_machine_is_committed(tracked: list[Path], copies: Path) -> None:
    here = {f"{place}/" for place in (ROOT, Path.home(), Path(sys.prefix).resolve()) if len(place.parts) > 2}  # not /usr
    found = []
    for path in tracked:
        notebook = path in NOTEBOOKS
        try:
            text = (copies / path.name if notebook else path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        places = here | ({tempfile.gettempdir() + "/"} if notebook else set())
        found += [f"{path.relative_to(ROOT)}: {place}" for place in sorted(places) if place in text]
    assert not found


def test_no_large_file_is_committed(tracked: list[Path]) -> None:
    assert not {path.name: size for path in tracked if (size := path.stat().st_size) > 10e6 and path not in NOTEBOOKS}
