"""Pictures of every notebook as JupyterLab shows it, top to bottom, to be looked at by people.

    python -m tests.support.screenshots OUT [NOTEBOOK ...] [--run] [--theme light dark] [--width 1280 900]

Without --run it shows the outputs that are committed, which is what a reader meets first.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from tests.support.browser import WHY_NOT, NotebookPage, chromium, jupyterlab

NBS = Path(__file__).resolve().parents[2] / "nbs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("notebooks", nargs="*", type=Path, default=sorted(NBS.glob("*.ipynb")))
    parser.add_argument("--run", action="store_true", help="Run All Cells first")
    parser.add_argument("--theme", nargs="+", choices=("light", "dark"), default=["light", "dark"])
    parser.add_argument("--width", nargs="+", type=int, default=[1280, 900])
    parser.add_argument("--height", type=int, default=1600)
    options = parser.parse_args()
    if WHY_NOT:
        raise SystemExit(WHY_NOT)
    options.out.mkdir(parents=True, exist_ok=True)
    for theme in options.theme:
        with tempfile.TemporaryDirectory() as private:
            shutil.copytree(NBS, Path(private) / "nbs")
            settings = {"apputils-extension/themes": {"theme": f"JupyterLab {theme.title()}"},
                        "notebook-extension/tracker": {"windowingMode": "none", "scrollPastEnd": False}}
            with jupyterlab(Path(private), Path(private), **settings) as address:
                for width in options.width:
                    with chromium(width, options.height) as driver:
                        for notebook in options.notebooks:
                            page = NotebookPage(driver, address, f"nbs/{notebook.name}")
                            if options.run:
                                page.run_all()
                            paths = page.screenshots(options.out, f"{notebook.stem}-{theme}-{width}")
                            page.close()
                            print(f"{notebook.name}, {theme}, {width} pixels wide: {len(paths)} pictures", flush=True)


if __name__ == "__main__":
    main()
