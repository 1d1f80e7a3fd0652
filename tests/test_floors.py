"""The package as a house: few rooms, each on a floor, and imports that lead down."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import ROOT

FLOORS = """
errors files images pictures plots
bicubic downloads packs patches devices tiles generator discriminator losses metrics checkpoints interchange
settings stages upscaling upscale_files
runs reporter diagnosis evaluation reports
trainer
cli demo
__main__
__init__
"""
MODULES = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "srgan_nb").glob("*.py")
           if path.name != "_modidx.py"}


def imports_of(source: str) -> set[str]:
    "The rooms of the package that a module imports, inside functions too; __init__ where it asks the package itself."
    found = set()
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            base = "srgan_nb" + (f".{node.module}" if node.module else "") if node.level else node.module
            names = [f"{base}.{name}" for name in names] if base == "srgan_nb" else [base]
        parts = [name.split(".") for name in names]
        found |= {(part + ["__init__"])[1] for part in parts if part[0] == "srgan_nb"}
    return found


def complaints(modules: dict[str, str]) -> list[str]:
    "What is wrong with the house: rooms on no floor, imports that lead up, a circle."
    floor = {name: height for height, names in enumerate(FLOORS.strip().splitlines()) for name in names.split()}
    arrows = {name: imports_of(source) - {"__init__"} if name == "__init__" else imports_of(source)
              for name, source in modules.items()}
    wrong = [f"{name} is on no floor" for name in modules if name not in floor]
    wrong += [f"{name} imports {other}, which stands above it" for name, others in arrows.items() for other in others
              if floor.get(other, 99) > floor.get(name, -1)]
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        wrong.append(f"a circle: {error.args[1]}")
    return wrong


def test_imports_lead_down() -> None:
    assert complaints(MODULES) == []


@pytest.mark.parametrize(("name", "line", "complaint"), [
    ("errors", "from srgan_nb.trainer import Trainer", "errors imports trainer, which stands above it"),
    ("images", "def late():\n    from .upscaling import upscale", "images imports upscaling, which stands above it"),
    ("runs", "from srgan_nb import __version__", "runs imports __version__, which stands above it"),
    ("runs", "import srgan_nb", "runs imports __init__, which stands above it"),
    ("losses", "from .stages import Muon", "losses imports stages, which stands above it"),
    ("files", "from srgan_nb.images import luma", "a circle"),
    ("cellar", "", "cellar is on no floor")])
def test_an_arrow_upward_is_found(name: str, line: str, complaint: str) -> None:
    "The guard that the test above can fail."
    assert any(complaint in each for each in complaints({**MODULES, name: f"{MODULES.get(name, '')}\n{line}\n"}))


def test_few_rooms_and_each_says_what_it_is() -> None:
    rooms = {name: ast.get_docstring(ast.parse(source)) for name, source in MODULES.items() if name != "__init__"}
    assert len(rooms) <= 30
    assert [name for name, docstring in rooms.items() if not docstring] == []


@pytest.mark.parametrize("path", sorted((ROOT / "srgan_nb").glob("*.py")), ids=lambda path: path.stem)
def test_classes_are_short_and_flat(path: Path) -> None:
    "None over 90 lines; none that inherits from a class of the package which inherits from another one."
    classes = {node.name: node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
               if isinstance(node, ast.ClassDef)}
    assert [name for name, node in classes.items() if node.end_lineno - node.lineno >= 90] == []
    parents = {name: [base.id for base in node.bases if isinstance(base, ast.Name) and base.id in classes]
               for name, node in classes.items()}
    assert [name for name, own in parents.items() if any(parents[parent] for parent in own)] == []


def test_all_bars_come_from_one_place() -> None:
    "Which knows what to do where there is no terminal."
    assert {name for name, source in MODULES.items() if "tqdm" in source} == {"errors"}
