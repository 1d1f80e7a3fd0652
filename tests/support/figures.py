"""The pictures of the README: `python -m tests.support.figures` takes two from the notebooks and draws the first anew."""

import base64
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FIGURES = {  # file -> notebook and cell
    "nbs/images/pieces.jpg": ("21_results", "21five01"), "nbs/images/clean_and_jpeg.jpg": ("30_upscaling", "30jpeg02")}


def figure(notebook: Path, cell: str) -> bytes:
    "The JPEG file that is the cell's figure in the notebook as it was run."
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    outputs = next(each["outputs"] for each in cells if each["id"] == cell)
    return base64.b64decode("".join(next(each["data"]["image/jpeg"] for each in outputs if "image/jpeg" in each.get("data", {}))))


def draw_face(path: Path) -> None:
    "The face of the running crop, as LR, in three ways, and as HR."
    import matplotlib
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    from srgan_nb import upscale
    from srgan_nb.bicubic import downsample
    from srgan_nb.plots import faces, running_crop, show_images
    hr = running_crop()
    lr = downsample(hr)
    ways = {name: upscale(lr, name.lower(), device="cpu") for name in ("bicubic", "SRResNet", "SRGAN")}
    small, *pieces = faces(lr, *ways.values(), hr)
    titles = [f"LR, {small.width} x {small.height} pixels", *ways, "HR, the photograph"]
    show_images([small, *pieces], titles, height=2.3)
    plt.savefig(path, dpi=96, bbox_inches="tight", pil_kwargs={"quality": 85})


if __name__ == "__main__":
    draw_face(ROOT / "nbs/images/demo.jpg")
    for path, (notebook, cell) in FIGURES.items():
        (ROOT / path).write_bytes(figure(ROOT / f"nbs/{notebook}.ipynb", cell))
