"""Files appear whole or not at all, whatever happens to the writer; and what else stands on the lowest floors."""

import io
import itertools
import os
import signal
import sys
import time
from math import inf
from pathlib import Path
from threading import Event, Thread

import pytest
import tqdm.auto

from srgan_nb.errors import UserError, counted, progress_bar
from srgan_nb.files import check_free_space, locked, write_atomically
from tests.support.kills import killed_at_change
from tests.support.processes import context
from tests.support.waiting import wait_for


def test_a_file_appears_when_the_block_ends(tmp_path):
    target = tmp_path / "weights.bin"
    with write_atomically(target) as temporary:
        temporary.write_bytes(b"new")
        assert not target.exists() and temporary.suffix == ".bin"
    assert target.read_bytes() == b"new" and list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, MemoryError])
def test_the_old_file_survives_an_error_and_nothing_is_left(tmp_path, error):
    target = tmp_path / "weights.bin"
    target.write_bytes(b"old")
    with pytest.raises(error):
        with write_atomically(target) as temporary:
            temporary.write_bytes(b"half")
            raise error
    assert target.read_bytes() == b"old" and list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_told_in_one_line(tmp_path):
    target = tmp_path / "weights.bin"
    target.write_bytes(b"old")
    with pytest.raises(UserError, match=r"weights.bin: not written \(No space left on device\)$"):
        with write_atomically(target) as temporary:
            temporary.write_bytes(b"half")
            raise OSError(28, "No space left on device")
    assert target.read_bytes() == b"old" and list(tmp_path.iterdir()) == [target]


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"never.bin: not written \(No such file or directory\)$"):
        with write_atomically(tmp_path / "never.bin"):
            pass
    assert list(tmp_path.iterdir()) == []


def write_letters(target: Path, letters: str) -> None:
    "Writes a megabyte of each letter, in fifty pieces, over the one before."
    for letter in letters:
        with write_atomically(target) as temporary, open(temporary, "wb", buffering=0) as file:
            for _ in range(50):
                file.write(20_000 * letter.encode())


def write_without_end(target: Path) -> None:
    while True:
        write_letters(target, "ab")


@pytest.mark.slow
def test_a_killed_writer_leaves_a_whole_file(tmp_path):
    for number in itertools.count():
        folder = tmp_path / str(number)
        folder.mkdir()
        killed = killed_at_change(number, folder, write_letters, folder / "weights.bin", "ab")
        content = (folder / "weights.bin").read_bytes() if (folder / "weights.bin").exists() else b""
        assert content in (b"", b"a" * 1_000_000, b"b" * 1_000_000)
        leftovers = [path.name for path in folder.iterdir() if path.name != "weights.bin"]
        assert all(name.startswith(".") and ".part" in name for name in leftovers)
        if not killed:
            break
    assert number >= 8 and content[:1] == b"b" and not leftovers, "each of two files is opened, flushed, renamed, swept up"


@pytest.mark.slow
def test_a_reader_beside_two_writers_sees_whole_files_only(tmp_path):
    target = tmp_path / "weights.bin"
    writers = [context.Process(target=write_without_end, args=(target,)) for _ in range(2)]
    try:
        for writer in writers:
            writer.start()
        wait_for(target.exists, "the first file")
        for _ in range(100):
            assert len(target.read_bytes()) == 1_000_000
        assert all(writer.is_alive() for writer in writers)
    finally:
        for writer in writers:
            writer.kill()
            writer.join()


def test_long_names_fit(tmp_path):
    target = tmp_path / ("ü" * 120 + ".png")  # 244 bytes, the limit is 255
    with write_atomically(target) as temporary:
        temporary.write_bytes(b"new")
    assert target.exists()


def test_the_new_file_has_ordinary_rights(tmp_path):
    (tmp_path / "ordinary").touch()
    with write_atomically(tmp_path / "new") as temporary:
        temporary.touch()
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_a_missing_folder_and_a_folder_as_target_are_told(tmp_path):
    with pytest.raises(UserError, match="the folder .*missing does not exist"):
        with write_atomically(tmp_path / "missing" / "file"):
            pass
    with pytest.raises(UserError, match="no plain file"):
        with write_atomically(tmp_path):
            pass


@pytest.mark.skipif(os.name == "nt", reason="no device files")
def test_a_device_is_never_replaced():
    with pytest.raises(UserError, match="no plain file"):
        with write_atomically("/dev/null"):
            pass
    assert not os.path.isfile("/dev/null")


def test_free_space(tmp_path):
    check_free_space(tmp_path / "not" / "yet" / "made", 1, "a test")
    with pytest.raises(UserError, match="a test needs .* MB, .* MB free: make room"):
        check_free_space(tmp_path / "not" / "yet" / "made", 10**18, "a test")


def hold_for_ever(path: Path, inside) -> None:
    with locked(path):
        inside.set()
        signal.pause()


@pytest.mark.slow
def test_who_waits_has_its_turn_when_the_holder_is_killed(tmp_path, monkeypatch):
    path, inside, waits, has_its_turn = tmp_path / "not" / "yet" / "made" / ".lock", context.Event(), Event(), Event()
    holder = context.Process(target=hold_for_ever, args=(path, inside))
    holder.start()
    inside.wait()
    with pytest.raises(UserError, match="another is at work"):
        with locked(path, busy="another is at work"):
            pass

    def wait_and_enter():
        with locked(path):
            has_its_turn.set()

    pause = time.sleep
    monkeypatch.setattr("time.sleep", lambda seconds: waits.set() or pause(seconds))
    waiter = Thread(target=wait_and_enter)
    waiter.start()
    waits.wait()
    assert not has_its_turn.is_set()
    holder.kill()
    has_its_turn.wait()
    waiter.join()
    with locked(path, busy="nobody is at work any more"):
        pass


def add_ones(number: Path, times: int) -> None:
    "Reads a number from a file and writes the next one, under a lock."
    for _ in range(times):
        with locked(number.with_suffix(".lock")):
            value = int(number.read_text(encoding="utf-8"))
            time.sleep(0.001)  # long enough for another one to read the same, if the lock let it
            number.write_text(str(value + 1), encoding="utf-8")


@pytest.mark.slow
def test_one_process_at_a_time(tmp_path):
    (tmp_path / "number").write_text("0")
    processes = [context.Process(target=add_ones, args=(tmp_path / "number", 20)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert (tmp_path / "number").read_text() == "60"


def test_an_error_inside_opens_the_lock(tmp_path):
    with pytest.raises(KeyError):
        with locked(tmp_path / ".lock"):
            raise KeyError
    with locked(tmp_path / ".lock", busy="still locked"):
        pass


def test_numbers_agree_with_their_nouns():
    assert [counted(count, "photo") for count in (0, 1, 2, 1234)] == ["0 photos", "1 photo", "2 photos", "1,234 photos"]


@pytest.mark.parametrize(("pause", "lines"), [(inf, 0), (0, 301)])
def test_a_bar_in_a_file_is_a_line_now_and_then(capsys, pause, lines):
    "None before the pause is over; where there is no pause, one at the start and for each item, none of them drawn over another."
    assert list(progress_bar(range(300), pause=pause, unit="photo", delay=1)) == [*range(300)]
    said = capsys.readouterr().err
    assert said.count("\n") == len(said.splitlines()) == lines and "\r" not in said
    assert not lines or said.splitlines()[-1].startswith("100%|") and "300/300" in said.splitlines()[-1]


@pytest.mark.parametrize(("spoke", "more", "last"), [(True, 3, "4/9"), (True, 0, "1/9"), (False, 3, "")])
def test_in_a_file_the_last_line_is_how_far_it_came(capsys, spoke, more, last):
    "Once, and only where something was said before."
    with progress_bar(total=9, pause=inf) as bar:
        bar.update()
        if spoke:
            bar.refresh()
        bar.update(more)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == spoke + (spoke and more > 0) and (last in said[-1] if spoke else not last)


@pytest.mark.parametrize(("place", "drawn"), [("terminal", True), ("notebook", True), ("hidden", False), ("none", False)])
def test_a_bar_is_drawn_in_terminals_and_notebooks_alone(monkeypatch, place, drawn):
    file = type("Stream", (io.StringIO,), {"__module__": "ipykernel.iostream" if place == "notebook" else "io"})()
    file.isatty = lambda: place == "terminal"
    monkeypatch.setattr(sys, "stderr", None if place == "none" else file)
    bar = progress_bar(range(3), place != "hidden")
    assert type(bar) is tqdm.auto.tqdm and bar.disable is not drawn and list(bar) == [0, 1, 2]
    assert ("3/3" in file.getvalue()) is drawn
