"""The repository agrees with itself: modules with notebooks, notebooks with their form, everything with ruff."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.conftest import ROOT

BIN = Path(sys.executable).parent
NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))
LESSONS = [path for path in NOTEBOOKS if path.stem != "index"]
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
each_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


def cells(path: Path, kind: str) -> list[dict]:
    found = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]
    return [{**cell, "source": "".join(cell["source"])} for cell in found]


def tracked_files() -> list[Path]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    "A copy of the project in which every notebook was exported and cleaned anew."
    folder = tmp_path_factory.mktemp("copy")
    for name in ("nbs", "srgan_nb"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    for name in ("settings.ini", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, folder)
    for command in (["nbdev_export"], ["nbdev_clean", "--fname", "nbs"]):
        subprocess.run([BIN / command[0], *command[1:]], cwd=folder, check=True)
    return folder


def test_modules_are_what_the_notebooks_export(copy: Path) -> None:
    exported = {path.name: path.read_text() for path in sorted((copy / "srgan_nb").glob("*.py"))}
    committed = {path.name: path.read_text() for path in sorted((ROOT / "srgan_nb").glob("*.py"))}
    different = sorted(name for name in exported | committed if exported.get(name) != committed.get(name))
    assert not different, "run nbdev_export; and edit notebooks, not the modules they export"


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
def test_notebook_is_clean(path: Path, copy: Path) -> None:
    assert path.read_text() == (copy / "nbs" / path.name).read_text(), f"run nbdev_clean --fname nbs/{path.name}"


def test_ruff() -> None:
    done = subprocess.run([BIN / "ruff", "check", "."], cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr


@each_notebook
def test_outputs_are_fit_to_read(path: Path) -> None:
    "No error, warning or leftover progress bar is committed, and the file stays small."
    outputs = [(cell["source"], output) for cell in cells(path, "code") for output in cell["outputs"]]
    assert not [source for source, output in outputs if output["output_type"] == "error"]
    stray = [text for _, output in outputs if output.get("name") == "stderr"
             for text in ["".join(output["text"])] if "Warning" in text or len(text.strip().splitlines()) > 2]
    assert not stray
    assert path.stat().st_size < 500_000


@each_notebook
def test_printed_lines_fit(path: Path) -> None:
    "A window 900 pixels wide shows 91 characters; JupyterLab breaks longer lines in the middle of a word."
    printed = [line for cell in cells(path, "code") for output in cell["outputs"]
               for line in "".join(output.get("text", output.get("data", {}).get("text/plain", ""))).splitlines()
               if not {"text/markdown", "text/html"} & set(output.get("data", {}))]
    assert not [line for line in printed if len(line) > 91]


@each_notebook
def test_every_code_cell_that_shows_pictures_has_them(path: Path) -> None:
    "A notebook is committed as it was run: whoever only reads it sees what the cells show."
    source = "\n".join(cell["source"] for cell in cells(path, "code") if "#| eval: false" not in cell["source"])
    kinds = {kind for cell in cells(path, "code") for output in cell["outputs"] for kind in output.get("data", {})}
    if re.search(r"^(?:show_|plot_)\w+\(|plt\.show\(\)$", source, re.MULTILINE):
        assert kinds & {"image/png", "image/jpeg"}, "no picture: run make notebooks"


@each_lesson
def test_a_lesson_has_its_parts(path: Path) -> None:
    "A title first, one module at most, what was shown, and exercises with folded solutions."
    text, code = cells(path, "markdown"), cells(path, "code")
    everything = json.loads(path.read_text())["cells"]
    first = everything[0]
    assert first["cell_type"] == "markdown" and "".join(first["source"]).startswith("# "), "opens with its title"
    titles = [line for cell in text for line in re.sub(r"```.*?```", "", cell["source"], flags=re.DOTALL).splitlines()
              if re.match(r"#+ ", line)]
    assert sum(title.startswith("# ") for title in titles) == 1, "one title, so that the table of contents is a tree"
    assert any("what was shown" in title.lower() for title in titles)
    assert any("exercise" in title.lower() for title in titles)
    assert sum("#| default_exp" in cell["source"] for cell in code) <= 1
    exercises = next(i for i, cell in enumerate(everything)
                     if re.search(r"^#+ .*exercise", "".join(cell["source"]), re.MULTILINE | re.IGNORECASE))
    folded = [cell for cell in everything[exercises:] if cell["cell_type"] == "code"]
    assert all(cell["metadata"].get("jupyter") == {"source_hidden": True, "outputs_hidden": True} for cell in folded), \
        "solutions and what they print are folded"
    sources = ["".join(cell["source"]) for cell in folded if not cell["source"][0].startswith("#| hide")]
    assert sources and all(re.match(rf"# Solution {i}\b", source) for i, source in enumerate(sources, start=1)), \
        "and say whose solution they are, which is all that is seen of them"


def headings(path: Path) -> set[str]:
    "The anchors that JupyterLab gives the headings of a notebook."
    text = "\n".join(re.sub(r"```.*?```", "", cell["source"], flags=re.DOTALL) for cell in cells(path, "markdown"))
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[`*]", "", title).strip().replace(" ", "-") for title in titles}


@each_notebook
def test_links_and_pictures_lead_somewhere(path: Path) -> None:
    text = "\n".join(cell["source"] for cell in cells(path, "markdown"))
    lost = []
    for target in re.findall(r"\]\(((?:[^()\s]|\([^()]*\))+)\)", text):
        file, _, anchor = target.partition("#")
        if "://" in target or target.startswith("attachment:"):
            continue
        there = path.parent / file if file else path
        if not there.exists() or (anchor and unquote(anchor) not in headings(there)):
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
    assert json.loads(path.read_text())["metadata"]["kernelspec"]["name"] == "python3"


def test_no_path_of_this_machine_is_committed() -> None:
    here = {str(ROOT) + "/", str(Path.home()) + "/", str(Path(sys.prefix).resolve()) + "/"} - {"//"}
    found = []
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        outputs = path.suffix == ".ipynb"
        places = here | ({tempfile.gettempdir() + "/"} if outputs else set())
        found += [f"{path.relative_to(ROOT)}: {place}" for place in sorted(places) if place in text]
    assert not found


def test_no_large_file_is_committed() -> None:
    large = {str(path.relative_to(ROOT)): size for path in tracked_files() if (size := path.stat().st_size) > 10e6}
    assert not large
