"""The commands as a shell sees them: exit codes, one clear line, tables and pictures where they were asked for."""

import io
import json
import os
import re
import shutil
import sys

import pytest
from PIL import Image

from srgan_nb import cli
from srgan_nb.__main__ import COMMANDS, main
from srgan_nb.checkpoints import SHIPPED
from srgan_nb.demo import demo
from srgan_nb.files import locked
from srgan_nb.generator import UPSAMPLE_FACTORS
from srgan_nb.images import demo_photo


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    "Two small photographs and a file that is none."
    folder = tmp_path_factory.mktemp("photos")
    for name in ("coffee", "hopper"):
        Image.open(demo_photo(name)).convert("RGB").crop((100, 100, 196, 180)).save(folder / f"{name}.png")
    (folder / "broken.png").write_bytes(b"not a picture")
    return folder


def test_the_commands_offer_the_scales_that_networks_have():
    assert cli.SCALES == tuple(UPSAMPLE_FACTORS)


def test_evaluate_prints_a_table_and_tells_what_was_left_out(photos, tmp_path, capsys):
    asked = [str(photos), "--model", "bicubic", "srresnet", "--save", str(tmp_path / "table.json"), "--device", "cpu",
             "--pictures", str(tmp_path / "pictures")]
    assert cli.evaluate(asked) == 0
    printed = capsys.readouterr().out
    assert "| mean |" in printed and "broken" in printed
    json.loads((tmp_path / "table.json").read_text())
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 4


def test_evaluate_pairs_of_folders_and_intervals(photos, tmp_path, capsys):
    "Pictures by srgan_upscale, scored beside bicubic, which is no network."
    lr, sr = tmp_path / "lr", tmp_path / "sr"
    lr.mkdir()
    for path in (photos / "coffee.png", photos / "hopper.png"):
        picture = Image.open(path).convert("RGB")
        picture = picture.crop((0, 0, picture.width // 4 * 4, picture.height // 4 * 4))
        picture.resize((picture.width // 4, picture.height // 4), Image.Resampling.BICUBIC).save(lr / f"{path.stem}.png")
    assert cli.upscale([str(lr), str(sr), "--model", "srresnet"]) == 0
    capsys.readouterr()
    assert cli.evaluate([str(photos), "--model", "bicubic", "--pairs", str(sr), str(photos), "--intervals"]) == 0
    said = capsys.readouterr().out
    assert f"{sr}, x4" in said and f"{sr} minus bicubic" in said
    gain = re.search(r"PSNR-Y \(dB\) \| \+(\S+) \|", said)
    assert gain and float(gain[1]) > 0.2
    assert cli.evaluate(["--pairs", str(tmp_path / "none"), str(photos)]) == 1
    assert "none: no such folder" in capsys.readouterr().err
    alone = [str(photos), "--model", "bicubic", "srresnet", "--limit", "2", "--intervals", "--save", str(tmp_path / "t.csv")]
    assert cli.evaluate(alone) == 1 and "1 scored pictures in common" in capsys.readouterr().err
    assert "srresnet" in (tmp_path / "t.csv").read_text(), "what was scored is kept all the same"


def test_upscale_a_file_and_a_folder(photos, tmp_path, capsys):
    assert cli.upscale([str(photos / "coffee.png"), str(tmp_path / "big.png"), "--device", "cpu"]) == 0
    assert Image.open(tmp_path / "big.png").size == (384, 320)
    assert cli.upscale([str(photos / "coffee.png"), str(tmp_path / "big.png"), "--device", "cpu"]) == 1
    assert "--force" in capsys.readouterr().err
    assert cli.upscale([str(photos / "cof*.png"), str(tmp_path / "found"), "--model", "bicubic"]) == 0  # as from PowerShell
    assert [path.name for path in (tmp_path / "found").iterdir()] == ["coffee.png"]
    capsys.readouterr()
    assert cli.upscale([str(photos), str(tmp_path / "all"), "--model", "bicubic"]) == 1  # one of them is broken
    assert "broken.png" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "all").glob("*.png")} == {"coffee.png", "hopper.png"}


def test_a_name_that_stdout_s_code_page_lacks_is_printed_all_the_same(photos, tmp_path, monkeypatch):
    output = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output, encoding="cp1252"))  # Windows, redirected
    asked = [str(photos / "coffee.png"), str(tmp_path / "照片.png"), "--model", "bicubic", "--device", "cpu"]
    assert cli.upscale(asked) == 0 and (tmp_path / "照片.png").exists()
    sys.stdout.flush()
    assert output.getvalue().decode("cp1252").strip().endswith(r"\u7167\u7247.png")


@pytest.mark.parametrize("missing", [["stderr"], ["stdout", "stderr"]])
def test_commands_work_where_nobody_listens(missing, photos, tmp_path, monkeypatch):
    for stream in missing:  # a service, or Windows without a console
        monkeypatch.setattr(sys, stream, None)
    assert cli.upscale([str(photos / "coffee.png"), str(tmp_path / "big.png"), "--model", "bicubic"]) == 0
    assert cli.upscale([str(photos), str(tmp_path / "all"), "--model", "bicubic"]) == 1
    assert cli.evaluate([str(photos), "--model", "bicubic", "--device", "cpu"]) == 0
    assert cli.evaluate(["nowhere"]) == 1


@pytest.mark.parametrize("command, arguments", [
    (cli.evaluate, ["nowhere", "--model", "bicubic"]), (cli.upscale, ["nowhere.png", "x.png", "--model", "bicubic"]),
    (cli.upscale, [str(demo_photo("coffee")), "x.png", "--model", "no-such-model"]),
    (cli.download, ["Set5", "--from", "nowhere.zip"]),
])
def test_what_is_missing_is_one_line_and_exit_code_one(command, arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SRGAN_NB_DATA", str(tmp_path / "data"))
    assert command(arguments) == 1
    message = capsys.readouterr().err.strip()
    assert message.count("\n") == 0 and message.startswith(f"srgan_{command.__name__}: ")


def test_the_help_of_training_names_a_value_only_where_there_is_one(capsys):
    with pytest.raises(SystemExit) as end:
        cli.train(["srresnet", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert end.value.code == 0
    for part in ("of the generator (paper: 64)", "in the generator (paper: yes)", "updates (paper: 1000000, for srgan 200000)",
                 "learning rate (its peak, for one-cycle) (paper: 0.0001)", "Adam's beta2 (default: 0.999)",
                 "of the patches (default: yes)", "of the log (default: 100, in lite 20)", "(default: float32)",
                 "photographs to train on --out"):
        assert part in text
    assert not any(nothing in text for nothing in ("(paper: )", "(default: )", "None", "True", "False"))


def test_wrong_usage_ends_with_two(tmp_path):
    one, other = str(tmp_path), str(tmp_path.parent)
    wrong = [(cli.evaluate, []), (cli.upscale, ["one"]), (cli.download, ["Set6"]),
             (cli.evaluate, ["--pairs", "sr", "hr", "--model", "srgan"]),  # which would score nothing
             (cli.evaluate, [one, other, "--intervals"]),  # which would compare nothing, as the next
             (cli.evaluate, [one, "--model", "bicubic", "--pairs", one, other, "--intervals"]),
             (cli.upscale, [__file__, "out.png", "--format", "jpg"]),
             (cli.upscale, ["a.png", "b.png", "out", "--format", "jpg"])]
    commands = (cli.train, cli.evaluate, cli.upscale, cli.download, demo)
    for command, arguments in wrong + [(command, ["--no-such-flag"]) for command in commands]:
        with pytest.raises(SystemExit) as end:
            command(arguments)
        assert end.value.code == 2


def test_a_tilde_is_the_home_folder_behind_a_flag_too(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(photos)
    (tmp_path / "model").mkdir()
    shutil.copy(SHIPPED / "srgan.safetensors", tmp_path / "model/generator.safetensors")
    asked = [".", "--model=~/model", "--limit=2", "--save=~/table.md", "--pictures=~/pictures", "--device=cpu"]
    assert cli.evaluate(asked) == 0, capsys.readouterr().err
    assert (tmp_path / "table.md").exists() and len(list((tmp_path / "pictures").iterdir())) == 1
    assert cli.train(["srresnet", "--data=~/nothing", "--out=~/run"]) == 1
    assert str(tmp_path / "nothing") in capsys.readouterr().err and not list(photos.glob("~*"))


@pytest.mark.parametrize("arguments", [[""], ["photos", "--save", ""], ["photos", "--model="]])
def test_an_empty_argument_is_a_variable_that_is_not_set(arguments, photos, monkeypatch, capsys):
    monkeypatch.chdir(photos.parent)
    assert cli.evaluate(arguments) == 1
    assert "is empty: is a variable of the shell not set?" in capsys.readouterr().err


@pytest.mark.parametrize("wrong, told", [
    (["--save", "t.txt"], "must end in .md, .csv, .json"), (["--save", "nodir/t.csv"], "the folder nodir does not exist"),
    (["--save", "folder.md"], "no plain file"), (["--limit", "0"], "limit is 0"), (["--limit", "-1"], "limit is -1"),
    (["--device", "xpu"], "no device 'xpu'"), (["--model", "bicubic", "nothing"], "no generator 'nothing'"),
    (["--model", "bicubic", "srgan", "--scale", "2"], "srgan enlarges by 4, not by 2"), (["empty"], "empty holds no pic"),
    (["--pictures", "a file"], "File exists"), (["Set5", "--pictures", "Set5/HR"], "would be taken for pictures of Set5"),
])
def test_what_evaluate_can_t_do_is_one_line_before_any_work(wrong, told, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "folder.md", "Set5/HR"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(photos / "coffee.png", "Set5/HR")
    (tmp_path / "a file").touch()
    assert cli.evaluate([str(photos), *wrong]) == 1
    message = capsys.readouterr().err.strip()
    assert told in message and message.startswith("srgan_evaluate: ") and not set("\r\n") & set(message), "no bar before"


@pytest.mark.parametrize("wrong, told", [
    (["--seed", "1" + 26 * "0"], "--seed is 1"), (["--device", "xpu"], "no device 'xpu'"),
    (["--data", "empty"], "empty: no photo to pack"), (["--validation", "empty"], "empty: no photo to pack"),
    (["--validation", "small"], "small: no photo to pack.*too small: 64x64, needs 96x96"),
    (["--data", "Set5"], "Set5.HR: no photo to pack"),
])
def test_what_train_can_t_do_is_one_line_and_leaves_no_folder(wrong, told, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "small", "large", "Set5/HR", "Set5/LRx4"):
        (tmp_path / folder).mkdir(parents=True)
    Image.open(photos / "coffee.png").crop((0, 0, 64, 64)).save("small/a.png")
    Image.open(photos / "coffee.png").resize((96, 96)).save("large/a.png")
    asked = ["srresnet", "--data", "large", "--out", "run", "--preset", "lite", "--device", "cpu", *wrong]
    assert cli.train(asked) == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]  # before it, what was packed
    assert re.search(told, message) and not (tmp_path / "run").exists()


def test_a_closed_folder_is_told_before_any_work(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, "access", lambda *_: False)  # to the user root no folder is closed
    assert cli.evaluate([str(photos), "--save", str(tmp_path / "t.csv")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("srgan_evaluate: ") and "no permission to write into" in said, "no bar before"


def test_each_model_and_each_set_has_its_own_pictures(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for place in ("runs/srgan", "a", "b"):
        (tmp_path / place).mkdir(parents=True)
    shutil.copy(SHIPPED / "srgan.safetensors", "runs/srgan/generator.safetensors")
    for run in ("a", "b"):
        shutil.copy(SHIPPED / "srgan.safetensors", f"{run}/best.safetensors")
    name = "照" * 70
    for place in ("one", "two"):
        shutil.copytree(photos, tmp_path / place / name, ignore=shutil.ignore_patterns("[!c]*"))
    asked = [f"one/{name}", f"two/{name}", "--pictures", "sheets", "--device", "cpu", "--model", "srgan", "runs/srgan",
             "a/best.safetensors", "b/best.safetensors"]
    assert cli.evaluate(asked) == 0, capsys.readouterr().err
    labels = sorted(path.stem.split("_", 1)[1] for path in (tmp_path / "sheets").iterdir())
    assert labels == sorted(f"coffee_{model}{number}" for model in ("srgan", "runs-srgan", "a-best", "b-best")
                            for number in ("", "_2"))


def test_one_name_for_every_command(photos, tmp_path, capsys):
    "As `python -m srgan_nb COMMAND ...` calls it, with the command's exit code."
    assert main(["upscale", str(photos / "coffee.png"), str(tmp_path / "big.png"), "--model", "bicubic"]) == 0
    assert main(["upscale", str(tmp_path / "none.png"), str(tmp_path / "other.png")]) == 1
    assert "srgan_upscale: " in capsys.readouterr().err
    for wrong in ([], ["upscael"], ["exits_cleanly"], ["upscale"]):
        with pytest.raises(SystemExit) as stop:
            main(wrong)
        assert stop.value.code == 2
    for command in COMMANDS:
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0 and command in capsys.readouterr().out


def test_reduced_copies(photos, tmp_path, capsys):
    shutil.copytree(photos, tmp_path / "photos")
    asked = [str(tmp_path / "photos"), str(tmp_path / "halves"), "2"]
    assert main(["reduce", *asked]) == 1 and "broken.png" in capsys.readouterr().err
    assert not (tmp_path / "halves").exists()
    (tmp_path / "photos/broken.png").rename(tmp_path / "photos/.DS_Store")  # hidden, as macOS' own files are
    assert main(["reduce", *asked, "--leave-out", "1"]) == 0
    assert [path.name for path in (tmp_path / "halves").iterdir()] == ["coffee.png"]
    assert Image.open(tmp_path / "halves/coffee.png").size == (48, 40)
    assert main(["reduce", *asked]) == 1 and "name a new folder" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [
    ["reduce", "0"], ["reduce", "nan"], ["reduce", "0.5"], ["reduce", "inf"], ["degrade", "--blur", "0", "1"],
    ["degrade", "--noise", "9", "3"], ["degrade", "--jpeg", "0", "50"], ["degrade", "--seed=-1"],
    ["reduce", "2", "--leave-out", "3"], ["reduce", "2", "--leave-out=-1"]])
def test_copies_that_can_t_be_made_are_one_line_before_any_work(wrong, photos, tmp_path, capsys):
    command, *options = wrong
    assert main([command, str(photos), str(tmp_path / "copies"), *options]) == 1
    said = capsys.readouterr().err
    name = options[0].lstrip("-").split("=")[0] if command == "degrade" else "leave_out" if options[1:] else "factor"
    assert said.startswith(f"srgan_{command}: {name} is") and said.count("\n") == 1


@pytest.mark.parametrize("command", [["reduce", "2"], ["degrade"]])
def test_no_copy_takes_the_place_of_another(command, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    for name in ("a.jpg", "a.png", "b.png"):
        Image.new("RGB", (16, 16)).save(tmp_path / "photos" / name)
    assert main([command[0], str(tmp_path / "photos"), str(tmp_path / "copies"), *command[1:]]) == 1
    assert "a.jpg and a.png would become one PNG file" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_a_photo_too_small_to_degrade_is_named(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (6, 6)).save(tmp_path / "photos/dot.png")
    assert main(["degrade", str(tmp_path / "photos"), str(tmp_path / "copies")]) == 1
    assert "dot.png: a photo of 6x6 pixels is too small, it needs 10x10" in capsys.readouterr().err
    assert not (tmp_path / "copies").exists()


def test_a_folder_that_another_process_writes_is_left_to_it(photos, tmp_path, capsys):
    half = tmp_path / ".copies.123.part"
    half.mkdir()
    with locked(tmp_path / ".copies.lock"):
        assert main(["degrade", str(photos), str(tmp_path / "copies")]) == 1
    assert "is being written by another process" in capsys.readouterr().err and half.exists()


def test_a_copy_has_a_pixel_at_least(tmp_path):
    (tmp_path / "thin").mkdir()
    Image.new("RGB", (90, 2)).save(tmp_path / "thin/a.png")
    assert main(["reduce", str(tmp_path / "thin"), str(tmp_path / "copies"), "30"]) == 0
    assert Image.open(tmp_path / "copies/a.png").size == (3, 1)
