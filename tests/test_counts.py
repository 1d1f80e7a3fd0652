"""A book that one wants to read on: words, cells and lines counted."""

import json
import re
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from statistics import median

import pytest

from tests.support.notebooks import cells

WORDS, WORDS_A_PAGE, CODE_CELLS, LINES, MEDIAN, WORDS_BEFORE_A_GAN = 16_000, 2_200, 30, 40, (3, 7), 4_000


def words(page: list[dict]) -> int:
    return sum(len(cell["source"].split()) for cell in page if cell["cell_type"] == "markdown")


def visible(page: list[dict]) -> Iterator[dict]:
    "The code cells whose source a reader sees: not hidden, not folded, not below a folded heading."
    folded = 0  # the level of the heading that is folded, 0: none
    for cell in page:
        if cell["cell_type"] == "markdown" and (heading := re.match("#+ ", cell["source"])):
            level = len(heading[0]) - 1
            if not folded or level <= folded:
                folded = level if cell["metadata"].get("jp-MarkdownHeadingCollapsed") else 0
        hidden = cell["source"].startswith("#| hide") or cell["metadata"].get("jupyter", {}).get("source_hidden")
        if cell["cell_type"] == "code" and not folded and not hidden:
            yield cell


def walls(page: list[dict]) -> list[str]:
    "What is too long to be read at a glance."
    return [f"{lines} lines: {cell['source'][:60]!r}" for cell in visible(page)
            if (lines := len(cell["source"].splitlines())) > LINES]


def excesses(page: list[dict]) -> list[str]:
    "Where a page of the first part is over its limits; empty lines don't count for the median."
    lengths = [sum(bool(line.strip()) for line in cell["source"].splitlines()) for cell in visible(page)]
    code = sum(cell["cell_type"] == "code" for cell in page)
    middle = median(lengths) if lengths else 0
    return [*([f"{words(page)} words"] if words(page) > WORDS_A_PAGE else []),
            *([f"{code} code cells"] if code > CODE_CELLS else []),
            *([f"median cell {middle:g} lines"] if not MEDIAN[0] <= middle <= MEDIAN[1] else []), *walls(page)]


def first_gan(pages: list[list[dict]]) -> dict[str, int]:
    "The words that stand before GAN is defined, and before a picture of one that learned on the page is shown."
    before = accumulate((words([cell]) for page in pages for cell in page), initial=0)
    found: dict[str, int] = {}
    for page in pages:
        learns = False
        for cell in page:
            count = next(before)
            text, code = cell["source"], cell["cell_type"] == "code"
            if not code and re.search(r"\bGANs?\b", text) and re.search(r"generative\s+adversarial", text, re.IGNORECASE):
                found.setdefault("defined", count)
            learns |= code and "backward()" in text and bool(re.search(r"discriminator|\bD\b|judge", text))
            if learns and any(kind.startswith("image/") for output in cell.get("outputs", [])
                              for kind in output.get("data", {})):
                found.setdefault("shown", count)
    return found


def complaints(folder: Path) -> list[str]:
    "All that is over a limit, notebook by notebook."
    paths = sorted(path for path in folder.glob("[0-9]*.ipynb"))
    pages = {path.stem: cells(path) for path in paths}
    first_part = {name: page for name, page in pages.items() if name < "22"}
    found = [f"{name}: {excess}" for name, page in first_part.items() for excess in excesses(page)]
    found += [f"{name}: {wall}" for name, page in pages.items() if name not in first_part for wall in walls(page)]
    if (total := sum(map(words, first_part.values()))) > WORDS:
        found.append(f"the first part: {total} words")
    gan = first_gan(list(first_part.values()))
    return found + [f"GAN {what} after {gan.get(what)} words" for what in ("defined", "shown")
                    if gan.get(what, WORDS_BEFORE_A_GAN) >= WORDS_BEFORE_A_GAN]


def test_the_book_keeps_its_limits(copies: Path) -> None:
    assert complaints(copies) == []


def markdown(text: str, folded: bool = False) -> dict:
    return dict(cell_type="markdown", id="a", source=text, metadata={"jp-MarkdownHeadingCollapsed": True} if folded else {})


def code(lines: int, *, first: str = "1", picture: bool = False, **metadata: dict) -> dict:
    outputs = [dict(output_type="display_data", data={"image/png": ""})] if picture else []
    return dict(cell_type="code", id="b", source="\n".join([first] * lines), metadata=metadata, outputs=outputs)


GAN = [markdown("A **GAN**, a generative adversarial network"), code(3, first="(D(x) - 1).backward()", picture=True)]


@pytest.mark.parametrize(("page", "complaint"), [
    ([*GAN, code(5)], None),
    ([*GAN, markdown("word " * 2_300)], "2306 words"),
    ([*GAN, *[code(5)] * 31], "32 code cells"),
    ([*GAN, *[code(9)] * 3], "median cell 9 lines"),
    ([*GAN, code(5), code(41)], "41 lines"),
    ([*GAN, code(5), code(41, jupyter={"source_hidden": True}), code(41, first="#| hide")], None),
    ([*GAN, code(5), markdown("## How", folded=True), markdown("### More"), code(41), markdown("## Next")], None),
    ([*GAN, code(5), markdown("## How", folded=True), markdown("## Next"), code(41)], "41 lines"),
    ([markdown("word " * 2_000)] * 8 + GAN, "GAN defined after 16000 words"),
    ([*GAN[:1], code(5, picture=True)], "GAN shown after None words"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_too_long_is_found(page: list[dict], complaint: str | None, tmp_path: Path) -> None:
    "The guard that the test above can fail."
    (tmp_path / "10_page.ipynb").write_text(json.dumps(dict(cells=page)), encoding="utf-8")
    found = complaints(tmp_path)
    assert any(complaint in each for each in found) if complaint else found == []
