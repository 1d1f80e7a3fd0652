"""Downloads against a loopback server that breaks off, lies, redirects and refuses."""
import hashlib
import io
import itertools
import json
import os
import random
import re
import sys
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from srgan_nb import downloads
from srgan_nb.downloads import PhotoSet, Source, download, fetch, pixel_digest, unpack
from srgan_nb.errors import UserError
from srgan_nb.files import data_folder, folder_atomically
from tests.support.kills import killed_at_change
from tests.support.processes import context

SHARED = Path(os.environ.get("SRGAN_NB_SHARED", ""))


class Server(BaseHTTPRequestHandler):
    """Serves `files`; the next request for a path follows the first behaviour left in its `script`."""
    protocol_version = "HTTP/1.0"

    def do_GET(self):
        site = self.server.site
        behaviours = site.script.get(self.path, [])
        behaviour = behaviours.pop(0) if behaviours else {}
        asked = self.headers.get("Range")
        site.log.append((self.path, asked))
        if status := behaviour.get("status"):
            self.send_response(status)
            for name, value in behaviour.get("headers", {}).items():
                self.send_header(name, value)
            self.end_headers()
            return
        data = behaviour.get("data", site.files.get(self.path))
        if data is None:
            return self.send_error(404)
        mark = '"' + hashlib.md5(data).hexdigest() + '"'
        start = int(asked[6:-1]) if asked and self.headers.get("If-Range") in (None, mark) else 0
        if behaviour.get("no ranges"):
            start = 0
        if start >= len(data):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if not behaviour.get("no mark"):
            self.send_header("ETag", mark)
        if not behaviour.get("no length"):
            self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        stop = start + behaviour.get("bytes", len(data))
        for first in range(start, min(stop, len(data)), 8192):
            try:
                self.wfile.write(data[first:min(first + 8192, stop)])
            except ConnectionError:
                return  # the client was killed
            time.sleep(behaviour.get("slow", 0))

    def log_message(self, *details):
        pass


class Site:
    def __init__(self):
        self.files, self.script, self.log = {}, {}, []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
        self.server.site = self
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()  # asks often for its end


@pytest.fixture
def site():
    site = Site()
    yield site
    site.server.shutdown()
    site.server.server_close()


def png(seed: int, side: int = 24) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)).save(file, "png")
    return file.getvalue()


def make_zip(files: dict) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)  # a fixed date: the same bytes each time
    return file.getvalue()


def make_tar(files: dict, mode: str = "w:gz", *members: tarfile.TarInfo) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        for member in members:
            archive.addfile(member)
    return file.getvalue()


def sha(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


PAYLOAD = random.Random(0).randbytes(200_000)
PICTURES = {f"Toy/HR/{name}.png": png(seed) for seed, name in enumerate("abc")}


@pytest.fixture
def toy(site, monkeypatch):
    """A set of three pictures with two mirrors of known checksum and a third without."""
    data = make_zip(PICTURES)
    for path in ("/one/toy.zip", "/two/toy.zip", "/three/toy-copy.zip"):
        site.files[path] = data
    sources = (Source(site.address + "/one/toy.zip", sha(data)), Source(site.address + "/two/toy.zip", sha(data)),
               Source(site.address + "/three/toy-copy.zip"))
    monkeypatch.setitem(downloads.PHOTO_SETS, "Toy", PhotoSet(3, ("*Toy/HR/*.png",), sources))
    monkeypatch.setattr(downloads.time, "sleep", lambda seconds: None)
    return data


def whole(folder: Path) -> bool:
    return {path.name: path.read_bytes() for path in folder.iterdir()} == {
        name.rpartition("/")[2]: data for name, data in PICTURES.items()}


# One file --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("checked", [True, False], ids=["published", "unknown"])
@pytest.mark.parametrize("cut", [0, 1, 8191, 8192, 65_537, 199_999])
def test_a_transfer_cut_at_any_byte_is_resumed_there(site, tmp_path, cut, checked):
    site.files["/f.zip"], site.script["/f.zip"] = PAYLOAD, [{"bytes": cut}]
    path = fetch(site.address + "/f.zip", tmp_path / "f.zip", sha(PAYLOAD) if checked else "", False, pause=0)
    assert path.read_bytes() == PAYLOAD
    assert [asked for _, asked in site.log] == [None, f"bytes={cut}-" if cut else None]
    assert [path.name for path in tmp_path.iterdir()] == ["f.zip"]


@pytest.mark.parametrize("behaviour", [{"status": 503}, {"status": 503, "headers": {"Retry-After": "0"}},
                                       {"status": 429}, {"status": 500}, {"bytes": 0}])
def test_passing_troubles_are_tried_again(site, tmp_path, behaviour):
    site.files["/f.zip"], site.script["/f.zip"] = PAYLOAD, [behaviour, behaviour]
    assert fetch(site.address + "/f.zip", tmp_path / "f.zip", "", False, pause=0).read_bytes() == PAYLOAD


@pytest.mark.parametrize("behaviour, requests, reason", [
    ({"status": 404}, 1, "answered 404"), ({"status": 403}, 1, "answered 403"), ({"status": 410}, 1, "answered 410"),
    ({"status": 503}, 3, "answered 503"), ({"bytes": 0}, 3, "broke off"),
    ({"data": bytes(len(PAYLOAD))}, 1, "wrong bytes"), ({"data": b"<html>Please log in</html>"}, 1, "wrong bytes"),
    ({"data": PAYLOAD[:-1]}, 1, "wrong bytes"), ({"bytes": 99_999, "no length": True}, 1, "wrong bytes"),
    ({"status": 302, "headers": {"Location": "file:///etc/hostname"}}, 1, "answered 302"),
    ({"status": 302, "headers": {"Location": "/f.zip"}}, None, "answered 302"),
])
def test_lasting_troubles_end_with_the_reason_and_no_file(site, tmp_path, behaviour, requests, reason):
    site.files["/f.zip"], site.script["/f.zip"] = PAYLOAD, [behaviour] * 50
    with pytest.raises(UserError, match=reason):
        fetch(site.address + "/f.zip", tmp_path / "f.zip", sha(PAYLOAD), False, pause=0)
    assert not (tmp_path / "f.zip").exists()
    assert requests in (None, len(site.log))


def test_a_connection_refused_is_an_error_with_the_reason(site, tmp_path):
    site.server.shutdown()
    site.server.server_close()
    with pytest.raises(UserError, match="no connection"):
        fetch(site.address + "/f.zip", tmp_path / "f.zip", "", False, pause=0)


def test_redirects_are_followed_and_resumed(site, tmp_path):
    site.files["/real.zip"], site.script["/real.zip"] = PAYLOAD, [{"bytes": 50_000}]
    site.script["/f.zip"] = [{"status": 302, "headers": {"Location": "/real.zip"}}] * 2
    assert fetch(site.address + "/f.zip", tmp_path / "f.zip", "", False, pause=0).read_bytes() == PAYLOAD
    assert site.log[-1] == ("/real.zip", "bytes=50000-")


def test_a_file_that_changed_between_two_tries_is_not_spliced(site, tmp_path):
    newer = PAYLOAD[::-1]
    site.files["/f.zip"], site.script["/f.zip"] = newer, [{"data": PAYLOAD, "bytes": 100_000}]
    assert fetch(site.address + "/f.zip", tmp_path / "f.zip", "", False, pause=0).read_bytes() == newer


def test_without_a_version_mark_an_unchecked_file_starts_over(site, tmp_path):
    site.files["/f.zip"], site.script["/f.zip"] = PAYLOAD, [{"bytes": 100_000, "no mark": True}, {"no mark": True}]
    fetch(site.address + "/f.zip", tmp_path / "f.zip", "", False, pause=0)
    assert [asked for _, asked in site.log] == [None, None]


def test_a_server_without_ranges_starts_over(site, tmp_path):
    site.files["/f.zip"], site.script["/f.zip"] = PAYLOAD, [{"bytes": 100_000}, {"no ranges": True}]
    assert fetch(site.address + "/f.zip", tmp_path / "f.zip", "", False, pause=0).read_bytes() == PAYLOAD


def test_left_over_bytes_that_are_too_many_or_wrong_are_thrown_away(site, tmp_path):
    site.files["/f.zip"] = PAYLOAD
    for left_over in (bytes(300_000), bytes(100_000), PAYLOAD):
        (tmp_path / "f.zip.part").write_bytes(left_over)
        path = fetch(site.address + "/f.zip", tmp_path / "f.zip", sha(PAYLOAD), False, pause=0)
        assert path.read_bytes() == PAYLOAD
        path.unlink()


def test_a_full_disk_is_said_before_the_transfer(site, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("usage", (), {"free": 1000}))
    site.files["/f.zip"] = PAYLOAD
    with pytest.raises(UserError, match="make room"):
        fetch(site.address + "/f.zip", tmp_path / "f.zip", "", False, pause=0)


def test_a_note_that_a_power_cut_emptied_is_as_none(site, tmp_path):
    site.files["/f.zip"] = PAYLOAD
    (tmp_path / "f.zip.part").write_bytes(PAYLOAD[:99])
    (tmp_path / "f.zip.version").touch()
    assert fetch(site.address + "/f.zip", tmp_path / "f.zip", sha(PAYLOAD), False, pause=0).read_bytes() == PAYLOAD


# Archives --------------------------------------------------------------------------------------------------------

def unpacked(tmp_path: Path, data: bytes, count: int = 3, patterns=("*HR/*.png",)) -> dict:
    archive = tmp_path / "archive"
    archive.write_bytes(data)
    (tmp_path / "inside").mkdir(exist_ok=True)
    with folder_atomically(tmp_path / "inside/out") as folder:
        unpack(archive, patterns, count, folder)
    return {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
            and path != archive}


@pytest.mark.parametrize("pack", [make_zip, make_tar, lambda files: make_tar(files, "w"),
                                  lambda files: make_tar(files, "w:xz")], ids=["zip", "tar.gz", "tar", "tar.xz"])
def test_archives_of_any_kind(tmp_path, pack):
    data = pack(PICTURES | {"Toy/LR/a.png": b"x", "__MACOSX/Toy/HR/._a.png": b"y", "Toy/HR/.DS_Store": b"z"})
    assert unpacked(tmp_path, data) == {f"inside/out/{name}.png": PICTURES[f"Toy/HR/{name}.png"] for name in "abc"}


@pytest.mark.parametrize("pack", [make_zip, make_tar], ids=["zip", "tar"])
def test_no_name_leads_outside(tmp_path, pack):
    evil = {"../../HR/a.png": b"a", f"{tmp_path}/HR/b.png": b"b", "x/../../../HR/c.png": b"c"}
    assert set(unpacked(tmp_path, pack(evil))) == {f"inside/out/{name}.png" for name in "abc"}


def test_links_and_devices_in_a_tar_are_no_pictures(tmp_path):
    kinds = {"a": tarfile.SYMTYPE, "b": tarfile.LNKTYPE, "c": tarfile.FIFOTYPE, "d": tarfile.CHRTYPE}
    members = []
    for name, kind in kinds.items():
        entry = tarfile.TarInfo(f"HR/{name}.png")
        entry.type, entry.linkname = kind, "/etc/passwd"
        members.append(entry)
    with pytest.raises(UserError, match="0 as"):
        unpacked(tmp_path, make_tar({}, "w", *members), count=4)


def test_a_bomb_is_refused_and_little_memory_is_used(tmp_path):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("HR/a.png", bytes(120_000_000))
    with pytest.raises(UserError, match="unpacks to over 100 MB"):
        unpacked(tmp_path, file.getvalue(), count=1)
    assert not (tmp_path / "inside/out").exists()


@pytest.mark.parametrize("pack", [make_zip, make_tar], ids=["zip", "tar.gz"])
def test_an_archive_cut_at_any_byte_is_refused(tmp_path, pack):
    data = pack(PICTURES)
    for cut in [0, 1, 100, *random.Random(1).sample(range(200, len(data) - 200), 15)]:
        with pytest.raises(UserError):
            unpacked(tmp_path, data[:cut])
        assert not (tmp_path / "inside/out").exists()


def test_a_flipped_bit_in_a_picture_is_refused(tmp_path):
    data = bytearray(make_zip(PICTURES))
    data[len(data) // 3] ^= 1
    with pytest.raises(UserError, match="damaged"):
        unpacked(tmp_path, bytes(data))


@pytest.mark.parametrize("data", [b"", b"<html>", make_zip({}), make_zip({"HR/a.png": b"a"})])
def test_what_is_no_such_archive_is_refused(tmp_path, data):
    with pytest.raises(UserError):
        unpacked(tmp_path, data)


# Sets ------------------------------------------------------------------------------------------------------------

def test_a_set_arrives_and_is_left_alone_afterwards(site, toy, tmp_path, capsys):
    assert download("Toy", tmp_path) == {"Toy": tmp_path / "Toy"}
    assert whole(tmp_path / "Toy")
    assert "its checksum is the published one" in capsys.readouterr().out
    requests = len(site.log)
    (tmp_path / "Toy/.DS_Store").touch()  # by macOS, when somebody looks at the pictures
    download(["Toy"], tmp_path)
    assert "already there" in capsys.readouterr().out
    assert len(site.log) == requests
    assert not list((tmp_path / ".downloads").iterdir())


@pytest.mark.parametrize("first", [{"status": 404}, {"data": b"wrong"}, {"bytes": 0}, {"status": 503}])
def test_the_next_source_is_tried(site, toy, tmp_path, first):
    site.script["/one/toy.zip"] = [first] * 5
    download("Toy", tmp_path, progress=False)
    assert whole(tmp_path / "Toy")
    assert {path for path, _ in site.log} == {"/one/toy.zip", "/two/toy.zip"}


def test_all_sources_failing_are_all_named(site, toy, tmp_path):
    site.script |= {"/one/toy.zip": [{"status": 404}], "/two/toy.zip": [{"data": b"wrong"}] * 3,
                    "/three/toy-copy.zip": [{"data": make_zip({"Toy/HR/a.png": b"a"})}]}
    with pytest.raises(UserError) as error:
        download("Toy", tmp_path, progress=False)
    for reason in ("answered 404", "wrong bytes", "not the 3 pictures", "--from ARCHIVE"):
        assert reason in str(error.value)
    assert not (tmp_path / "Toy").exists()


def test_a_verified_archive_is_kept_where_there_is_no_room_to_unpack_it(site, toy, tmp_path, monkeypatch):
    free = iter([10**12])  # for the transfer; then the disk is full

    def usage(folder):
        return SimpleNamespace(free=next(free, 0))

    with monkeypatch.context() as patched, pytest.raises(UserError, match="unpacking.*make room"):
        patched.setattr("shutil.disk_usage", usage)
        download("Toy", tmp_path, progress=False)
    transfers = len(site.log)
    download("Toy", tmp_path, progress=False)
    assert whole(tmp_path / "Toy") and len(site.log) == transfers


def test_an_unpublished_checksum_is_recorded_said_and_held_to(site, toy, tmp_path, capsys):
    site.script |= {path: [{"status": 404}] * 9 for path in ("/one/toy.zip", "/two/toy.zip")}
    download("Toy", tmp_path)
    assert f"no checksum is published for it, its sha256 {sha(toy)[7:19]}… is now recorded" in capsys.readouterr().out
    assert json.loads((tmp_path / "downloads.json").read_text())["Toy"]["sha256"] == sha(toy)[7:]
    (tmp_path / "Toy").rename(tmp_path / "moved away")
    site.files["/three/toy-copy.zip"] = make_zip(PICTURES | {"Toy/HR/a.png": png(99)})
    with pytest.raises(UserError, match="when it was first fetched and is now"):
        download("Toy", tmp_path, progress=False)


def test_pictures_that_are_not_the_published_ones_are_refused(site, toy, tmp_path, monkeypatch):
    sources = (Source(site.address + "/one/toy.zip", files="0" * 32),)
    monkeypatch.setitem(downloads.PHOTO_SETS, "Toy", PhotoSet(3, ("*.png",), sources))
    with pytest.raises(UserError, match="wrong pictures"):
        download("Toy", tmp_path, progress=False)


def test_pixels_that_differ_are_said(site, toy, tmp_path, monkeypatch, capsys):
    (tmp_path / "same").mkdir()
    for name, data in PICTURES.items():
        Image.open(io.BytesIO(data)).save(tmp_path / "same" / (name[-5] + ".bmp"))
    known = downloads.PHOTO_SETS["Toy"]
    for pixels, said in ((pixel_digest(tmp_path / "same"), "pixels are those"), ("0" * 64, "PIXELS DIFFER")):
        monkeypatch.setitem(downloads.PHOTO_SETS, "Toy", known._replace(pixels=pixels))
        download("Toy", tmp_path / said[:6])
        assert said in capsys.readouterr().out


def test_an_archive_by_hand(site, toy, tmp_path, capsys):
    (tmp_path / "mine.zip").write_bytes(toy)
    download("Toy", tmp_path / "a", archive=tmp_path / "mine.zip")
    assert "its checksum is the published one" in capsys.readouterr().out
    (tmp_path / "other.tgz").write_bytes(make_tar(PICTURES))
    download("Toy", tmp_path / "b", archive=tmp_path / "other.tgz")
    assert "no checksum is published" in capsys.readouterr().out
    assert whole(tmp_path / "a/Toy") and whole(tmp_path / "b/Toy") and not site.log
    (tmp_path / "text.zip").write_text("no archive\n" * 20)
    for wrong, reason in (("nothing.zip", "no such file"), ("text.zip", "damaged, or no zip or tar archive")):
        with pytest.raises(UserError, match=f"^Toy from .*{wrong}: .*{reason}") as told:
            download("Toy", tmp_path / "c", archive=tmp_path / wrong)
        assert "\n" not in str(told.value)


def test_one_archive_for_several_sets_is_fetched_once(site, toy, tmp_path, monkeypatch):
    site.files["/both.tar"] = data = make_tar({"b/X/HR/x.png": png(1), "b/Y/HR/y.png": png(2)}, "w")
    for name in "XY":
        monkeypatch.setitem(downloads.PHOTO_SETS, name, PhotoSet(
            1, (f"*{name}/HR/*.png",), (Source(site.address + "/both.tar", sha(data)),)))
    download(["X", "Y"], tmp_path, progress=False)
    assert [path.name for path in (tmp_path / "Y").iterdir()] == ["y.png"]
    assert len(site.log) == 1


def test_an_unknown_name_and_a_plundered_folder(toy, tmp_path):
    with pytest.raises(UserError, match="choose from DIV2K"):
        download("Set55", tmp_path)
    download("Toy", tmp_path, progress=False)
    (tmp_path / "Toy/a.png").unlink()
    with pytest.raises(UserError, match="holds 2 files, not 3"):
        download("Toy", tmp_path, progress=False)


TOY = make_zip(PICTURES | {"big": PAYLOAD * 5})


def download_toy(address: str, folder: Path) -> None:
    toy = PhotoSet(3, ("*Toy/HR/*.png",), (Source(address + "/toy.zip", sha(TOY)),))
    with mock.patch.dict(downloads.PHOTO_SETS, Toy=toy):
        download("Toy", folder, progress=False)


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on(site, tmp_path):
    site.files["/toy.zip"] = TOY
    for number in itertools.count():
        folder = tmp_path / str(number)
        folder.mkdir()
        killed = killed_at_change(number, folder, download_toy, site.address, folder)
        assert not (folder / "Toy").exists() or whole(folder / "Toy")
        if not killed:
            break
        download_toy(site.address, folder)
        assert whole(folder / "Toy")
        assert not list(folder.glob(".Toy*.part"))
    assert number > 10 and whole(folder / "Toy")
    assert any(asked for _, asked in site.log), "no try went on where the killed one stopped"


@pytest.mark.slow
def test_two_at_once_fetch_once(site, tmp_path):
    site.files["/toy.zip"], site.script["/toy.zip"] = TOY, [{"slow": 0.002}]
    both = [context.Process(target=download_toy, args=(site.address, tmp_path)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert whole(tmp_path / "Toy") and len(site.log) == 1


# Facts -----------------------------------------------------------------------------------------------------------

def test_the_table_of_sources_is_well_formed():
    for name in ("DIV2K_train_HR", "DIV2K_valid_HR", "Set5", "Set14", "BSD100"):
        wanted = downloads.PHOTO_SETS[name]
        assert len(wanted.sources) >= 3
        for source in wanted.sources:
            assert source.url.startswith("https://")
            assert re.fullmatch("(sha256:[0-9a-f]{64}|md5:[0-9a-f]{32})?", source.archive)
            assert re.fullmatch("([0-9a-f]{32})?", source.files)
        assert name.startswith("DIV2K") or re.fullmatch("[0-9a-f]{64}", wanted.pixels)


@pytest.mark.skipif(not (SHARED / "data/benchmarks").is_dir(), reason="the benchmark pictures are not on this machine")
@pytest.mark.parametrize("name, folder", [("Set5", "Set5/HR"), ("Set14", "Set14/HR"), ("BSD100", "BSD100/HR_jpeg")])
def test_the_pixels_of_the_benchmarks(name, folder):
    assert pixel_digest(SHARED / "data/benchmarks" / folder) == downloads.PHOTO_SETS[name].pixels


@pytest.mark.parametrize("platform, variables, expected", [
    ("linux", {}, "{home}/.cache/srgan_nb"), ("linux", {"XDG_CACHE_HOME": "/cache"}, "/cache/srgan_nb"),
    ("darwin", {"XDG_CACHE_HOME": "/cache"}, "{home}/Library/Caches/srgan_nb"),
    ("linux", {"SRGAN_NB_DATA": "/some/where", "XDG_CACHE_HOME": "/cache"}, "/some/where"),
    ("linux", {"SRGAN_NB_DATA": "~/photos"}, "{home}/photos")])
def test_the_data_folder(monkeypatch, platform, variables, expected):
    for name in ("SRGAN_NB_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert data_folder() == Path(expected.format(home=Path.home()))
