"""Every illness that `diagnose` knows, provoked by really breaking a training run that way."""

import itertools
import shutil
from types import SimpleNamespace

import pytest
import torch

from srgan_nb import diagnose, patches
from srgan_nb.diagnosis import find_high_learning_rate
from srgan_nb.errors import UserError
from srgan_nb.trainer import Trainer
from tests.support.small_runs import run_settings


@pytest.fixture(autouse=True)
def batches_that_come_at_once(monkeypatch):
    "To the clock that counts the waiting for patches: that other work slows this machine down is no illness of a run."
    monkeypatch.setattr(patches, "time", SimpleNamespace(perf_counter=lambda: 0.0))


def names(run) -> set[str]:
    return {finding.name for finding in diagnose(run).findings}


def broken_run(photos, trained, out, before_update=None, stage="srgan", **changes) -> set[str]:
    "Trains a small run in which `before_update` has its hands; returns what is found."
    plain = dict(relativistic=None, gradient_penalty=0.0, discriminator_batch_norm=True) if stage == "srgan" else {}
    settings = run_settings(stage, photos, trained, out, **{"steps": 40, "validate_every": 40, "checkpoint_every": 40,
                                                            **plain, **changes})
    Trainer(settings, quiet=True, before_update=before_update).fit()
    return names(settings.out)


def test_a_first_stage_that_learns_is_fine(photos, trained, tmp_path):
    assert broken_run(photos, trained, tmp_path / "run", stage="srresnet") == set()
    (tmp_path / "run/timing.csv").unlink()  # one that was copied without it
    assert names(tmp_path / "run") == set()


def test_a_table_without_a_column_is_one_line(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    log = tmp_path / "run/log.csv"
    log.write_text(log.read_text().replace("content", "inhalt"))
    with pytest.raises(UserError, match="a row of its tables has no 'content': another program"):
        diagnose(tmp_path / "run")


def test_a_learning_rate_that_is_too_high(photos, trained, tmp_path):
    found = broken_run(photos, trained, tmp_path / "run", stage="srresnet", learning_rate=10.0, schedule="constant")
    assert "learning rate too high" in found


def test_a_lucky_row_is_no_lost_best():
    luck = [{"content": loss} for loss in (0.07, 0.05, 0.06, 0.02, 0.05, 0.06, 0.05, 0.05, 0.06, 0.05)]
    assert find_high_learning_rate(luck) is None and find_high_learning_rate(luck[:4]) is None
    lost = [{"content": loss} for loss in (0.07, 0.05, 0.06, 0.05, 0.06, 0.3, 0.4, 0.3, 0.4, 0.3)]
    assert "is 0.3 now and was 0.06" in find_high_learning_rate(lost).evidence


def test_a_loss_that_is_no_number(photos, trained, tmp_path):
    def poison(trainer, lr, hr):
        torch.nn.init.constant_(trainer.stage.generator.network.tail.bias, float("inf"))

    with pytest.raises(UserError, match="no finite number"):
        broken_run(photos, trained, tmp_path / "run", poison, stage="srresnet")
    finding, = [each for each in diagnose(tmp_path / "run").findings if each.name == "no number any more"]
    assert "content" in finding.evidence and "step 1" in finding.evidence


@pytest.mark.slow
def test_a_discriminator_that_has_won(photos, trained, tmp_path):
    def mark(trainer, lr, hr):
        trainer.stage.generator.learning_rate = 1e-30  # a generator that stands still can't answer
        return lr, torch.ones_like(hr)  # real patches are plain white: nothing is easier to tell

    found = broken_run(photos, trained, tmp_path / "run", mark, learning_rate=0.02, schedule="constant",
                       discriminator_channels=8, steps=160)
    assert "D has won" in found


@pytest.mark.slow
def test_a_discriminator_that_learns_nothing(photos, trained, tmp_path):
    assert "D learns nothing" in broken_run(photos, trained, tmp_path / "run", discriminator_learning_rate=1e-30)


@pytest.mark.slow
@pytest.mark.parametrize("weight, name", [(1e3, "content term drowned"), (1e-9, "adversarial term drowned")])
def test_one_term_drowns_the_other(weight, name, photos, trained, tmp_path):
    assert name in broken_run(photos, trained, tmp_path / "run", adversarial_weight=weight)


def test_a_colour_that_drifts(photos, trained, tmp_path):
    def less_blue(trainer, lr, hr):
        return lr, hr - torch.tensor([0.0, 0.0, 0.1]).view(3, 1, 1)

    found = broken_run(photos, trained, tmp_path / "run", less_blue, stage="srresnet",
                       learning_rate=1e-6)
    assert "colour drift" in found
    finding, = [each for each in diagnose(tmp_path / "run").findings if each.name == "colour drift"]
    assert "blue" in finding.evidence


def test_a_machine_that_waits_for_data(photos, trained, tmp_path, monkeypatch):
    hours = itertools.count(step=3600)  # as if each batch came an hour after it was asked for
    monkeypatch.setattr(patches, "time", SimpleNamespace(perf_counter=lambda: next(hours)))
    assert "data starvation" in broken_run(photos, trained, tmp_path / "run", stage="srresnet", steps=10)


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(UserError, match="no run"):
        diagnose(tmp_path)
