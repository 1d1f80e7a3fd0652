"""The trainer's promises: exact resuming, whole checkpoints, several processes, clear refusals."""

import json
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from srgan_nb import cli, diagnose, evaluate, patches, stages, upscale
from srgan_nb.checkpoints import load_generator, load_state, read_passport, save_generator
from srgan_nb.devices import Precision, Processes
from srgan_nb.errors import UserError
from srgan_nb.generator import Generator, grey_detail_
from srgan_nb.metrics import LPIPS_SIDE
from srgan_nb.packs import pack_photos
from srgan_nb.patches import PatchSampler
from srgan_nb.reporter import Progress, Reporter
from srgan_nb.runs import Checkpointer, RunFolder, RunState, append_row, read_rows
from srgan_nb.settings import Settings, as_saved, check_resumable, read_settings, settings_for
from srgan_nb.stages import SRResNetStage, first_generator
from srgan_nb.trainer import Interrupted, Trainer, open_photos, train
from tests.conftest import ROOT
from tests.support.kills import killed_at_change
from tests.support.processes import run_module
from tests.support.small_runs import SMALL, SMALL_GAN, assert_same, final_state, run_settings


def at(step: int, happens):
    "For `before_update`: calls `happens(trainer)` just before update number `step`."
    def look_in(trainer, lr, hr):
        if trainer.state.step == step:
            happens(trainer)

    return look_in


def stopped_at(step: int, build, *arguments) -> None:
    "Trains until a SIGINT arrives before update number `step`; `build` makes the trainer."
    trainer = build(*arguments, quiet=True, before_update=at(step, lambda trainer: signal.raise_signal(signal.SIGINT)))
    with pytest.raises(Interrupted, match=f"stopped after step {step + 1} .* --resume"):
        trainer.fit()


def test_a_settings_file_begins_a_run_like_it(photos, tmp_path, capsys):
    "The run's own file, with changes; the same numbers come out, and what can't be is one line."
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    settings = settings_for("srresnet", "lite", data=str(photos), out=str(first), **SMALL)
    Trainer(settings, quiet=True).fit()
    file = str(first / "settings.json")
    assert cli.train(["srresnet", "--settings", file, "--out", str(second)]) == 0
    assert (second / "log.csv").read_bytes() == (first / "log.csv").read_bytes()
    assert cli.train(["srresnet", "--settings", file, "--out", str(third), "--steps", "3"]) == 0
    assert RunFolder(third).settings() == replace(settings, out=str(third), steps=3)
    capsys.readouterr()
    for wrong, told in ((["srgan", "--settings", file, "--out", "x"], "of the other stage"),
                        (["srresnet", "--settings", str(tmp_path / "no"), "--out", "x"], "no readable settings.json")):
        assert cli.train(wrong) == 1 and told in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.train(["srresnet", "--settings", file])


@pytest.mark.parametrize("stage", ["srresnet", "srgan"])
def test_an_estimate_times_the_recipe_and_leaves_nothing(stage, photos, trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    settings = {**(SMALL if stage == "srresnet" else SMALL_GAN), "steps": 7200}
    init = ["--init", str(trained)] if stage == "srgan" else []
    assert cli.train([stage, "--preset", "lite", "--estimate", "--data", str(photos), *init, *flags(settings)]) == 0
    seconds, steps, hours = re.search(r"(\S+) s an update here: (\S+) of them take (\S+) hours", capsys.readouterr().out).groups()
    assert steps == "7,200" and float(hours) == pytest.approx(2 * float(seconds), rel=0.1)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("number", ["SIGUSR1", "SIGHUP"])
def test_a_scheduler_s_signal_saves_and_the_run_goes_on(number, photos, trained, tmp_path):
    settings = run_settings("srresnet", photos, trained, tmp_path / "run", checkpoint_every=8, validate_every=8)
    saved = []

    def look_in(trainer, lr, hr):
        if trainer.state.step == 2:
            signal.raise_signal(getattr(signal, number))
        saved.append([int(path.stem.split("-")[1]) for path in trainer.run.saved()])

    handler = signal.getsignal(getattr(signal, number))
    Trainer(settings, quiet=True, before_update=look_in).fit()
    assert saved[2] == [0] and saved[3] == saved[4] == [0, 3]
    assert load_state(RunFolder(settings.out).saved()[-1])["step"] == settings.steps
    assert signal.getsignal(getattr(signal, number)) == handler


def contents(folder: Path) -> dict[Path, bytes]:
    "Every file below a folder with its bytes, to see whether anything has changed."
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


TEXTURES = dict(discriminator_kind="patch", discriminator_learning_rate=1e-4, discriminator_beta1=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("stage, options", [("srresnet", {}), ("srgan", {}), ("srgan", {**TEXTURES, "accumulate": 2})])
def test_an_interrupted_run_ends_like_an_undisturbed_one(stage, options, photos, trained, tmp_path):
    whole, broken = (run_settings(stage, photos, trained, tmp_path / name, ema=0.9, **options)
                     for name in ("whole", "broken"))
    Trainer(whole, quiet=True).fit()
    stopped_at(2, Trainer, broken)
    stopped_at(4, Trainer.resume, broken.out)
    Trainer.resume(broken.out, quiet=True).fit()
    assert_same(final_state(whole.out), final_state(broken.out))
    for table in ("log.csv", "validation.csv"):
        assert Path(whole.out, table).read_text(encoding="utf-8") == Path(broken.out, table).read_text(encoding="utf-8")


def test_a_run_ends_when_its_patience_does_stopped_in_between_or_not(photos, trained, tmp_path, capsys):
    scores = {1: 20.0, 2: 22.0, 3: 21.0, 4: 22.0, 5: 21.5, 6: 23.0, 7: 24.0, 8: 25.0}

    def trainer(build, *arguments, **options):
        made = build(*arguments, **options)
        made.validator = lambda *_: {"psnr_y": scores[made.state.step]}
        return made

    whole, broken = (run_settings("srresnet", photos, trained, tmp_path / name, validate_every=1, patience=2)
                     for name in ("whole", "broken"))
    trainer(Trainer, whole).fit()
    assert "ends at step 4: no better score in 2 validations" in capsys.readouterr().out
    stopped_at(2, partial(trainer, Trainer), broken)
    trainer(Trainer.resume, broken.out, quiet=True).fit()
    assert_same(final_state(whole.out), final_state(broken.out))
    for out in (whole.out, broken.out):
        run = RunFolder(out)
        assert [row["step"] for row in read_rows(run.table("validation"))] == [1, 2, 3, 4]
        assert read_passport(run.folder / "best.safetensors")["passport"]["step"] == 2
        trainer(Trainer.resume, out, quiet=True).fit()  # its patience is still at its end
        assert load_generator(out).passport["step"] == load_state(run.saved()[-1])["step"] == 4
    trainer(Trainer.resume, broken.out, quiet=True, patience=4).fit()
    assert final_state(broken.out)["step"] == 8


def start_or_resume(settings: Settings) -> None:
    if RunFolder(settings.out).exists():
        Trainer.resume(settings.out, quiet=True).fit()
    else:
        Trainer(settings, quiet=True).fit()


@pytest.mark.slow
def test_killed_anywhere_it_goes_on_bit_for_bit(photos, trained, tmp_path):
    "The first process is killed at its first change of a file, the next one, which resumes, at its second, and so on."
    settings, undisturbed = (run_settings("srgan", photos, trained, tmp_path / name, checkpoint_every=2)
                             for name in ("killed", "undisturbed"))
    Trainer(undisturbed, quiet=True).fit()
    kills = 0
    while killed_at_change(kills, settings.out, start_or_resume, settings):
        kills += 1
    assert kills > 15
    assert_same(final_state(undisturbed.out), final_state(settings.out))
    for name in ("log.csv", "validation.csv", "samples/step-00000004.png"):
        assert Path(undisturbed.out, name).read_bytes() == Path(settings.out, name).read_bytes()
    assert not list(Path(settings.out).rglob("*.part*"))


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["srresnet", "srgan"])
def test_the_same_command_writes_the_same_log(stage, photos, trained, tmp_path):
    logs = []
    for name in ("one", "two"):
        Trainer(run_settings(stage, photos, trained, tmp_path / name, steps=40, validate_every=40,
                             checkpoint_every=40), quiet=True).fit()
        logs.append((tmp_path / name / "log.csv").read_text())
    assert logs[0] == logs[1]
    assert logs[0].count("\n") == 1 + 20


@pytest.mark.parametrize("changes", [dict(optimizer="adam"), dict(channels=8), dict(blocks=2, ema=0.9)])
def test_a_resumed_run_keeps_what_its_state_has_the_shape_of(changes, trained):
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    with pytest.raises(UserError) as refused:
        Trainer.resume(trained, quiet=True, steps=20, **changes)
    assert all(f"--{name}" in str(refused.value) for name in changes) and "--init" in str(refused.value)
    assert before == {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}


def test_a_judge_through_vgg_keeps_the_layers_that_it_looks_through():
    judges = {kind: settings_for("srgan", "lite", init="srresnet", discriminator_kind=kind) for kind in ("patch", "VGG")}
    check_resumable(judges["patch"], replace(judges["patch"], content="VGG22"))
    with pytest.raises(UserError, match="--resume can't change --content, --vgg-network"):
        check_resumable(judges["VGG"], replace(judges["VGG"], content="VGG22", vgg_network="VGG19"))


@pytest.mark.parametrize("single_shuffle", [True, False])
def test_both_stages_learn_to_enlarge_by_three(single_shuffle, photos, trained, tmp_path):
    made, changes = tmp_path / "srresnet", dict(scale=3, patch_size=24, single_shuffle=single_shuffle)
    Trainer(run_settings("srresnet", photos, trained, made, **changes), quiet=True).fit()
    Trainer(run_settings("srgan", photos, made, tmp_path / "srgan", **changes), quiet=True).fit()
    for run in (made, tmp_path / "srgan"):
        assert upscale(np.zeros((7, 5, 3), np.uint8), run).shape == (21, 15, 3)
        rows = read_rows(RunFolder(run).table("validation"))
        assert evaluate(photos, run, device="cpu", progress=False).model.scale == 3 and rows[-1]["psnr_y"] > 15


def test_every_row_of_the_log_is_whole(photos, trained, tmp_path):
    "The last step's row too, where the steps are no multiple of log_every: the doctor asks for the gradients in it."
    settings = run_settings("srgan", photos, trained, tmp_path / "run", log_every=3)
    Trainer(settings, quiet=True).fit()
    header, *lines = RunFolder(settings.out).table("log").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["3", "6", "8"]
    assert {line.count(",") for line in lines} == {header.count(",")} and "gradient_content" in header


def test_a_run_leaves_what_it_promises(trained):
    run = RunFolder(trained)
    assert [path.name for path in run.saved()] == [f"step-{step:08d}.safetensors" for step in (0, 4, 8)]
    assert [row["step"] for row in read_rows(run.table("validation"))] == [4, 8]
    passport = read_passport(trained)["passport"]
    assert passport["step"] == 8 and passport["photos"] == 4 and len(passport["photos_hash"]) == 64
    assert not {"data", "out", "init"} & passport["recipe"].keys()
    assert (trained / "best.safetensors").exists() and list((trained / "samples").glob("*.png"))
    assert not load_generator(trained).training


def test_tensorboard_gets_the_rows_of_the_tables(photos, trained, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    Trainer(run_settings("srresnet", photos, trained, tmp_path / "run", tensorboard=True), quiet=True).fit()
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    for table in ("log", "validation"):
        for row in read_rows(RunFolder(tmp_path / "run").table(table)):
            for name in row.keys() - {"step"}:
                (tag,) = [tag for tag in events.Tags()["scalars"] if tag.rpartition("/")[2] == name]
                (scalar,) = [one.value for one in events.Scalars(tag) if one.step == row["step"]]
                assert scalar == pytest.approx(row[name])


def test_only_the_generator_of_the_average_is_shown(photos, trained, tmp_path):
    settings = run_settings("srresnet", photos, trained, tmp_path / "ema", ema=0.5)
    shown = Trainer(settings, quiet=True).fit()
    state = final_state(settings.out)
    assert torch.equal(shown.tail.weight, state["average"]["module.tail.weight"])
    assert not torch.equal(shown.tail.weight, state["generator"]["tail.weight"])
    assert torch.equal(load_generator(settings.out).tail.weight, shown.tail.weight)


@pytest.mark.parametrize("name, constrain", [("balanced_shuffle", Generator.balance_), ("grey_detail", grey_detail_)])
def test_constrained_filters_stay_so_while_they_learn(name, constrain, photos, trained, tmp_path):
    for wanted in (True, False):
        settings = run_settings("srgan", photos, trained, tmp_path / str(wanted), **{name: wanted})
        learned = Trainer(settings, quiet=True).fit()
        weight = learned.tail.weight.detach().clone()
        assert not torch.equal(weight, load_generator(trained).tail.weight)
        assert torch.allclose(constrain(learned).tail.weight, weight, atol=1e-7) == wanted


def losses_of(stage, photos, trained, out, rate, **changes):
    "The content losses in the log of a small run at a constant rate of both networks, then the other ones."
    settings = run_settings(stage, photos, trained, out, learning_rate=rate, discriminator_learning_rate=rate,
                            schedule="constant", **changes)
    Trainer(settings, quiet=True).fit()
    rows = read_rows(RunFolder(settings.out).table("log"))
    return [row[name] for name in ("content", "adversarial", "discriminator") for row in rows if name in row]


def test_bfloat16_follows_float32(photos, trained, tmp_path):
    plain, half, still = (losses_of("srgan", photos, trained, tmp_path / name, rate, precision=precision)[:4]
                          for name, rate, precision in (("plain", 2e-3, "float32"), ("half", 2e-3, "bfloat16"),
                                                        ("still", 1e-30, "float32")))
    assert plain != half  # it did compute in another format
    near = pytest.approx(plain, rel=1e-3)
    assert half == near and still != near, "it follows, and what learns nothing does not"


STEADIER = dict(relativistic="average", gradient_penalty=1.0, discriminator_batch_norm=False)


@pytest.mark.slow
def test_a_steadier_opponent_learns_the_same_when_compiled(photos, trained, tmp_path, monkeypatch):
    "Traced and differentiated by torch.compile, but without the minute that a C++ compiler would take."
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    plain, compiled, still = (losses_of("srgan", photos, trained, tmp_path / name, rate, steps=4, compile=name == "compiled",
                                        **STEADIER)
                              for name, rate in (("plain", 1e-2), ("compiled", 1e-2), ("still", 1e-30)))
    for row in (row for name in ("plain", "compiled") for row in read_rows(RunFolder(tmp_path / name).table("log"))):
        assert row["real"] + row["fake"] == pytest.approx(1, abs=1e-4)  # one of each pair wins
    near = pytest.approx(plain, rel=1e-3)
    assert compiled == near and still != near, "it follows, and what learns nothing does not"


def test_validation_by_lpips(shared, photos, trained, tmp_path):
    settings = run_settings("srresnet", photos, trained, tmp_path / "run", steps=4, lpips="squeeze")
    Trainer(settings, quiet=True).fit()
    row, = read_rows(RunFolder(settings.out).table("validation"))
    assert 0 < row["lpips"] < 2


def test_lpips_leaves_out_photographs_that_are_too_small_for_it(photos, trained, tmp_path):
    small, fit = tmp_path / "validation" / "small.png", tmp_path / "validation" / "fit.png"
    small.parent.mkdir()
    for file, side in ((small, LPIPS_SIDE - 4), (fit, LPIPS_SIDE)):
        Image.new("RGB", (side, 64)).save(file)
    for judged, left in ((None, 2), ("squeeze", 1)):
        settings = run_settings("srresnet", small.parent, trained, tmp_path / "run", patch_size=24, lpips=judged,
                                validation=str(small.parent))
        assert [len(pack) for pack in open_photos(settings, progress=False)] == [2, left], "it still learns from both"
    small.rename(fit)
    settings = replace(settings, data=str(photos))
    with pytest.raises(UserError, match="28x64, needs 32x32"):
        open_photos(settings, progress=False)


@pytest.mark.cuda
@pytest.mark.parametrize("stage", ["srresnet", "srgan"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_cuda_follows_the_cpu(stage, precision, photos, trained, tmp_path):
    logs = []
    for device in ("cpu", "cuda"):
        settings = run_settings(stage, photos, trained, tmp_path / device, device=device, tf32=False,
                                precision=precision if device == "cuda" else "float32")
        Trainer(settings, quiet=True).fit()
        logs.append([row["content"] for row in read_rows(RunFolder(settings.out).table("log"))])
    assert logs[1] == pytest.approx(logs[0], rel=1e-3 if precision == "float32" else 0.05)


# -- several processes -------------------------------------------------------------------------------------------


def torchrun(module: str, *arguments: str) -> subprocess.CompletedProcess:
    "Runs a module with these arguments in two processes."
    return run_module(["torch.distributed.run", "--standalone", "--local-addr=127.0.0.1",
                       "--nproc-per-node=2", "-m", module, *arguments], ROOT)


def flags(settings_changes: dict) -> list[str]:
    parts = []
    for name, value in settings_changes.items():
        flag = "--" + name.replace("_", "-")
        parts += [flag if value else flag.replace("--", "--no-")] if isinstance(value, bool) else [flag, str(value)]
    return parts


@pytest.mark.slow
def test_two_processes_equal_one_at_the_same_global_batch(photos, trained, tmp_path):
    "Two begin, two go on, one ends it; against one that begins, goes on and ends it at the same steps."
    recipes = {"srresnet": ("srresnet", {"accumulate": 2, "patience": 9}), "srgan": ("srgan", {"init": str(trained)}),
               "steadier": ("srgan", {"init": str(trained), **STEADIER})}

    def trainings(by: str, *steps: int) -> list[list[str]]:
        commands = []
        for name, (stage, options) in recipes.items():
            out = str(tmp_path / by / name)
            changes = {**SMALL_GAN, "discriminator_batch_norm": False, **options, "data": str(photos), "out": out}
            commands += [[stage, "--resume", out, "--steps", str(end)] if end > 3 else
                         [stage, "--preset", "lite", *flags({**changes, "steps": end})] for end in steps]
        return commands

    done = torchrun("tests.support.trainings", json.dumps(trainings("two", 3, 5)))
    assert done.returncode == 0, done.stderr
    assert [cli.train(training) for training in trainings("two", 6) + trainings("one", 3, 5, 6)] == [0] * 12
    for name in recipes:
        two, one = (final_state(tmp_path / by / name)["generator"] for by in ("two", "one"))
        for part, weight in one.items():
            torch.testing.assert_close(two[part], weight, rtol=1e-4, atol=1e-5, msg=f"{name}: {part}")


@pytest.mark.slow
def test_a_dead_rank_ends_the_job_and_it_goes_on(photos, tmp_path):
    changes = dict(SMALL, data=str(photos), schedule="constant", checkpoint_every=2)
    two, one = (["srresnet", "--preset", "lite", *flags({**changes, "steps": 10, "out": tmp_path / name})]
                for name in ("two", "one"))
    job = torchrun("tests.support.dying_rank", *two)
    assert job.returncode != 0 and "SIGKILL" in job.stderr, job.stderr[-2000:]
    assert load_state(RunFolder(tmp_path / "two").saved()[-1])["step"] == 6, "nothing that was saved is lost"
    assert cli.train(["srresnet", "--resume", str(tmp_path / "two")]) == cli.train(one) == 0
    first, second = (final_state(tmp_path / name)["generator"] for name in ("one", "two"))
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, rtol=1e-3, atol=1e-4, msg=name)


# -- refusals: one clear line, exit code 1, nothing lost ---------------------------------------------------------


def refused(capsys, *arguments) -> str:
    assert cli.train([str(argument) for argument in arguments]) == 1
    *progress, message = capsys.readouterr().err.strip().split("\n")
    assert message.startswith("srgan_train: ") and not any("Error" in line for line in progress)
    return message


def test_bad_folders_are_refused(photos, tmp_path, capsys):
    assert "no such file or folder" in refused(capsys, "srresnet", "--data", tmp_path / "none", "--out", tmp_path / "o")
    (tmp_path / "empty").mkdir()
    assert "no photo" in refused(capsys, "srresnet", "--data", tmp_path / "empty", "--out", tmp_path / "o")
    few = ("srresnet", "--data", photos, "--held-out", 5, "--patch-size", 16, "--out", tmp_path / "o")
    assert "more photos" in refused(capsys, *few)
    assert not (tmp_path / "o").exists()


def test_a_full_folder_is_left_alone(photos, trained, capsys):
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    message = refused(capsys, "srresnet", "--preset", "lite", "--data", photos, "--out", trained,
                      *flags({name: SMALL[name] for name in ("patch_size", "held_out", "channels", "blocks")}))
    assert "not empty" in message and "--resume" in message
    assert before == {path: path.read_bytes() for path in before}


def test_a_place_that_cannot_be_written_is_refused(photos, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    small = flags({name: SMALL[name] for name in ("patch_size", "held_out", "channels", "blocks")})
    message = refused(capsys, "srresnet", "--data", photos, "--out", tmp_path / "file" / "run", *small)
    assert "can't be made" in message


def test_another_network_is_refused_by_name(photos, trained, tmp_path, capsys):
    message = refused(capsys, "srgan", "--init", trained, "--out", tmp_path / "o", "--channels", 8, "--data", photos,
                      "--patch-size", 16, "--preset", "paper", "--content", "MSE")
    assert "channels 4 there, 8 here" in message


def test_a_pickle_is_never_executed(photos, tmp_path, capsys):
    import pickle

    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    (tmp_path / "trap.pth").write_bytes(pickle.dumps(Trap()))
    message = refused(capsys, "srgan", "--init", tmp_path / "trap.pth", "--out", tmp_path / "o", "--data", photos)
    assert "Pickles" in message
    assert not (tmp_path / "executed").exists()


def test_other_photos_than_before_are_refused(photos, trained, tmp_path, capsys):
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    settings = run_settings("srresnet", folder, trained, tmp_path / "run", steps=4)
    Trainer(settings, quiet=True).fit()
    Image.new("RGB", (64, 64), "red").save(folder / "0.png")
    assert "are not those" in refused(capsys, "srresnet", "--resume", settings.out, "--steps", 8)


def test_wrong_usage_ends_with_two(photos, tmp_path):
    for wrong in (["srresnet"], ["srgan", "--out", "x", "--data", str(photos)], ["srresnet", "--nonsense"],
                  ["srresnet", "--resume", "x", "--out", "y"]):
        with pytest.raises(SystemExit) as end:
            cli.train(wrong)
        assert end.value.code == 2


def test_a_refused_second_trainer_changes_nothing_of_a_live_run(photos, trained, tmp_path):
    "Row 1: the lock comes before anything is read for change."
    settings = run_settings("srresnet", photos, trained, tmp_path / "run", checkpoint_every=4, log_every=1)
    seen = []

    def nosy(trainer):
        before = contents(Path(settings.out))
        with pytest.raises(UserError, match="another process"):
            Trainer.resume(settings.out, quiet=True, steps=50).fit()
        seen.append(before == contents(Path(settings.out)))

    Trainer(settings, quiet=True, before_update=at(6, nosy)).fit()
    assert seen == [True]
    assert [row["step"] for row in read_rows(RunFolder(settings.out).table("log"))] == list(range(1, 9))
    assert RunFolder(settings.out).settings() == settings


def test_not_a_number_stops_at_once_and_keeps_the_last_checkpoint(photos, trained, tmp_path):
    settings = run_settings("srresnet", photos, trained, tmp_path / "run", checkpoint_every=2)

    def poison(trainer):
        torch.nn.init.constant_(trainer.stage.generator.network.head[0].weight, float("nan"))

    with pytest.raises(UserError, match=r"step 5: content, colour is no finite number.*step-00000004"):
        Trainer(settings, quiet=True, before_update=at(4, poison)).fit()
    good = final_state(settings.out)
    assert good["step"] == 4 and all(torch.isfinite(weight).all() for weight in good["generator"].values())


def small_disk(folder: Path) -> bool:
    "Mounts a disk of 600 KB, where this machine lets us."
    folder.mkdir()
    return sys.platform == "linux" and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)],
                                                      capture_output=True).returncode == 0


def test_a_full_disk_ends_in_one_line_and_a_whole_checkpoint(photos, trained, tmp_path, capsys):
    disk = tmp_path / "disk"
    if not small_disk(disk):
        pytest.skip("no right to mount a small disk")
    try:
        message = refused(capsys, "srresnet", "--preset", "lite", "--data", photos, "--out", disk / "run",
                          *flags(dict(SMALL, channels=12, steps=40, checkpoint_every=2, keep=9)))
        assert "No space left" in message
        newest = RunFolder(disk / "run").saved()[-1]
        assert load_state(newest)["step"] > 0
        assert not list((disk / "run").rglob("*.part*"))
    finally:
        subprocess.run(["umount", str(disk)])


def test_weights_of_another_kind_are_refused(tmp_path):
    save_generator(Generator(channels=4, blocks=1), tmp_path / "g.safetensors")
    raw = (tmp_path / "g.safetensors").read_bytes()
    for cut in (0, 7, 100, len(raw) - 1):
        (tmp_path / "cut.safetensors").write_bytes(raw[:cut])
        with pytest.raises(UserError, match="not a whole"):
            load_generator(tmp_path / "cut.safetensors")


# -- the faults of other projects' bug reports, each tried on this one --------------------------------------------


def test_a_failing_validation_loses_nothing(photos, trained, tmp_path):
    "Row 3: the checkpoint comes first; and who goes on makes up for the validation."
    whole, broken = (run_settings("srresnet", photos, trained, tmp_path / name) for name in ("whole", "broken"))
    Trainer(whole, quiet=True).fit()
    in_the_way = Path(broken.out, "samples")
    with pytest.raises(OSError):  # a file where the folder of pictures should be
        Trainer(broken, quiet=True, before_update=at(2, lambda trainer: in_the_way.write_text("", encoding="utf-8"))).fit()
    assert final_state(broken.out)["step"] == 4 and not RunFolder(broken.out).table("validation").exists()
    in_the_way.unlink()
    Trainer.resume(broken.out, quiet=True).fit()
    assert_same(final_state(whole.out), final_state(broken.out))
    for name in ("log.csv", "validation.csv", "samples/step-00000004.png"):
        assert Path(whole.out, name).read_bytes() == Path(broken.out, name).read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the address space is limited by Linux's means")
def test_a_photograph_too_large_for_the_whole_network_is_validated(tmp_path):
    "Row 3: in tiles, within a bound; the whole network would need 0.8 GB for this one at a single place."
    script = """if True:
        import resource, sys, torch
        from pathlib import Path
        from PIL import Image
        from srgan_nb.generator import Generator
        from srgan_nb.packs import pack_photos
        from srgan_nb.reporter import Validator
        folder = Path(sys.argv[1])
        Image.linear_gradient("L").resize((1024, 768)).convert("RGB").save(folder / "large.png")
        photos = pack_photos(folder / "large.png", cache=folder, progress=False)
        validator, generator = Validator(memory=1e8), Generator(blocks=1)
        mapped = 4096 * int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (mapped + int(3e8),) * 2)
        lr = torch.from_numpy(photos.lr(0).copy()).permute(2, 0, 1)[None] / 255
        try:
            with torch.inference_mode():
                generator.eval()(lr)
            sys.exit("the whole network fitted: the test shows nothing")
        except RuntimeError as error:
            assert "memory" in str(error), error
        print(validator(generator, photos, folder / "samples" / "strip.png"))
    """
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and "psnr_y" in done.stdout, done.stderr


def test_memory_that_the_system_refuses_is_one_line(capsys):
    "Row 3: torch's allocator on a CPU says it by a plain RuntimeError."
    def hungry(arguments=None):
        torch.empty(2**60, dtype=torch.uint8)

    assert cli.exits_cleanly(hungry)() == 1
    said = capsys.readouterr().err
    assert said.startswith("srgan_hungry: out of memory") and said.count("\n") == 1


def test_a_run_goes_on_without_the_run_that_it_started_from(photos, trained, tmp_path):
    "Row 4: the checkpoint holds everything."
    shutil.copytree(trained, tmp_path / "first")
    settings = run_settings("srgan", photos, tmp_path / "first", tmp_path / "run", steps=4)
    Trainer(settings, quiet=True).fit()
    shutil.rmtree(tmp_path / "first")
    assert cli.train(["srgan", "--resume", settings.out, "--steps", "8"]) == 0
    assert final_state(settings.out)["step"] == 8


def test_a_resumed_run_may_measure_more(shared, photos, trained, tmp_path, monkeypatch):
    "Row 6: the table then has the columns of both, and the doctor reads it; waiting for a busy machine is no illness."
    monkeypatch.setattr(patches, "time", SimpleNamespace(perf_counter=lambda: 0.0))
    settings = run_settings("srresnet", photos, trained, tmp_path / "run", schedule="constant")
    Trainer(settings, quiet=True).fit()
    Trainer.resume(settings.out, quiet=True, steps=12, lpips="squeeze").fit()
    rows = read_rows(RunFolder(settings.out).table("validation"))
    assert [row["step"] for row in rows] == [4, 8, 12] and "lpips" not in rows[0] and 0 < rows[2]["lpips"] < 2
    assert diagnose(settings.out).healthy


def test_a_log_with_and_without_gradients_is_one_table(photos, trained, tmp_path):
    "Row 6: compiled updates measure no gradients; whoever resumes with --compile gets shorter rows."
    table = tmp_path / "log.csv"
    append_row(table, {"step": 1, "content": 0.5, "gradient_content": 0.1})
    append_row(table, {"step": 2, "content": 0.25})
    assert read_rows(table) == [{"step": 1, "content": 0.5, "gradient_content": 0.1}, {"step": 2, "content": 0.25}]
    settings = run_settings("srgan", photos, trained, tmp_path / "run", steps=4)
    Trainer(settings, quiet=True).fit()
    append_row(RunFolder(settings.out).table("log"), {
        name: value for name, value in {**read_rows(RunFolder(settings.out).table("log"))[0], "step": 6}.items()
        if not name.startswith("gradient")})
    assert diagnose(settings.out).standing


def without_tensorboard(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    return ["--tensorboard"], {"tensorboard": False}


def without_a_compiler(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network: no_compiler)
    return ["--compile"], {"compile": False}


def no_compiler(*arguments):
    raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nand a page of advice")


def in_three_processes(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "3")
    return [], {}


def in_eight_parts(monkeypatch):
    return ["--accumulate", "8"], {}


@pytest.mark.parametrize("lacking, word", [(without_tensorboard, "pip install tensorboard"),
                                           (without_a_compiler, "--compile does not work"),
                                           (in_three_processes, "shared equally by 3"), (in_eight_parts, "shared equally by 8")])
def test_what_is_missing_is_said_before_there_is_a_folder(lacking, word, photos, tmp_path, monkeypatch, capsys):
    "Row 8: so that the corrected command finds its folder empty."
    wanted, _ = lacking(monkeypatch)
    message = refused(capsys, "srresnet", "--preset", "lite", "--data", photos, "--out", tmp_path / "run",
                      *flags({name: value for name, value in SMALL.items() if name != "keep"}), *wanted)
    assert word in message and not (tmp_path / "run").exists()


def test_float16_begins_a_new_scale_where_there_was_none():
    "Row 9: a run in float32 has saved no scale."
    precision = Precision("float32")
    precision.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=True)
    precision.load_state_dict(Precision("float32").state_dict())
    assert precision.scaler.get_scale() == 1024.0
    saved = {**precision.state_dict(), "scale": 64.0}
    precision.load_state_dict(saved)
    assert precision.scaler.get_scale() == 64.0


@pytest.mark.cuda
def test_a_float32_run_goes_on_in_float16(photos, trained, tmp_path):
    settings = run_settings("srgan", photos, trained, tmp_path / "run", steps=4, device="cuda")
    Trainer(settings, quiet=True).fit()
    Trainer.resume(settings.out, quiet=True, precision="float16", steps=8).fit()
    assert final_state(settings.out)["scaler"]


@pytest.mark.parametrize("broken, word", [
    (lambda saved: {**saved, "steps": "60"}, "--steps is '60': it must be a whole number"),
    (lambda saved: {name: value for name, value in saved.items() if name != "content"}, "missing content"),
    (lambda saved: {**saved, "momentum": 0.9}, "unknown momentum"),
    (lambda saved: {**saved, "format": 99}, "format 99"),
    (lambda saved: [saved], "is no readable settings.json"),
])
def test_settings_that_cannot_be_read_are_one_line(broken, word, photos, trained, tmp_path, capsys):
    "Row 10: on --resume, and on --init from such a run."
    shutil.copytree(trained, tmp_path / "run")
    file = tmp_path / "run/settings.json"
    file.write_text(json.dumps(broken(json.loads(file.read_text()))))
    for command in (("srresnet", "--resume", tmp_path / "run"),
                    ("srgan", "--init", tmp_path / "run", "--out", tmp_path / "out")):
        assert word in refused(capsys, *command)
    assert not (tmp_path / "out").exists()


def test_a_run_of_the_version_without_formats_goes_on(photos, trained, tmp_path):
    "Row 10: an empty text, the word none and 0 threads were all nothing; some settings did not exist."
    later = {one.name: one.default for one in fields(Settings) if one.metadata["since"]}
    settings = run_settings("srgan", photos, trained, tmp_path / "run", steps=4, schedule="constant", **later)
    Trainer(settings, quiet=True).fit()
    file = tmp_path / "run/settings.json"
    saved = {one.name: json.loads(file.read_text())[one.name] for one in fields(Settings) if not one.metadata["since"]}
    file.write_text(json.dumps({**saved, "lpips": "none", "threads": 0, "out": ""}))
    assert RunFolder(settings.out).settings() == replace(settings, threads=None, out=None)
    Trainer.resume(settings.out, quiet=True, steps=8, threads=1).fit()
    assert final_state(settings.out)["step"] == 8 and "format" in json.loads(file.read_text())


@pytest.mark.parametrize("before, now", [(True, "average"), (False, None)])
def test_a_relativistic_loss_of_format_4_compares_with_the_mean(tmp_path, before, now):
    "Then it was only whether; in later formats a truth value is no comparison."
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({**as_saved(settings_for("srresnet", "lite")), "format": 4, "relativistic": before}))
    assert read_settings(file).relativistic == now
    file.write_text(json.dumps({**as_saved(settings_for("srresnet", "lite")), "relativistic": before}))
    with pytest.raises(UserError, match=f"--relativistic is {before}: it must be a text"):
        read_settings(file)


def test_tables_that_a_spreadsheet_has_saved(photos, trained, tmp_path, capsys):
    "Row 11: read where they can be; else one line, and nothing is changed."
    shutil.copytree(trained, tmp_path / "run")
    log = tmp_path / "run/log.csv"
    header, *rows = log.read_text().splitlines()
    log.write_text("\ufeff" + "\n".join([header, *(row.replace(",", ".0,", 1) for row in rows)]) + "\n", encoding="utf-8")
    resume = ("srresnet", "--resume", tmp_path / "run", "--schedule", "constant", "--steps")
    assert cli.train([str(part) for part in (*resume, 12)]) == 0
    assert [row["step"] for row in read_rows(log)] == [2, 4, 6, 8, 10, 12]
    log.write_text("\n".join(line.replace(",", ";") for line in log.read_text().splitlines()) + "\n")
    before = contents(tmp_path / "run")
    assert "another program has saved it" in refused(capsys, *resume, 16)
    assert before == contents(tmp_path / "run")


@pytest.mark.parametrize("change, word", [(("--held-out", 2), "--held-out"), (("--steps", 5), "at step 8 already")])
def test_what_a_run_cannot_become_is_named(change, word, trained, tmp_path, capsys):
    "Row 15: and nothing is changed."
    shutil.copytree(trained, tmp_path / "run")
    before = contents(tmp_path / "run")
    assert word in refused(capsys, "srresnet", "--resume", tmp_path / "run", *change)
    before_lock = {path for path in contents(tmp_path / "run") if path.name != ".lock"}
    assert before_lock == {path for path in before if path.name != ".lock"}
    assert all(path.read_bytes() == before[path] for path in before_lock)


def test_what_kills_have_left_is_swept_when_the_run_goes_on(trained, tmp_path):
    "Row 18."
    shutil.copytree(trained, tmp_path / "run")
    left = [tmp_path / "run" / name for name in (".settings.0123456789abcdef.part.json",
            "checkpoints/.step-00000008.0123456789abcdef.part.safetensors", "samples/.step.0123456789abcdef.part.png")]
    for path in left:
        path.write_bytes(b"half")
    Trainer.resume(tmp_path / "run", quiet=True, steps=10, schedule="constant").fit()
    assert not any(path.exists() for path in left)


def test_a_learning_rate_that_jumps_is_told(trained, tmp_path, capsys):
    "Row 20: one-cycle is stretched when a finished run goes on."
    shutil.copytree(trained, tmp_path / "run")
    assert cli.train(["srresnet", "--resume", str(tmp_path / "run"), "--steps", "40"]) == 0
    assert "the learning rate jumps from 9.9e-05 up to" in capsys.readouterr().out
    shutil.copytree(trained, tmp_path / "still")
    assert cli.train(["srresnet", "--resume", str(tmp_path / "still")]) == 0
    assert "jumps" not in capsys.readouterr().out


@pytest.mark.parametrize("validation, told", [("4.png", True), (None, False)])
def test_photographs_that_are_validated_and_trained_on_are_told(validation, told, photos, trained, tmp_path, capsys):
    changes = {} if validation is None else {"validation": str(photos / validation)}
    Trainer(run_settings("srresnet", photos, trained, tmp_path / "run", steps=1, **changes)).fit()
    assert ("trained on and validated on alike: 1 photo," in capsys.readouterr().out) == told


def test_the_best_on_other_photographs_is_no_longer_the_best(photos, trained, tmp_path):
    for easy in (True, False):
        (tmp_path / str(easy)).mkdir()
        picture = Image.linear_gradient("L").resize((48, 40)) if easy else Image.effect_noise((48, 40), 99)
        picture.save(tmp_path / str(easy) / "a.png")
    settings = run_settings("srresnet", photos, trained, tmp_path / "run", validation=str(tmp_path / "True"))
    Trainer(settings, quiet=True).fit()
    before = read_passport(tmp_path / "run/best.safetensors")["passport"]
    Trainer.resume(tmp_path / "run", quiet=True, steps=12, validation=str(tmp_path / "False")).fit()
    after = read_passport(tmp_path / "run/best.safetensors")["passport"]
    assert after["step"] >= before["step"] and after["validation_psnr_y"] < before["validation_psnr_y"] - 5


def test_a_damaged_newest_checkpoint_is_named(trained, tmp_path, capsys):
    shutil.copytree(trained, tmp_path / "run")
    newest = RunFolder(tmp_path / "run").saved()[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    assert cli.train(["srresnet", "--resume", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert f"passed over: {newest}" in said and "steps 4 to 8" in said


def test_a_relative_folder_of_photos_is_found_from_anywhere(photos, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(photos.parent)
    settings = run_settings("srresnet", photos.name, trained, tmp_path / "run", steps=4, schedule="constant")
    Trainer(settings, quiet=True).fit()
    monkeypatch.chdir(tmp_path)
    Trainer.resume("run", quiet=True, steps=6).fit()
    assert final_state(tmp_path / "run")["step"] == 6


def test_the_paper_on_a_cpu_says_what_it_costs_before_the_first_step(photos, tmp_path, capsys):
    class Enough(Exception):
        pass

    def stop(trainer):
        raise Enough

    settings = settings_for("srresnet", data=str(photos), out=str(tmp_path / "run"), patch_size=32, batch_size=512,
                            held_out=1, device="cpu", threads=1)
    with pytest.raises(Enough):
        Trainer(settings, before_update=at(0, stop)).fit()
    said = capsys.readouterr().out
    assert re.search(r"takes [\d,]+ hours at least; --preset lite", said), said


def test_a_short_run_of_a_preset_is_validated_on_its_way():
    short = settings_for("srresnet", "lite", steps=60)
    assert sum(short.due_after(step).validation for step in range(1, 61)) == 4


def test_redirected_output_is_lines_and_no_bar(photos, trained, tmp_path, capsys):
    "One a minute; without a pause between them one for each step, with the newest figures."
    Trainer(run_settings("srresnet", photos, trained, tmp_path / "usual", steps=40, log_every=1)).fit()
    said = capsys.readouterr().err
    assert "\r" not in said and len(said.splitlines()) < 10
    trainer = Trainer(run_settings("srresnet", photos, trained, tmp_path / "run", steps=40, log_every=1))
    trainer.progress.pause = 0
    trainer.fit()
    said = capsys.readouterr().err
    assert "\r" not in said
    lines = said.splitlines()[-40:]
    assert all(f" {step}/40 [" in line and "content" in line for step, line in enumerate(lines, 1)) and lines[-1].endswith("dB]")


def test_the_end_names_what_there_is(photos, tmp_path, capsys):
    run = tmp_path / "run"
    assert cli.train(["srresnet", "--preset", "lite", "--data", str(photos), "--out", str(run), *flags(SMALL)]) == 0
    said = capsys.readouterr().out
    assert all(word in said for word in (f"done: {run / 'generator.safetensors'}", "best.safetensors",
                                         str(run / "samples"), "diagnose"))
    command = re.search(r'python -c "(.*)"', said)[1]
    exec(command)
    assert "srresnet, preset lite, step 8 of 8" in capsys.readouterr().out


# -- the parts, each built alone ------------------------------------------------------------------------------------


def test_building_a_trainer_writes_nothing_and_joins_nothing(photos, trained, tmp_path, monkeypatch):
    monkeypatch.setenv("SRGAN_NB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    before = contents(trained)
    Trainer(run_settings("srgan", photos, trained, tmp_path / "run"))
    Trainer.resume(trained)
    assert not list(tmp_path.iterdir()) and before == contents(trained)
    assert not torch.distributed.is_initialized()


def test_a_run_without_checkpoints_is_not_gone_on_with(trained, tmp_path):
    "Its weights and its log would be overwritten by those of step 0."
    copied = shutil.copytree(trained, tmp_path / "copied")
    for checkpoint in (copied / "checkpoints").iterdir():
        checkpoint.unlink()
    before = contents(copied)
    with pytest.raises(UserError, match="no checkpoint to go on from"):
        Trainer.resume(copied, quiet=True, steps=12).fit()
    assert contents(copied) == before


def test_processes_that_can_t_meet_are_refused_before_anything_is_written(photos, trained, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(UserError, match="no MASTER_ADDR to meet at: start it by torchrun"):
        Trainer(run_settings("srresnet", photos, trained, tmp_path / "run"), quiet=True).fit()
    assert not list(tmp_path.iterdir())


def test_the_loop_turns_with_whatever_parts_it_is_given(photos, tmp_path):
    "Two steps of a first stage without a trainer."
    settings = settings_for("srresnet", "lite", data=str(photos), out=str(tmp_path), **{**SMALL, "steps": 2})
    pack = pack_photos(photos, minimum=16, progress=False)
    run = RunFolder(tmp_path / "run")
    run.folder.mkdir()
    validated, progress = [], Progress("srresnet", steps=2, quiet=True)
    parts = SimpleNamespace(
        settings=settings, stage=SRResNetStage(settings, first_generator(settings)), state=RunState(),
        processes=Processes(), device=torch.device("cpu"), reporter=Reporter(run, settings, progress), progress=progress,
        checkpointer=Checkpointer(run, settings), before_update=None, stop_at_nan=lambda: None,
        validate=lambda unseen: validated.append(unseen))
    with parts.reporter.watching(0):
        assert not train(parts, PatchSampler(pack, 16, 4).batches(0, 2), pack, asked=[])
    assert parts.state.step == 2 and load_state(run.saved()[-1])["step"] == 2
    assert validated == [pack] and [row["step"] for row in read_rows(run.table("log"))] == [2]


@pytest.mark.parametrize("last, layout", [(True, torch.channels_last), (False, torch.contiguous_format)])
def test_pictures_and_weights_lie_in_memory_as_the_recipe_says(last, layout, photos, tmp_path):
    found = []

    def look_in(trainer, lr, hr):
        found.extend(part.is_contiguous(memory_format=layout) for part in (lr, hr, trainer.stage.generator.network.tail.weight))

    Trainer(run_settings("srresnet", photos, None, tmp_path / "run", steps=1, channels_last=last), before_update=look_in).fit()
    assert found == [True, True, True]


@pytest.mark.parametrize("kind", [{}, TEXTURES])
def test_the_judge_is_heard_on_held_out_photographs_and_learns_nothing_there(kind, photos, trained, tmp_path):
    settings = run_settings("srgan", photos, trained, tmp_path / "run", relativistic=None, **kind)
    stage = stages.stage_for(settings)
    before = {name: tensor.clone() for name, tensor in stage.discriminator.network.state_dict().items()}
    sr, hr = torch.rand(2, 3, settings.patch_size, settings.patch_size, 3).movedim(-1, 2).contiguous()
    said = stage.verdicts(sr, hr)
    assert stage.discriminator.network.training
    assert all(torch.equal(before[name], now) for name, now in stage.discriminator.network.state_dict().items())
    judge = stage.discriminator.network.eval()
    assert said == {"real": pytest.approx(judge(hr).sigmoid().mean().item()),
                    "fake": pytest.approx(judge(sr).sigmoid().mean().item())}
    Trainer(settings, quiet=True).fit()
    rows = read_rows(RunFolder(tmp_path / "run").table("validation"))
    assert rows and all(0 < row["real"] < 1 and 0 < row["fake"] < 1 for row in rows)


@pytest.mark.parametrize("live", [False, True])
def test_live_curves_take_the_place_of_the_bar(live, tmp_path, capsys):
    settings = settings_for("srresnet", "lite", data="photos", out=str(tmp_path / "run"))
    run = RunFolder(settings.out)
    run.folder.mkdir()
    progress = Progress("srresnet", settings.steps, live=live, pause=0)
    reporter = Reporter(run, settings, progress)
    with reporter.watching(0):
        reporter.write("log", {"step": 1, "content": 0.5})
        progress.bar.update()
    assert (f" 1/{settings.steps} [" in capsys.readouterr().err) == (not live)
