"""What other tests rest on: their environment, and processes that die where they should."""

import ast
import os
import re
from pathlib import Path

import pytest

from srgan_nb.files import write_atomically
from tests.conftest import ROOT
from tests.support.environment import private_environment
from tests.support.kills import killed_at_change
from tests.support.notebooks import NOTEBOOKS, cells
from tests.support.opens import watched_opens
from tests.support.waiting import wait_for, wait_for_rest


def test_no_setting_of_the_user_s_reaches_a_test(tmp_path: Path) -> None:
    users = {"HOME": "/home/user", "COLUMNS": "20", "SRGAN_NB_DATA": "/data", "TORCH_HOME": "/torch", "LC_ALL": "de_DE",
             "LANG": "de_DE", "MPLBACKEND": "tkagg", "MAKEFLAGS": "k", "GIT_DIR": "/hook",
             "http_proxy": "http://127.0.0.1:9", "RANK": "0"}
    ours = private_environment({**users, "PATH": "/bin"}, tmp_path / "new")
    assert ours["PATH"] == "/bin" and not [name for name, value in users.items() if ours.get(name) == value]
    assert all(Path(ours[name]).parent == tmp_path / "new" for name in ("HOME", "TMPDIR", "SRGAN_NB_DATA"))
    assert os.environ["HOME"] != ours["HOME"] and Path.home().parent == Path(os.environ["TMPDIR"]).parent


def test_what_is_at_hand_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("data/benchmarks/Set5/HR", "torch_home"):
        (tmp_path / "shared" / place).mkdir(parents=True)
    ours = private_environment({"SRGAN_NB_SHARED": str(tmp_path / "shared")}, tmp_path / "new")
    assert Path(ours["SRGAN_NB_DATA"], "Set5/HR").is_dir() and ours["TORCH_HOME"] == str(tmp_path / "shared/torch_home")
    assert "SRGAN_NB_VGG" not in ours, "no weights are there"


def write_twice(folder: Path) -> None:
    for name in ("one", "two"):
        with write_atomically(folder / name) as temporary:
            temporary.write_text("whole")
    (folder.parent / "elsewhere").write_text("not counted")


@pytest.mark.slow
def test_a_process_dies_at_the_change_that_was_asked_for(tmp_path: Path) -> None:
    seen = []
    for number in range(9):
        (tmp_path / str(number)).mkdir()
        killed = killed_at_change(number, tmp_path / str(number), write_twice, tmp_path / str(number))
        seen.append((killed, sorted(path.read_text() for path in (tmp_path / str(number)).iterdir())))
    one = [(True, []), (True, ["whole"]), (True, ["wh"]), (True, ["whole"])]  # as it opens, flushes, renames, sweeps up
    assert seen == one + [(killed, sorted(["whole", *texts])) for killed, texts in one] + [(False, ["whole", "whole"])]


def test_waiting_ends_with_the_event_or_says_what_did_not_come() -> None:
    answers = iter([0, None, "here"])
    assert wait_for(lambda: next(answers), "an answer") == "here"
    with pytest.raises(TimeoutError, match="a miracle did not come"):
        wait_for(lambda: False, "a miracle", seconds=0)


def test_what_flickers_is_asked_until_it_rests():
    answers = iter([1, 1, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3])
    assert wait_for_rest(lambda: next(answers), "rest") == 2 and next(answers) == 3


REPLACED = {  # what tests put something else in place of: the world around the package, never a part that is under test
    "sys.stdout", "sys.stderr", "sys.platform", "sys.argv", "sys.modules", "sys.stream",
    "time.sleep", "downloads.time.sleep", "packs.time.time_ns", "patches.time",  # clocks
    "os.access", "os.scandir", "shutil.disk_usage",  # a system's answers
    "torch.hub.download_url_to_file", "torch.compile", "Image.MAX_IMAGE_PIXELS", "importlib.util.find_spec",
    "plt.show", "IPython.get_ipython", "IPython.display.display",
    "ThreadPoolExecutor.shutdown",  # the standard library's
    "MappedFiles.resident_limit", "srgan_nb.upscale_files.SHARE", "downloads.PHOTO_SETS",  # two numbers and a table
}


def replacements(source: str) -> set[str]:
    "OBJECT.NAME of what a program replaces by pytest's monkeypatch or unittest's mock."
    found = set()
    for call in ast.walk(ast.parse(source)):
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
            continue
        of, method = ast.unparse(call.func.value), call.func.attr
        texts = [one.value if isinstance(one, ast.Constant) else ast.unparse(one) for one in call.args]
        if method in ("setattr", "delattr") or method == "object" and of.endswith("patch"):
            found.add(texts[0] if method == "setattr" and len(texts) == 2 else ".".join(texts[:2]))
        elif method in ("setitem", "delitem", "patch") or method == "dict" and of.endswith("patch"):
            found.add(texts[0])
    return found


def test_nothing_under_test_is_replaced() -> None:
    "Whoever wants to look into a part passes a hook (`before_update`), a real part, or watches what it opens."
    found = {each for path in (ROOT / "tests").rglob("*.py") for each in replacements(path.read_text(encoding="utf-8"))}
    assert {each.replace("__import__('sys')", "sys") for each in found} == REPLACED
    assert replacements("def test(m): m.setattr(Trainer, 'fit', 0); m.setattr('srgan_nb.packs.inspect', look)") == {
        "Trainer.fit", "srgan_nb.packs.inspect"}
    assert replacements("with mock.patch.object(Pack, 'lr', f), mock.patch('srgan_nb.cli.meant'): pass") == {
        "Pack.lr", "srgan_nb.cli.meant"}


def test_notebooks_replace_nothing() -> None:
    code = "\n".join(cell["source"] for path in NOTEBOOKS for cell in cells(path, "code"))
    assert replacements(re.sub(r"^[%!].*$", "", code, flags=re.MULTILINE)) == set()


def test_what_is_opened_is_seen_and_can_be_refused(tmp_path: Path) -> None:
    seen = []

    def watcher(path: Path, to_write: bool) -> None:
        if path.parent == tmp_path:
            seen.append((path.name, to_write))
            if path.name == "refused":
                raise OSError(28, "No space left on device")

    with watched_opens(watcher):
        (tmp_path / "one").write_text("", encoding="utf-8")
        (tmp_path / "one").read_bytes()
        with pytest.raises(OSError, match="No space left"):
            (tmp_path / "refused").write_bytes(b"")
    (tmp_path / "one").read_bytes()
    assert seen == [("one", True), ("one", False), ("refused", True)]
