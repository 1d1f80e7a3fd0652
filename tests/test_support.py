"""What other tests rest on: their environment, and processes that die where they should."""

import os
from pathlib import Path

import pytest

from srgan_nb.files import write_atomically
from tests.support.environment import private_environment
from tests.support.kills import killed_at_change
from tests.support.waiting import wait_for, wait_for_rest


def test_no_setting_of_the_user_s_reaches_a_test(tmp_path: Path) -> None:
    users = {"HOME": "/home/user", "COLUMNS": "20", "SRGAN_NB_DATA": "/data", "TORCH_HOME": "/torch", "LC_ALL": "de_DE",
             "LANG": "de_DE", "MPLBACKEND": "tkagg", "MAKEFLAGS": "k", "http_proxy": "http://127.0.0.1:9", "RANK": "0"}
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
