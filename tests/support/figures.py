"""The pictures of the README that are a notebook's figures: `python -m tests.support.figures` takes them from there."""

import base64
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FIGURES = {"nbs/images/pieces.jpg": ("21_results", "21five01")}  # file -> notebook and cell


def figure(notebook: str, cell: str) -> bytes:
    "The JPEG file that is the cell's figure in the notebook as it was run."
    cells = json.loads((ROOT / f"nbs/{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    outputs = next(each["outputs"] for each in cells if each["id"] == cell)
    return base64.b64decode("".join(next(each["data"]["image/jpeg"] for each in outputs if "image/jpeg" in each.get("data", {}))))


if __name__ == "__main__":
    for path, place in FIGURES.items():
        (ROOT / path).write_bytes(figure(*place))
