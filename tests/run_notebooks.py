"""Runs the notebooks in order, each from a cold kernel, cleans them, and says which text outputs changed.

    python -m tests.run_notebooks [NOTEBOOK ...] [--check]

With --check it works on a copy and exits 1 when a text output differs from the committed one. Left out of the
comparison: pictures, progress bars, and lines that tell a time or a speed.
"""

import argparse
import difflib
import json
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
MEASURED = re.compile(r"\d\s*(?:µs|us|ms|s|sec|seconds?|min|minutes?|h|hours?|GB|MB|it/s|steps/s|patches/s)\b"
                      r"|\b(?:per second|times (?:as|faster|slower)|faster|slower|seconds|megapixels)\b")


def text_outputs(notebook: dict) -> list[str]:
    "The lines that a run prints or returns, without those that tell a time, a speed or a memory."
    lines = []
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr" or any(kind.startswith("image/") for kind in output.get("data", {})):
                continue
            text = "".join(output.get("text") or output.get("data", {}).get("text/plain") or [])
            lines += [line for line in text.splitlines() if not MEASURED.search(line)]
    return lines


def run(path: Path) -> None:
    "Executes a notebook in place and cleans it; a failing cell's traceback is shown and ends everything."
    subprocess.run([BIN / "jupyter", "execute", "--inplace", path], check=True, stderr=subprocess.PIPE, text=True)
    drop_progress_bars(path)
    subprocess.run([BIN / "nbdev_clean", "--fname", path], check=True)


def drop_progress_bars(path: Path) -> None:
    "Takes out what progress bars left on stderr: hundreds of lines that say nothing to a reader."
    notebook = json.loads(path.read_text())
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = [output for output in cell["outputs"]
                               if output.get("name") != "stderr" or "\r" not in "".join(output["text"])]
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n")


def processor_seconds() -> float:
    "What the programs started from here have used so far: unlike the clock, much the same on a busy machine."
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("notebooks", nargs="*", type=Path, default=sorted((ROOT / "nbs").glob("*.ipynb")))
    parser.add_argument("--check", action="store_true", help="run a copy; exit 1 when a text output changed")
    options = parser.parse_args()
    changed = 0
    with tempfile.TemporaryDirectory() as temporary:
        for path in options.notebooks:
            before = json.loads(path.read_text())
            if options.check:
                shutil.copytree(path.parent, Path(temporary) / "nbs", dirs_exist_ok=True)
                shutil.copy(ROOT / "settings.ini", temporary)
                path = Path(temporary) / "nbs" / path.name
            start, work = time.perf_counter(), processor_seconds()
            try:
                run(path)
            except subprocess.CalledProcessError as failure:
                print(f"{path.name} failed\n{failure.stderr}", file=sys.stderr)
                return 1
            seconds, work = time.perf_counter() - start, processor_seconds() - work
            after = json.loads(path.read_text())
            difference = list(difflib.unified_diff(text_outputs(before), text_outputs(after), lineterm="", n=0))[2:]
            changed += bool(difference)
            print(f"{path.name}: {seconds:.0f} s ({work:.0f} s of processor time), {path.stat().st_size / 1e3:.0f} kB, "
                  f"{'text outputs changed:' if difference else 'same text outputs'}", flush=True)
            print("".join(f"    {line}\n" for line in difference), end="", flush=True)
    return 1 if options.check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
