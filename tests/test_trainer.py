"""The trainer's promises: exact resuming, whole checkpoints, several processes, clear refusals."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from srgan_nb import cli
from srgan_nb.checkpoints import load_generator, load_state, read_passport, save_generator
from srgan_nb.files import UserError
from srgan_nb.generator import Generator
from srgan_nb.recipes import Settings
from srgan_nb.runs import RunFolder, read_rows
from srgan_nb.trainer import Interrupted, Trainer
from tests.support.kills import killed_at_change
from tests.support.small_runs import SMALL, SMALL_GAN, assert_same, final_state, run_settings


def stop_at(trainer: Trainer, step: int) -> None:
    "Trains until a SIGINT arrives in the middle of update number `step`."
    update = trainer.update

    def interrupted(*arguments):
        if trainer.step == step:
            signal.raise_signal(signal.SIGINT)
        return update(*arguments)

    trainer.update = interrupted
    with pytest.raises(Interrupted, match=f"stopped after step {step + 1} .* --resume"):
        trainer.fit()


@pytest.mark.parametrize("stage", ["srresnet", "srgan"])
def test_an_interrupted_run_ends_like_an_undisturbed_one(stage, photos, trained, tmp_path):
    whole, broken = (run_settings(stage, photos, trained, tmp_path / name, ema=0.9) for name in ("whole", "broken"))
    Trainer(whole, quiet=True).fit()
    stop_at(Trainer(broken, quiet=True), 2)
    stop_at(Trainer.resume(broken.out, quiet=True), 4)
    Trainer.resume(broken.out, quiet=True).fit()
    assert_same(final_state(whole.out), final_state(broken.out))
    for table in ("log.csv", "validation.csv"):
        assert Path(whole.out, table).read_text() == Path(broken.out, table).read_text()


def start_or_resume(settings: Settings) -> None:
    if RunFolder(settings.out).exists():
        Trainer.resume(settings.out, quiet=True).fit()
    else:
        Trainer(settings, quiet=True).fit()


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


def test_the_same_command_writes_the_same_log(photos, trained, tmp_path):
    logs = []
    for name in ("one", "two"):
        Trainer(run_settings("srgan", photos, trained, tmp_path / name), quiet=True).fit()
        logs.append((tmp_path / name / "log.csv").read_text())
    assert logs[0] == logs[1]
    assert logs[0].count("\n") == 1 + 4


@pytest.mark.parametrize("changes", [dict(optimizer="adam"), dict(channels=8), dict(blocks=2, ema=0.9)])
def test_a_resumed_run_keeps_what_its_state_has_the_shape_of(changes, trained):
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    with pytest.raises(UserError) as refused:
        Trainer.resume(trained, quiet=True, steps=20, **changes)
    assert all(f"--{name}" in str(refused.value) for name in changes) and "--init" in str(refused.value)
    assert before == {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}


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


def test_balanced_filters_stay_balanced_while_they_learn(photos, trained, tmp_path):
    for balanced in (True, False):
        settings = run_settings("srgan", photos, trained, tmp_path / str(balanced), balanced_shuffle=balanced)
        learned = Trainer(settings, quiet=True).fit()
        weight = learned.tail.weight.detach().clone()
        assert not torch.equal(weight, load_generator(trained).tail.weight)
        assert torch.allclose(learned.balance_().tail.weight, weight, atol=1e-7) == balanced


def test_bfloat16_follows_float32(photos, trained, tmp_path):
    ends = {}
    for precision in ("float32", "bfloat16"):
        settings = run_settings("srgan", photos, trained, tmp_path / precision, precision=precision)
        Trainer(settings, quiet=True).fit()
        ends[precision] = [row["content"] for row in read_rows(RunFolder(settings.out).table("log"))]
    assert ends["float32"] != ends["bfloat16"]  # it did compute in another format
    assert ends["bfloat16"] == pytest.approx(ends["float32"], rel=0.05)


STEADIER = dict(relativistic=True, gradient_penalty=1.0, discriminator_batch_norm=False)


def test_a_steadier_opponent_learns_the_same_when_compiled(photos, trained, tmp_path):
    ends = {}
    for compiled in (False, True):
        settings = run_settings("srgan", photos, trained, tmp_path / str(compiled), steps=4, compile=compiled,
                                **STEADIER)
        Trainer(settings, quiet=True).fit()
        rows = read_rows(RunFolder(settings.out).table("log"))
        ends[compiled] = [row[name] for row in rows for name in ("content", "adversarial", "discriminator")]
        assert all(row["real"] + row["fake"] == pytest.approx(1, abs=1e-4) for row in rows)  # one of each pair wins
    assert ends[True] == pytest.approx(ends[False], rel=1e-3)


def test_validation_by_lpips(shared, photos, trained, tmp_path):
    settings = run_settings("srresnet", photos, trained, tmp_path / "run", steps=4, lpips="squeeze")
    Trainer(settings, quiet=True).fit()
    row, = read_rows(RunFolder(settings.out).table("validation"))
    assert 0 < row["lpips"] < 2


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


def torchrun_command(processes: int, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m",
            "srgan_nb.cli", "train", *arguments]


def torchrun(processes: int, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(torchrun_command(processes, *arguments), capture_output=True, text=True, timeout=240,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})


def flags(settings_changes: dict) -> list[str]:
    parts = []
    for name, value in settings_changes.items():
        flag = "--" + name.replace("_", "-")
        parts += [flag if value else flag.replace("--", "--no-")] if isinstance(value, bool) else [flag, str(value)]
    return parts


@pytest.mark.parametrize("stage, options", [("srresnet", {}), ("srgan", {}), ("srgan", STEADIER)])
def test_two_processes_equal_one_at_the_same_global_batch(stage, options, photos, trained, tmp_path):
    changes = {**SMALL_GAN, "data": str(photos), "discriminator_batch_norm": False, "steps": 6, **options}
    if stage == "srgan":
        changes["init"] = str(trained)
    one = [stage, "--preset", "lite", *flags({**changes, "out": tmp_path / "one"})]
    two = [stage, "--preset", "lite", *flags({**changes, "out": tmp_path / "two", "steps": 4})]
    assert cli.train(one) == 0
    done = torchrun(2, *two)
    assert done.returncode == 0, done.stderr
    # and on with another number of processes: the last steps by one
    assert cli.train([stage, "--resume", str(tmp_path / "two"), "--steps", "6"]) == 0
    # one-cycle's rates depend on the number of steps, so compare with a run of the same course
    changed = [stage, "--preset", "lite", *flags({**changes, "out": tmp_path / "again", "steps": 4})]
    assert cli.train(changed) == 0
    assert cli.train([stage, "--resume", str(tmp_path / "again"), "--steps", "6"]) == 0
    first, second = (final_state(tmp_path / name)["generator"] for name in ("again", "two"))
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, rtol=1e-4, atol=1e-5, msg=name)


def child_of_rank(parent: int, rank: int) -> int | None:
    "The process id of torchrun's child with that rank, as its environment tells; None while there is none."
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent and f"RANK={rank}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                return int(folder.name)
        except OSError:  # it ended while we looked
            continue
    return None


def wait_until(happened, what: str, seconds: float = 120):
    "The first truthy answer of `happened`."
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := happened():
            return found
        time.sleep(0.02)
    raise AssertionError(f"no {what} within {seconds} seconds")


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found in /proc")
def test_a_dead_rank_ends_the_job_and_it_goes_on(photos, tmp_path):
    changes = dict(SMALL, data=str(photos), schedule="constant", log_every=1, checkpoint_every=2)
    two = ["srresnet", "--preset", "lite", *flags({**changes, "steps": 100_000, "out": tmp_path / "two"})]
    job = subprocess.Popen(torchrun_command(2, *two), stderr=subprocess.PIPE, text=True,
                           env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        run = RunFolder(tmp_path / "two")
        wait_until(lambda: run.folder.exists() and len(run.saved()) > 2, "checkpoint")
        os.kill(wait_until(lambda: child_of_rank(job.pid, 1), "second process"), signal.SIGKILL)
        said = job.communicate(timeout=120)[1]
    finally:
        job.kill()
    assert job.returncode != 0 and "SIGKILL" in said, said[-2000:]
    step = load_state(run.saved()[-1])["step"]
    assert step > 0, "nothing that was saved is lost"

    resumed = torchrun(2, "srresnet", "--resume", str(run.folder), "--steps", str(step + 3))
    assert resumed.returncode == 0, resumed.stderr
    one = ["srresnet", "--preset", "lite", *flags({**changes, "steps": step + 3, "out": tmp_path / "one"})]
    assert cli.train(one) == 0
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
                      "--patch-size", 16, "--content", "MSE")
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
    import shutil

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


def test_two_trainers_do_not_share_a_folder(photos, trained, tmp_path):
    settings = run_settings("srresnet", photos, trained, tmp_path / "run")
    first = Trainer(settings, quiet=True)
    second_said = []
    update = first.update

    def nosy(*arguments):
        if first.step == 1:
            with pytest.raises(UserError) as error:
                Trainer.resume(settings.out, quiet=True).fit()
            second_said.append(str(error.value))
        return update(*arguments)

    first.update = nosy
    first.fit()
    assert "another process" in second_said[0]


def test_not_a_number_stops_at_once_and_keeps_the_last_checkpoint(photos, trained, tmp_path):
    settings = run_settings("srresnet", photos, trained, tmp_path / "run", checkpoint_every=2)
    trainer = Trainer(settings, quiet=True)
    update = trainer.update

    def poisoned(*arguments):
        if trainer.step == 4:
            with torch.no_grad():
                trainer.models.generator.head[0].weight.fill_(float("nan"))
        return update(*arguments)

    trainer.update = poisoned
    with pytest.raises(UserError, match=r"step 5: content, colour is no finite number.*step-00000004"):
        trainer.fit()
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

