"""Runs the notebooks in order, each from a cold kernel, cleans them, and says which text outputs changed.

    python -m tests.support.run_notebooks [NOTEBOOK ...] [--check]

At the end a table of the minutes that each one took, as the README has it. With --check it works on a copy and exits 1
when a text output differs from the one in the file. Left out of the comparison: pictures, progress bars, and lines
that tell a time, a speed or a memory. A notebook that fails does not stop the others; the exit code is then 1.
"""

import argparse
import difflib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbdev.clean import nbdev_clean

from srgan_nb.errors import UserError
from srgan_nb.files import write_atomically
from tests.support.environment import prepare_environment
from tests.support.notebooks import NOTEBOOKS, text_outputs

ROOT = Path(__file__).resolve().parents[2]


def run(path: Path) -> None:
    """Executes a notebook in place and cleans it; what its kernel writes on stderr by itself is left out.

    Raises `CellExecutionError`, which says the cell and its traceback, or `DeadKernelError`; and `UserError`, which leaves
    the file as it is, where somebody has saved it meanwhile.
    """
    before = path.read_bytes()
    notebook = nbformat.reads(before.decode(), as_version=4)
    NotebookClient(notebook, timeout=None, store_widget_state=False,  # no page shows a widget that could be drawn from it
                   resources={"metadata": {"path": path.parent}}).execute(stderr=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, path.name)
        nbformat.write(notebook, copy)
        nbdev_clean(copy)
        if path.read_bytes() != before:
            raise UserError(f"{path} was saved while it ran: it is left as it is")
        with write_atomically(path) as temporary:
            shutil.copyfile(copy, temporary)


def processor_seconds() -> float:
    "What the programs started from here have used so far: unlike the clock, much the same on a busy machine."
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def copied(path: Path, folder: Path) -> Path:
    "A notebook's copy below `folder`, with all that lies beside it, and the package where a notebook looks for it."
    shutil.copytree(path.parent, folder / "nbs", dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))
    if not (folder / "srgan_nb").exists():
        shutil.copytree(ROOT / "srgan_nb", folder / "srgan_nb", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "settings.ini", folder)
    return folder / "nbs" / path.name


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("notebooks", nargs="*", type=Path, default=NOTEBOOKS)
    parser.add_argument("--check", action="store_true", help="run a copy; exit 1 when a text output changed")
    options = parser.parse_args()
    prepare_environment()
    if missing := [str(path) for path in options.notebooks if not path.is_file()]:
        parser.error(f"no such notebook: {', '.join(missing)}")
    paths = [path.absolute() for path in options.notebooks]
    os.chdir(ROOT)  # nbdev finds its settings there
    changed, failed, table = [], [], []
    with tempfile.TemporaryDirectory() as temporary:
        for path in paths:
            before = json.loads(path.read_text(encoding="utf-8"))
            path = copied(path, Path(temporary)) if options.check else path
            start, work = time.perf_counter(), processor_seconds()
            try:
                run(path)
            except (CellExecutionError, DeadKernelError, UserError) as failure:
                failed.append(path.stem)
                print(f"{path.name} failed\n{failure}", file=sys.stderr, flush=True)
                continue
            seconds, work = time.perf_counter() - start, processor_seconds() - work
            table.append(f"| {path.stem} | {seconds / 60:.1f} | {work / 60:.1f} |")
            after = json.loads(path.read_text(encoding="utf-8"))
            difference = list(difflib.unified_diff(text_outputs(before), text_outputs(after), lineterm="", n=0))[2:]
            changed += [path.stem] if difference else []
            print(f"{path.name}: {seconds:.0f} s ({work:.0f} s of processor time), {path.stat().st_size / 1e3:.0f} kB, "
                  f"{'text outputs changed:' if difference else 'same text outputs'}", flush=True)
            print("".join(f"    {line}\n" for line in difference), end="", flush=True)
    print("\n".join(["", "| notebook | minutes | minutes of processor time |", "|---|---|---|", *table]))
    print(f"\n{len(table)} run; text outputs changed in: {', '.join(changed) or 'none'}; "
          f"failed: {', '.join(failed) or 'none'}")
    return 1 if failed or options.check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
