"""What the pixel shuffle notebook can't hold: names in checkpoints, layouts, wrong input, other photographs."""

import runpy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from srgan_nb.errors import UserError
from srgan_nb.generator import Generator, PixelShuffle, UpsampleBlock, balance_
from srgan_nb.images import luma, read_image
from srgan_nb.metrics import grid_energy


def test_names_in_checkpoints():
    assert set(UpsampleBlock(4).state_dict()) == {"conv.weight", "conv.bias", "activation.weight"}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
def test_shuffle_equals_pytorch_in_every_layout_and_keeps_it(layout, dtype):
    x = torch.arange(2 * 18 * 4 * 5).remainder(251).view(2, 18, 4, 5).to(dtype).contiguous(memory_format=layout)
    y = PixelShuffle(3)(x)
    assert y.is_contiguous(memory_format=layout)
    assert torch.equal(y, nn.PixelShuffle(3)(x))


def test_shuffle_of_views_and_of_empty_batches():
    x = torch.randn(2, 5, 6, 16).permute(0, 3, 2, 1)[:, ::2]  # (2, 8, 6, 5), neither layout
    assert torch.equal(PixelShuffle(2)(x), nn.PixelShuffle(2)(x))
    assert PixelShuffle(2)(torch.empty(0, 8, 6, 5)).shape == (0, 2, 12, 10)


def test_upsample_block_keeps_channels_last():
    block, x = UpsampleBlock(4), torch.randn(2, 4, 6, 5)
    expected = block(x)
    last = block.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(last, expected, atol=1e-5)


def test_wrong_numbers_of_channels_are_explained():
    with pytest.raises(UserError, match="multiple of 4"):
        PixelShuffle(2)(torch.randn(1, 6, 4, 4))
    with pytest.raises(UserError, match="multiple of 9"):
        balance_(torch.nn.Conv2d(4, 8, 3), factor=3)


def test_grid_energy_of_a_batch_is_that_of_its_pictures():
    pictures = torch.rand(3, 2, 41, 50)  # sides that are no multiple of the period
    together = grid_energy(pictures, 4)
    assert together.shape == (3,)
    assert torch.allclose(together, torch.stack([grid_energy(picture, 4) for picture in pictures]))
    by_channel = grid_energy(pictures[0].unsqueeze(1), 4)  # mean over channels
    assert torch.isclose(together[0], by_channel.mean())


@pytest.mark.parametrize("period", [2, 3, 4, 8])
def test_grid_energy_is_the_variance_of_the_pattern_wherever_it_starts(period):
    torch.manual_seed(period)
    tile = torch.rand(period, period)
    for top in range(period):
        pattern = tile.roll(top, 0).repeat(60 // period, 90 // period)[None]
        expected = 255**2 * tile.var(correction=0)
        assert torch.isclose(grid_energy(pattern, period), expected, rtol=1e-4)
        assert torch.isclose(grid_energy(0.5 * pattern + 0.3, period), expected / 4, rtol=1e-4)


def test_grid_energy_refuses_pictures_of_few_periods():
    with pytest.raises(UserError, match="too few"):
        grid_energy(torch.rand(1, 15, 40), 4)


@pytest.mark.parametrize("name", ["Set5", "Set14"])
def test_photographs_hold_about_a_hundredth(shared, name):
    files = [file for file in sorted((shared / "data/benchmarks" / name).rglob("*.png")) if "LR" not in str(file)]
    energies = torch.stack([grid_energy(luma(read_image(file)), 4) for file in files])
    assert len(files) in (5, 14) and 0.005 < energies.median() < 0.02 and energies.max() < 0.2


def test_the_benchmark_prints_its_ratios(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["upsample.py", "--channels", "4", "--side", "8", "--repeats", "2"])
    runpy.run_path(str(Path(__file__).with_name("benchmarks") / "upsample.py"), run_name="__main__")
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("transposed, kernel 4")).split()
    assert row[3] == "0.444", "16 / 36 of the multiply-adds"
    assert all(float(ratio) >= 0 for ratio in row[4:6]), "two ratios of times, whatever they are"


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("bias", [True, False])
def test_balanced_filters_keep_flat_features_flat(layout: torch.memory_format, bias: bool) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(5, 3 * 16, 3, bias=bias).to(memory_format=layout)
    before = convolution.weight.detach().clone()
    assert balance_(convolution, 4) is convolution
    answers = convolution(torch.rand(2, 5, 1, 1).expand(2, 5, 3, 3)).unflatten(1, (3, 16))
    assert (answers - answers.mean(2, keepdim=True)).abs().max() < 1e-6
    assert (convolution.weight - before).abs().max() > 0.01
    assert torch.allclose(convolution.weight.unflatten(0, (3, 16)).mean(1), before.unflatten(0, (3, 16)).mean(1))


def test_filters_that_make_no_whole_groups_are_refused() -> None:
    with pytest.raises(UserError, match="whole groups"):
        balance_(nn.Conv2d(3, 6, 3), 2)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["lite", "paper"])
@torch.inference_mode()
def test_a_balanced_generator_paints_no_grid_on_a_flat_picture(preset: str) -> None:
    torch.manual_seed(0)
    generator = Generator.from_preset(preset).eval()
    nn.init.normal_(generator.tail.weight, std=0.05)
    flat = torch.full((1, 3, 96, 96), 0.4)

    def grid() -> float:
        return grid_energy(generator(flat)[..., 176:208, 176:208].mean(1, keepdim=True), 4).item()

    before = grid()
    generator.balance_()
    assert grid() < 1e-3 * before
