"""Files appear whole or not at all, whatever happens to the writer."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from srgan_nb.files import UserError, check_free_space, counted, locked, write_atomically


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


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        with write_atomically(tmp_path / "never.bin"):
            pass
    assert list(tmp_path.iterdir()) == []


WRITER = """
import sys
from srgan_nb.files import write_atomically
letters = [b"a", b"b"]
print("ready", flush=True)
while True:
    letters.reverse()
    with write_atomically(sys.argv[1]) as temporary, open(temporary, "wb", buffering=0) as file:
        for _ in range(50):
            file.write(letters[0] * 20_000)
"""


def test_a_killed_writer_leaves_a_whole_file(tmp_path):
    target = tmp_path / "weights.bin"
    pause = random.Random(0)
    seen = 0
    for _ in range(10):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, target], stdout=subprocess.PIPE)
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(pause.uniform(0, 0.15))
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        if target.exists():
            content = target.read_bytes()
            assert content in (b"a" * 1_000_000, b"b" * 1_000_000)
            seen += 1
    assert seen
    leftovers = [path.name for path in tmp_path.iterdir() if path != target]
    assert all(name.startswith(".") and ".part" in name for name in leftovers)


def test_a_reader_beside_two_writers_sees_whole_files_only(tmp_path):
    target = tmp_path / "weights.bin"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, target], stdout=subprocess.PIPE) for _ in range(2)]
    try:
        deadline = time.monotonic() + 20
        while not target.exists():
            assert time.monotonic() < deadline
        for _ in range(100):
            assert len(target.read_bytes()) == 1_000_000
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()


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


HOLDER = """
import sys, time
from srgan_nb.files import locked
with locked(sys.argv[1]):
    print("inside", flush=True)
    time.sleep(60)
"""


def test_one_process_at_a_time_and_a_killed_one_leaves_no_lock(tmp_path):
    path = tmp_path / "not" / "yet" / "made" / ".lock"
    holders = [subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE)]
    try:
        assert holders[0].stdout.readline() == b"inside\n"
        with pytest.raises(UserError, match="another is at work"):
            with locked(path, busy="another is at work"):
                pass
        holders.append(subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE))
        os.set_blocking(holders[1].stdout.fileno(), False)
        time.sleep(2)  # long enough to start and to find it taken
        assert not holders[1].stdout.read(), "the second one waits"
        os.set_blocking(holders[1].stdout.fileno(), True)
        holders[0].kill()
        assert holders[1].stdout.readline() == b"inside\n", "and has its turn when the first one is gone"
    finally:
        for holder in holders:
            holder.kill()
            holder.communicate()
    with locked(path, busy="nobody is at work any more"):
        pass


def test_an_error_inside_opens_the_lock(tmp_path):
    with pytest.raises(KeyError):
        with locked(tmp_path / ".lock"):
            raise KeyError
    with locked(tmp_path / ".lock", busy="still locked"):
        pass


def test_numbers_agree_with_their_nouns():
    assert [counted(count, "photo") for count in (0, 1, 2, 1234)] == ["0 photos", "1 photo", "2 photos", "1,234 photos"]
