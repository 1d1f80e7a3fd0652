"""What 61_grid.ipynb can't hold: bad input, phases and sizes, and the shipped SRGAN on every demo photograph."""

import pytest
import torch

from srgan_nb.bicubic import crop_to_multiple, downsample
from srgan_nb.checkpoints import load_generator
from srgan_nb.errors import UserError
from srgan_nb.images import DEMO_PHOTOS, demo_photo, luma, read_image
from srgan_nb.metrics import flat_grid, flat_patches, grid_peak, shared_grid


def test_flat_patches_are_chosen_by_the_original_and_cut_from_the_picture() -> None:
    torch.manual_seed(0)
    original, picture = 0.5 * torch.rand(3, 64, 96), torch.rand(3, 64, 96)
    original[:, 32:, :32] = 0.3  # the one flat place of six
    (patch,) = flat_patches(picture, original, share=1 / 6)
    assert torch.equal(patch[0], luma(picture)[0, 32:, :32])
    assert len(flat_patches(picture, original, share=0.01)) == 1
    assert len(flat_patches(picture, original, share=1)) == 6


@pytest.mark.parametrize("shapes", [((3, 64, 64), (3, 64, 68)), ((3, 16, 64), (3, 16, 64))])
def test_pictures_that_do_not_match_or_are_too_small(shapes: tuple) -> None:
    with pytest.raises(UserError, match="two pictures of one size"):
        flat_patches(*(torch.rand(shape) for shape in shapes))


@pytest.mark.parametrize(("size", "period"), [(30, 4), (16, 4), (32, 5)])
def test_patches_that_do_not_hold_whole_periods(size: int, period: int) -> None:
    with pytest.raises(UserError, match="period"):
        grid_peak(torch.rand(2, 1, size, size), period)


@pytest.mark.parametrize("period", [2, 4])
@pytest.mark.parametrize("phase", [0, 1, 3])
def test_a_grid_is_found_in_every_phase(period: int, phase: int) -> None:
    torch.manual_seed(0)
    original = 0.5 + 0.002 * torch.randn(3, 320, 320)
    lines = torch.zeros(320)
    lines[phase::period] = 3 / 255
    picture = original + lines[:, None] + lines
    ours, own = flat_grid(picture, original, period)
    assert ours > 1 > 1 / 12 > own
    assert grid_peak(flat_patches(picture, original), period) > 15 > 4 > grid_peak(flat_patches(original, original), period)


def test_what_flat_patches_share_is_the_grid_and_not_the_grain():
    torch.manual_seed(0)
    original = 0.5 + 0.002 * torch.randn(3, 320, 320)
    grain, grid = 0.02 * torch.randn(1, 320, 320), torch.zeros(320)
    grid[::4] = 3 / 255
    assert shared_grid(original + grain, original) < 0.1 * flat_grid(original + grain, original)[0]
    assert shared_grid(original + grid, original) > 0.9 * flat_grid(original + grid, original)[0]


@pytest.mark.parametrize("model", ["srgan", "srgan-base"])
@torch.inference_mode()
def test_the_shipped_srgan_leaves_no_grid_and_no_tint(model: str) -> None:
    """A grid is what the flat places of a photograph have in common: under a tenth of a grey level. What each place has at
    the grid's frequencies is no more than in HR, but for the coffee, where SRGAN paints more grain than HR has; over the
    set it is less. Mean colours of the set are within a grey level."""
    generator, tints, energies = load_generator(model), [], []
    for name in DEMO_PHOTOS:
        hr = crop_to_multiple(read_image(demo_photo(name)), 4)
        sr = generator(downsample(hr)[None])[0].clamp(0, 1)
        tints.append((sr - hr).mean((1, 2)))
        for period in (2, 4):
            ours, own = flat_grid(sr, hr, period)
            energies.append((ours, own))
            assert period == 2 or name == "coffee" or ours <= own, name  # 4 finds the grids of period 2 too
            assert shared_grid(sr, hr, period) < 0.01, name
    assert sum(ours for ours, _ in energies) < sum(own for _, own in energies)
    assert torch.stack(tints).mean(0).abs().max() < 1 / 255
