"""The project's notebooks, and what of them is judged: never what a reader's JupyterLab left in them."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
MEASURED = re.compile(r"\d\s*(?:µs|us|ms|s|sec|seconds?|min|minutes?|h|hours?|GB|MB|it/s|steps/s|patches/s)\b"
                      r"|\b(?:per second|times (?:as|faster|slower)|faster|slower|seconds|megapixels)\b")


def git(folder: Path, *arguments: str) -> bytes | None:
    "What a git command prints; None where it fails: no git, no checkout, no such file in it."
    command = ["git", "-c", "safe.directory=*", *arguments]  # whoever owns the folder
    done = subprocess.run(command, cwd=folder, capture_output=True) if shutil.which("git") else None
    return done.stdout if done and done.returncode == 0 else None


def tracked_files(folder: Path) -> list[Path]:
    "The files in `folder` that git knows, staged ones among them; none where there is no checkout."
    names = (git(folder, "ls-files", "-z") or b"").decode().split("\0")
    return [path for name in names if name and (path := folder / name).is_file()]


# A copy that a reader made to play with is not among the project's notebooks. Without git all of them are.
NBS = ROOT / "nbs"
NOTEBOOKS = sorted(path for path in tracked_files(NBS) or NBS.iterdir() if path.suffix == ".ipynb")


def cells(path: Path, kind: str = "") -> list[dict]:
    "The cells of a notebook, all or of one kind, their sources as one text."
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [{**cell, "source": "".join(cell["source"])} for cell in found if kind in cell["cell_type"]]


def clean_copies(notebooks: Iterable[Path], folder: Path) -> Path:
    "Makes `folder` with copies of the notebooks as nbdev_clean leaves them; returns it."
    folder.mkdir()
    for path in (ROOT / "settings.ini", *notebooks):
        shutil.copy(path, folder)
    subprocess.run([BIN / "nbdev_clean", "--fname", "."], cwd=folder, check=True)
    return folder


def judged_copies(notebooks: Iterable[Path], folder: Path, cleaned: Path) -> Path:
    """Makes `folder` with each notebook as it is judged: the file where it is as in `cleaned`, else as git's index has it.

    So what is committed, staged or cleaned is judged. Whoever opens, runs and saves a notebook in JupyterLab changes
    metadata, outputs and counts, and no test's result. Where git has no such file there is no copy.
    """
    folder.mkdir()
    for path in notebooks:
        content = path.read_bytes()
        if content != (cleaned / path.name).read_bytes():
            content = git(path.parent, "show", f":./{path.name}")
        if content is not None:
            (folder / path.name).write_bytes(content)
    return folder


def text_outputs(notebook: dict) -> list[str]:
    "The lines that a run prints or returns, without those that tell a time, a speed or a memory."
    lines = []
    for cell in notebook["cells"]:
        text = ""
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr" or any(kind.startswith("image/") for kind in output.get("data", {})):
                continue
            if output["output_type"] != "stream" and text:
                text = text.removesuffix("\n") + "\n"  # what is printed in pieces is one text, a result begins a line
            text += "".join(output.get("text") or output.get("data", {}).get("text/plain") or [])
        lines += [line for line in text.splitlines() if not MEASURED.search(line)]
    return lines
