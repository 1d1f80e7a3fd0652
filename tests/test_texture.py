"""Texture: bands and their places, decibels that can be worked out by hand, pooling over pairs, the command line."""

import pytest
import torch

from srgan_nb.cli import evaluate
from srgan_nb.errors import UserError
from srgan_nb.images import save_image
from srgan_nb.metrics import TextureMeter, bands, patch_spectra, texture

NAMES = {"fine_power", "weave_flat", "weave_middle", "weave_busy", "gradient_distance"}


def noise(height: int = 192, width: int = 160, deviation: float = 0.1) -> torch.Tensor:
    return (0.5 + deviation * torch.randn(1, height, width)).expand(3, -1, -1)


def test_bands_are_disjoint_and_symmetric():
    masks = bands()
    assert not (masks["along"] & masks["between"]).any() and (masks["fine"] >= masks["along"] | masks["between"]).all()
    for mask in masks.values():
        assert torch.equal(mask, mask.T) and torch.equal(mask[1:], mask[1:].flip(0))  # no direction is preferred


def test_a_picture_is_its_own_measure():
    picture = noise()
    assert texture(picture, picture).keys() == NAMES
    assert all(value == pytest.approx(0, abs=1e-4) for value in texture(picture, picture).values())


@pytest.mark.parametrize("factor, level", [(0.5, -6.02), (2, 6.02), (0.1, -20)])
def test_fine_power_is_in_decibels(factor, level):
    hr = noise(deviation=0.02)
    sr = 0.5 + factor * (hr - 0.5)
    assert texture(sr, hr)["fine_power"] == pytest.approx(level, abs=0.01)
    assert texture(sr, hr)["weave_busy"] == pytest.approx(0, abs=0.01), "less of everything is no weave"


def test_a_weave_is_found_in_its_direction():
    torch.manual_seed(0)
    hr = noise()
    threads = 0.1 * torch.sin(2 * torch.pi * torch.arange(192.) / 2.5)[:, None].expand(3, 192, 160)
    both = torch.arange(192.)[:, None] + torch.arange(160.)
    slanted = 0.1 * torch.sin(2 * torch.pi * both / 2.5).expand(3, 192, 160)
    assert min(texture(hr + threads, hr)[f"weave_{third}"] for third in ("flat", "middle", "busy")) > 3
    assert max(texture(hr + slanted, hr)[f"weave_{third}"] for third in ("flat", "middle", "busy")) < -1


def test_patches_of_all_pairs_are_pooled():
    one, two = noise(), noise(128, 128, 0.02)
    meter = TextureMeter()
    meter.add(0.5 + (one - 0.5) / 2, one)
    meter.add(two, two)
    powers = [patch_spectra(picture)[:, bands()["fine"]].sum() for picture in (one, two)]
    expected = 10 * torch.log10((powers[0] / 4 + powers[1]) / (powers[0] + powers[1])).item()
    assert meter.read()["fine_power"] == pytest.approx(expected, abs=1e-3)


def test_a_gradient_distance_is_in_grey_levels():
    ramp = (torch.arange(128.) / 255).expand(3, 128, 128)  # one grey level a pixel
    assert texture(ramp * 2, ramp)["gradient_distance"] == pytest.approx(219 / 255, abs=1e-3)  # luma has 219 of them


@pytest.mark.parametrize("sr, hr, word", [((3, 63, 200), (3, 63, 200), "64x64"), ((3, 64, 64), (3, 64, 65), "pixel for pixel")])
def test_what_can_not_be_compared_is_refused(sr, hr, word):
    with pytest.raises(UserError, match=word):
        texture(torch.rand(sr), torch.rand(hr))


def test_the_command_line_shows_it_in_the_means(tmp_path, capsys):
    for i in range(2):
        save_image(noise(96, 96), tmp_path / f"{i}.png")
    save_image(noise(96, 40), tmp_path / "narrow.png")
    assert evaluate([str(tmp_path), "--model", "bicubic", "--texture", "--device", "cpu"]) == 0
    shown = capsys.readouterr().out.splitlines()
    heading, mean = (next(line for line in shown if word in line) for word in ("fine power", "| mean |"))
    columns = dict(zip(heading.split("|"), mean.split("|"), strict=True))
    assert float(columns[" fine power (dB) "]) < -10 and "narrow: texture is measured" in "\n".join(shown)
