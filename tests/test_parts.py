"""The trainer's parts, each built and used without the others."""

import ast
import copy
import inspect
import signal
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from srgan_nb import devices, reporter, runs, settings, stages, trainer
from srgan_nb.devices import Precision, Processes
from srgan_nb.discriminator import PatchDiscriminator
from srgan_nb.errors import UserError
from srgan_nb.generator import Generator
from srgan_nb.images import read_image
from srgan_nb.losses import PerceptualLoss, content_loss
from srgan_nb.packs import pack_photos
from srgan_nb.reporter import Progress, Reporter, Validator
from srgan_nb.runs import Checkpointer, Meter, RunFolder, RunState, read_rows
from srgan_nb.settings import (
    Due,
    LossSettings,
    MachineSettings,
    NetworkSettings,
    OptimizationSettings,
    Settings,
    TaskSettings,
    settings_for,
)
from srgan_nb.stages import Learner, SRGANStage, SRResNetStage, Stage, srgan_update
from srgan_nb.trainer import Interrupted
from tests.conftest import ROOT
from tests.support.small_runs import SMALL, SMALL_GAN, assert_same


def recipe(stage: str, **changes) -> Settings:
    start = {"init": "srresnet"} if stage == "srgan" else {}
    return settings_for(stage, "lite", **{**(SMALL if stage == "srresnet" else SMALL_GAN), **start, **changes})


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    "LR and HR of four patches of 16 pixels."
    numbers = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(4, 3, side, side, generator=numbers) for side in (4, 16))


THROUGH_VGG = dict(discriminator_kind="VGG", content="VGG22", vgg_weights=None, vgg_relative=True, vgg_share=0.5,
                   relativistic="paired", adversarial_weight=0.1)


def small_generator() -> Generator:
    return Generator(channels=4, blocks=1, kernel_size=3, bicubic_skip=True)


class SmallestStage:
    "What a `Checkpointer` asks of a stage."
    loss = content_loss("MSE")

    def __init__(self):
        self.shown = small_generator()

    def state_dict(self):
        return {"generator": self.shown.state_dict()}

    def load_state_dict(self, state):
        self.shown.load_state_dict(state["generator"])


def test_one_process_alone_is_the_first_and_asks_nobody() -> None:
    alone = Processes()
    alone.join()
    assert alone.first and not torch.distributed.is_initialized()
    assert alone.mean(torch.tensor([2.0])).item() == 2.0 and alone.any(True)
    alone.wait()
    alone.leave()
    assert not Processes(rank=1, world=2).first


@pytest.mark.parametrize("rank, world", [("4", "4"), ("-1", "4"), ("abc", "4"), ("", "4"), ("0", "0"), ("0", "")])
def test_a_rank_that_counts_wrongly_is_refused(rank: str, world: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world)
    with pytest.raises(UserError, match="ranks count from 0"):
        Processes.here()


def test_a_precision_takes_a_step_down() -> None:
    weight = nn.Parameter(torch.tensor([3.0]))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    precision = Precision("bfloat16")
    precision.backward(weight.square().sum())
    precision.step(optimizer)
    assert weight.item() == 0.0


@pytest.mark.parametrize(("clip", "left"), [(None, [0.0, 0.0]), (100.0, [0.0, 0.0]), (5.0, [1.5, 2.0])])
def test_a_gradient_that_is_too_long_is_shortened_and_keeps_its_direction(clip: float | None, left: list[float]) -> None:
    "All weights of an optimiser together: (3, 4) has the gradient (6, 8), of length 10; half of it is (3, 4) of length 5."
    weights = [nn.Parameter(torch.tensor([value])) for value in (3.0, 4.0)]
    optimizer = torch.optim.SGD(weights, lr=0.5)
    precision = Precision(clip=clip)
    precision.backward(sum(weight.square().sum() for weight in weights))
    precision.step(optimizer)
    assert [weight.item() for weight in weights] == pytest.approx(left, abs=1e-5)


def test_the_rates_rise_while_a_run_warms_up() -> None:
    settings = Settings(warm_up=4, schedule="step", decay_step=6, decay_factor=0.1)
    assert [settings.schedule_at(step) for step in range(8)] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 0.1, 0.1])
    assert Settings().schedule_at(0) == 1
    with pytest.raises(UserError, match="--warm-up: schedule one-cycle rises"):
        Settings(warm_up=4, schedule="one-cycle")


def test_patience_is_refused_where_its_score_gets_worse():
    with pytest.raises(UserError, match="--patience: it waits for a better PSNR"):
        Settings(stage="srgan", init="srresnet", patience=3)


@pytest.mark.parametrize("kind", ["patch", "VGG"])
def test_a_patch_too_small_for_the_judge_is_refused(kind: str) -> None:
    recipe = dict(init="srresnet", content="VGG22", discriminator_kind=kind)
    with pytest.raises(UserError, match="--patch-size 4: the discriminator needs 8 pixels"):
        Settings(stage="srgan", patch_size=4, **recipe)
    assert PatchDiscriminator(channels=4)(torch.rand(1, 3, 8, 8)).isfinite().all()


def test_the_groups_of_settings_share_no_name_and_are_all_there_is() -> None:
    groups = TaskSettings(), NetworkSettings(), LossSettings(), OptimizationSettings(), MachineSettings()
    names = [one.name for group in groups for one in fields(group)]
    assert sorted(names) == sorted({one.name for one in fields(Settings)})
    assert Settings(log_every=3, checkpoint_every=4, steps=6).due_after(6) == Due(log=True, checkpoint=True, validation=True)


def test_a_meter_reads_means_and_begins_again() -> None:
    meter = Meter()
    for value in (1.0, 3.0):
        meter.add({"content": torch.tensor(value), "colour": torch.tensor([0.0, 1.0, value])})
    assert meter.updates == 2 and meter.broken() == []
    assert meter.read(Processes()) == {"content": 2.0, "colour_r": 0.0, "colour_g": 1.0, "colour_b": 2.0}
    meter.add({"content": torch.tensor(float("inf"))})
    assert meter.updates == 1 and meter.broken() == ["content"]


def test_a_state_comes_back_whole() -> None:
    state, other = RunState(step=5, seconds=2.0), RunState()
    assert [state.scored(psnr) for psnr in (30.0, 31.0, 30.5)] == [True, True, False]
    saved = state.state_dict()
    ahead = torch.rand(3)
    other.load_state_dict(saved)
    assert (other.step, other.seconds, other.best, other.latest, other.since_best) == (5, 2.0, 31.0, 30.5, 1)
    assert torch.equal(torch.rand(3), ahead)
    elsewhere = RunState(unseen_hash="of other photographs")
    elsewhere.load_state_dict(saved)
    assert (elsewhere.best, elsewhere.latest, elsewhere.since_best) == (None, None, 0)


def test_a_tilde_is_the_home_folder_in_settings_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    settings = Settings(data="~/photos", out="~/run")
    assert (settings.data, settings.out) == (str(tmp_path / "photos"), str(tmp_path / "run"))


def test_a_run_s_folder_is_made_by_what_is_written(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.require_free()
    assert not run.exists() and not run.folder.exists() and run.saved() == []
    with run.locked():
        run.save_settings(recipe("srresnet"))
    assert run.exists() and run.settings() == recipe("srresnet")


def test_a_checkpointer_begins_a_run_and_goes_on_with_it(tmp_path: Path) -> None:
    run, stage, state = RunFolder(tmp_path), SmallestStage(), RunState(photos_hash="theirs")
    checkpointer = Checkpointer(run, recipe("srresnet", keep=2))
    assert checkpointer.begin(stage, state) == []
    assert [path.stem for path in run.saved()] == ["step-00000000"], "so that there is something to go on from"
    for state.step in (4, 8):
        checkpointer.save(stage, state)
    assert [path.stem for path in run.saved()] == ["step-00000004", "step-00000008"]
    other, later = SmallestStage(), RunState(photos_hash="theirs")
    assert checkpointer.begin(other, later, goes_on=True) == [] and later.step == 8
    assert_same(stage.state_dict(), other.state_dict())


@pytest.mark.parametrize(("quiet", "live"), [(False, False), (True, False), (False, True)])
def test_progress_is_a_bar_with_the_newest_figures_unless_quiet_or_live(quiet: bool, live: bool, capsys) -> None:
    progress = Progress("srresnet", steps=9, live=live, quiet=quiet, pause=0)
    with progress.watching(step=7):
        for row in ({"content": 0.5, "psnr_y": 30.0}, {"content": 0.4}):
            progress.show(row)
            progress.bar.update()
    said = capsys.readouterr().err.splitlines()
    if quiet or live:
        assert said == []
    else:
        first, before_last, last = said[0], *said[-2:]
        assert "7/9" in first and "8/9" in before_last and "content 0.5, 30.00 dB" in before_last
        assert last.startswith("srresnet: 100%") and "9/9" in last and last.endswith("content 0.4, 30.00 dB]")


def test_a_reporter_writes_rows_and_counts_seconds(tmp_path: Path) -> None:
    run, state = RunFolder(tmp_path), RunState(step=2, seconds=100.0)
    state.meter.add({"content": torch.tensor(0.5)})
    reporter = Reporter(run, recipe("srresnet"), Progress("srresnet", steps=4, quiet=True))
    with reporter.watching(step=0):
        reporter.log(state, Processes(), waited=0.0)
    (row,), (timing,) = (read_rows(run.table(name)) for name in ("log", "timing"))
    assert row["step"] == 2 and row["content"] == 0.5 and state.meter.updates == 0
    assert timing["seconds"] == state.seconds > 100.0


def test_a_validator_scores_a_generator_on_whole_photographs(photos: Path, tmp_path: Path) -> None:
    pack = pack_photos(photos, minimum=16, cache=tmp_path, progress=False)
    bicubic = Generator(channels=4, blocks=1, kernel_size=3, bicubic_skip=True).eval()
    scores = Validator()(bicubic, pack, tmp_path / "samples/strip.png")
    assert scores.keys() == {"psnr_y"} and scores["psnr_y"] > 25 and (tmp_path / "samples/strip.png").exists()


def test_the_sample_has_a_row_for_each_of_five_photographs(tmp_path: Path) -> None:
    "However they differ in size; the rows are bicubic, SR, HR."
    sizes = [(96, 120), (100, 64), (80, 80)]
    strips = [[torch.full((1, 3, *size), value) for value in (0.0, 0.5, 1.0)] for size in sizes]
    reporter.save_strips(strips, tmp_path / "samples/strip.png")
    picture = read_image(tmp_path / "samples/strip.png")
    assert picture.shape == (3, 3 * 64, 3 * 64)
    assert [picture[:, :, 64 * column:64 * (column + 1)].unique().numel() for column in range(3)] == [1, 1, 1]


@pytest.mark.parametrize("options", [{}, dict(ema=0.5), dict(optimizer="muon", balanced=True), dict(constant=True)])
def test_a_learner_goes_on_from_its_state(options: dict) -> None:
    def learn(learner: Learner, seed: int) -> None:
        learner.set_learning_rate(0.5)
        learner.optimizer.zero_grad()
        learner.called(batch(seed)[0]).mean().backward()
        learner.optimizer.step()
        learner.finish_update()

    def learner(balanced: bool = False, **options: Any) -> Learner:
        generator = small_generator()
        return Learner("generator", generator, learning_rate=0.1, constraints=[generator.balance_] * balanced, **options)

    first, second = (learner(**options) for _ in range(2))
    learn(first, seed=0)
    second.load_state_dict(copy.deepcopy(first.state_dict()))  # torch would share the optimiser's tensors
    for learner in (first, second):
        learn(learner, seed=1)
    assert_same(first.state_dict(), second.state_dict())
    assert first.optimizer.param_groups[0]["lr"] == (0.1 if options.get("constant") else 0.05)
    assert (first.shown is first.network) == ("ema" not in options)


def test_a_stage_keeps_what_learns_and_how_the_loss_is_scaled() -> None:
    stage = Stage(recipe("srresnet", ema=0.9), small_generator())
    assert list(stage.state_dict()) == ["generator", "generator_optimizer", "average", "scaler"]
    assert stage.learners == [stage.generator] and stage.shown is stage.generator.average.module


@pytest.mark.parametrize("kind, options", [(SRResNetStage, {}), (SRGANStage, {}),
                                           (SRGANStage, dict(discriminator_kind="patch", relativistic="average", ema=0.9)),
                                           (SRGANStage, THROUGH_VGG)])
def test_a_stage_learns_and_goes_on_bit_for_bit(kind: type, options: dict) -> None:
    stage = "srresnet" if kind is SRResNetStage else "srgan"
    first, second = (kind(recipe(stage, **options), small_generator()) for _ in range(2))
    values = first.update(*batch(0), probe=True)
    assert {"content", "colour"} <= values.keys() and all(not value.requires_grad for value in values.values())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for learning in (first, second):
        learning.update(*batch(1))
    assert_same(first.state_dict(), second.state_dict())
    assert first.shown is first.generator.shown and first.loss.describe()


@pytest.mark.parametrize("kind, options", [
    (SRResNetStage, {}), (SRGANStage, dict(discriminator_kind="paper", discriminator_batch_norm=False, relativistic=None,
                                           gradient_penalty=1.0, adversarial_weight=1.0, pixel_weight=0.0))])
def test_a_batch_in_parts_takes_the_step_of_the_whole_batch(kind: type, options: dict) -> None:
    "The generator sees only a part at a time, and the gradients of both networks are those of the whole batch."
    stage, ends = "srresnet" if kind is SRResNetStage else "srgan", []
    for parts in (1, 4):
        torch.manual_seed(0)
        whole = kind(recipe(stage, accumulate=parts, learning_rate=1e-2, discriminator_learning_rate=1e-2, **options),
                     Generator(channels=4, blocks=1, kernel_size=3, batch_norm=False, bicubic_skip=True))
        sizes = set[int]()
        whole.generator.network.register_forward_hook(lambda network, given, sr, sizes=sizes: sizes.add(len(sr)))
        values = whole.update(*batch())
        assert sizes == {4 // parts}
        ends.append({"values": torch.cat([value.flatten() for value in values.values()]),
                     **{f"{learner.name} {name}": weight.grad for learner in whole.learners
                        for name, weight in learner.network.named_parameters()}})
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, rtol=1e-3, atol=1e-6, msg=name)


def test_a_batch_in_parts_shows_each_part_once_to_the_statistics_of_batch_norm() -> None:
    torch.manual_seed(0)
    generator, optimizers = Generator(channels=4, blocks=1), []
    discriminator = PatchDiscriminator(channels=4)
    for network in (generator, discriminator):
        optimizers.append(torch.optim.SGD(network.parameters(), lr=0.0))
    lr, hr = torch.rand(4, 3, 12, 12), torch.rand(4, 3, 48, 48)
    srgan_update(generator.train(), discriminator, *optimizers, PerceptualLoss(content_loss("L1"), 1e-3), lr, hr, parts=4)
    norm = next(module for module in generator.modules() if isinstance(module, torch.nn.BatchNorm2d))
    assert norm.num_batches_tracked == 4


def test_who_was_interrupted_is_told_how_to_go_on() -> None:
    stop = Interrupted(recipe("srresnet", out="here"), 3, signal.SIGTERM)
    assert "srgan_train srresnet --resume here" in str(stop) and stop.signal == signal.SIGTERM


def built(function: ast.FunctionDef) -> set[str]:
    "The names that a function calls, and those that it takes as parameters' values."
    trees = [function, *function.decorator_list]
    calls = {ast.unparse(node.func) for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)}
    if "kind" in calls:
        calls |= {node.id for tree in function.decorator_list for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return calls


def test_every_class_of_the_trainer_is_built_alone_by_a_test() -> None:
    "By one that makes no `Trainer`."
    classes = {name for module in (devices, reporter, runs, settings, stages, trainer) for name in module.__all__
               if inspect.isclass(getattr(module, name))}
    alone = {"Trainer"}
    for path in (ROOT / "tests").glob("test_*.py"):
        tests = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)]
        alone |= {name for test in tests if "Trainer" not in built(test) for name in built(test)}
    assert classes - alone == set()
