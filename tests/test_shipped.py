"""The weights that come with the package: what their passports and the README say of them, and what they learned from."""

import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from srgan_nb.bicubic import crop_to_multiple, downsample
from srgan_nb.checkpoints import SHIPPED, load_generator, read_passport, save_generator
from srgan_nb.diagnosis import find_colour_drift, find_drowned_term, find_high_learning_rate, find_unfair_game
from srgan_nb.evaluation import evaluate
from srgan_nb.files import package_file
from srgan_nb.generator import Generator
from srgan_nb.images import DEMO_PHOTOS, demo_photo, luma, read_image, to_tensor
from srgan_nb.metrics import TextureMeter
from srgan_nb.runs import read_rows
from tests.conftest import ROOT
from tests.experiments.ship import mean_generator
from tests.support.notebooks import git

PAIRS = {"lite": ("srresnet", "srgan"), "base": ("srresnet-base", "srgan-base")}
NAMES = [name for pair in PAIRS.values() for name in pair]
SETS = ("Set5", "Set14", "BSD100")
PASSPORTS = {name: read_passport(name)["passport"] for name in NAMES}


def test_they_are_small() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.glob("*")) < 8e6


@pytest.mark.parametrize("name", NAMES)
def test_a_passport_is_complete(name: str) -> None:
    passport = PASSPORTS[name]
    for field in ("recipe", "commit", "photos", "photos_hash", "step", "hours", "loss", "scores", "licence"):
        assert passport[field], field
    for scores in (passport["scores"][each] for each in SETS):
        assert scores.keys() >= {"psnr_y", "ssim_y", "ssim_y_daala", "lpips", "colour_shift"}


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_has_their_scores(name: str) -> None:
    scores = [PASSPORTS[name]["scores"][each] for each in SETS]
    cells = " | ".join(f"{each['psnr_y']:.2f} / {each['ssim_y']:.3f} / {each['lpips']:.3f}" for each in scores)
    assert f"| {name} | {cells} |" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_a_passport_s_commits_are_in_the_history(name: str) -> None:
    commits = [*re.findall(r"\b[0-9a-f]{7}\b", PASSPORTS[name]["note"]), PASSPORTS[name]["commit"]]
    known = [commit for commit in commits if git(ROOT, "cat-file", "-e", f"{commit}^{{commit}}") is not None]
    if not known or git(ROOT, "rev-parse", "--is-shallow-repository") != b"false\n":
        pytest.skip("no git, or none that has this whole history")
    assert known == commits


def test_the_readme_has_their_commits() -> None:
    "Those of the runs that the passport's note names, then the passport's own."
    row = re.search(r"^\| commits \| (.*) \| (.*) \|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    for name, cell in zip(PAIRS["lite"], row.groups(), strict=True):
        passport = PASSPORTS[name]
        assert cell.split(", ") == [*re.findall(r"\b[0-9a-f]{7}\b", passport["note"]), passport["commit"]]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_scores_come_out_again(name: str, shared: Path) -> None:
    found = evaluate("Set5", name, lpips_net="squeeze", progress=False).mean
    said = PASSPORTS[name]["scores"]["Set5"]
    assert found["psnr_y"] == pytest.approx(said["psnr_y"], abs=0.01)
    assert found["lpips"] == pytest.approx(said["lpips"], abs=0.001)


@pytest.mark.parametrize("dataset", SETS)
@pytest.mark.parametrize(("pair", "share"), [("lite", 0.56), ("base", 0.55)])
def test_what_the_second_stage_bought(pair: str, share: float, dataset: str) -> None:
    "LPIPS far lower for no more than 2.5 dB, and mean colours within a grey level. The grid is test_grid.py's."
    first, second = (PASSPORTS[name]["scores"][dataset] for name in PAIRS[pair])
    assert second["lpips"] < share * first["lpips"] and first["psnr_y"] - 2.5 < second["psnr_y"] < first["psnr_y"]
    assert first["colour_shift"] < 1 and second["colour_shift"] < 1


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS)
@torch.inference_mode()
def test_the_second_stage_paints_texture_and_no_weave(pair: str) -> None:
    "On the demo photographs: three times SRResNet's fine power and more, in all directions as much as in HR, to 2 dB."
    meters = {name: TextureMeter() for name in PAIRS[pair]}
    for photo in DEMO_PHOTOS:
        hr = crop_to_multiple(read_image(demo_photo(photo)), 4)
        lr = downsample(hr)[None]
        for name, meter in meters.items():
            meter.add(load_generator(name)(lr)[0].clamp(0, 1), hr)
    first, second = (meter.read() for meter in meters.values())
    assert second["fine_power"] > first["fine_power"] + 5
    assert max(abs(second[f"weave_{part}"]) for part in ("flat", "middle", "busy")) < 2 < first["weave_flat"]


@torch.inference_mode()
def test_a_grey_photograph_stays_grey() -> None:
    "SRGAN invents no colours; that SRResNet's picture of it has some shows that the test could fail."
    lr = luma(downsample(read_image(demo_photo("coffee"))[:, :200, :200])).expand(3, -1, -1)[None]
    colours = {name: load_generator(name)(lr).std(1).max() for name in NAMES}
    assert max(colours["srgan"], colours["srgan-base"]) < 1e-5 < min(colours["srresnet"], colours["srresnet-base"])


@pytest.mark.parametrize("name", NAMES)
def test_their_logs_are_those_of_healthy_runs(name: str) -> None:
    rows = read_rows(package_file(f"curves/{name}-log.csv"))
    checks = [find_high_learning_rate, find_colour_drift] + [find_unfair_game, find_drowned_term] * ("srgan" in name)
    assert [check(rows) for check in checks] == [None] * len(checks)


def thumbnail(path: Path, size: int) -> torch.Tensor:
    "Grey, size x size; a JPEG file is decoded at an eighth of its size if that is enough."
    with Image.open(path) as picture:
        picture.draft("L", (4 * size, 4 * size))
        return to_tensor(picture.convert("L").resize((size, size), Image.Resampling.BOX))[0]


def thumbnails(paths: list[Path], size: int = 24) -> torch.Tensor:
    "Mean 0 and length 1: the product of two is their correlation."
    small = torch.stack([thumbnail(path, size) for path in paths])
    small = small - small.mean((1, 2), keepdim=True)
    return small / small.norm(dim=(1, 2), keepdim=True)


@pytest.mark.slow
def test_no_training_photo_is_in_a_benchmark_or_a_demo_photo(shared: Path) -> None:
    "Under all flips and quarter turns. That one photo would be found in another size and turned is shown first."
    def turned(pictures: torch.Tensor) -> torch.Tensor:
        quarters = [pictures.rot90(k, (1, 2)) for k in range(4)]
        return torch.stack([each for quarter in quarters for each in (quarter, quarter.flip(2))])

    training = sorted((shared / "data/train").rglob("*.jpg"))
    judges = [path for each in SETS for path in sorted((shared / "data/benchmarks" / each / "LRx4").iterdir())]
    judges += [Path(demo_photo(name)) for name in DEMO_PHOTOS]
    assert len(training) >= 173 and len(judges) == 119 + len(DEMO_PHOTOS)
    by_turn = turned(thumbnails(judges)).flatten(2)  # (8, judges, pixels)
    known = by_turn[:, 0] @ thumbnails(sorted((shared / "data/benchmarks/Set5/HR").iterdir())[:1]).flatten(1)[0]
    alike = by_turn @ thumbnails(training).flatten(1).T
    print(f"highest correlation {alike.max():.3f}; of a picture with itself {known.max():.3f}")
    assert known.max() > 0.99 > 0.97 > alike.max()


def test_loading_a_shipped_generator_needs_no_more_than_its_name() -> None:
    assert load_generator("srgan").settings == load_generator("srresnet").settings


def test_the_mean_of_runs_is_the_mean_of_their_weights(tmp_path: Path) -> None:
    "And it keeps the first one's recipe, but not its validation score, which is not the mean's."
    paths = [tmp_path / f"{seed}.safetensors" for seed in range(3)]
    for seed, path in enumerate(paths):
        torch.manual_seed(seed)
        save_generator(Generator(channels=4, blocks=1), path, {"step": seed, "validation_psnr_y": 30.0})
    tails = [load_generator(path).tail.weight for path in paths]
    mean = mean_generator(paths)
    assert torch.allclose(mean.tail.weight, torch.stack(tails).mean(0), atol=1e-6)
    assert mean.passport == {"step": 0, "mean_of_runs": 3}
