"""Exact tiles: the presets in small memory, devices that refuse, plans that are the best there are."""

import itertools
import math

import pytest
import torch

from srgan_nb.errors import UserError
from srgan_nb.generator import Generator, receptive_field
from srgan_nb.tiles import FastGenerator, enlarge_in_tiles, fold_batch_norm, plan_windows, window_size, windows
from tests.support.networks import stir


def lively(**settings) -> Generator:
    "A generator in which no layer is trivial."
    torch.manual_seed(0)
    generator = stir(Generator(**settings))
    torch.nn.init.normal_(generator.tail.weight, 0, 0.05)
    return generator


@pytest.mark.slow
@pytest.mark.parametrize("scale", [3, 4])
@pytest.mark.parametrize("preset", ["lite", "paper"])
def test_presets_in_little_memory_give_the_whole_picture(preset: str, scale: int) -> None:
    generator = lively(**Generator.from_preset(preset, scale).settings)
    fast, lr = FastGenerator(generator), torch.randint(0, 256, (1, 3, 40, 96), dtype=torch.uint8)
    reach = receptive_field(generator)  # the bicubic skip of "lite" looks one pixel further than its last convolution
    assert fast.features_reach + fast.enlarge_reach == reach + (preset == "lite")
    memory = 4 * 40 * 90 * (fast.features_floats + 6)  # not quite the whole picture
    assert plan_windows(fast, 40, 96, memory).features != (40, 96)
    with torch.no_grad():
        whole = generator(lr / 255).clamp(0, 1)
    floats = enlarge_in_tiles(fast, lr / 255, memory)
    assert (floats - whole).abs().max() < 1e-5
    tiled = enlarge_in_tiles(fast, lr, memory)
    exact = 255 * whole
    assert ((tiled - exact).abs() <= 0.5 + 1e-3).all()  # the nearest byte, or the other one of a tie
    assert (tiled != exact.round()).float().mean() < 2e-4


def test_folding_leaves_the_original_alone_and_keeps_its_settings() -> None:
    generator = lively(channels=8, blocks=2, scale=2)
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    folded = fold_batch_norm(generator)
    FastGenerator(generator)
    assert all(torch.equal(before[name], value) for name, value in generator.state_dict().items())
    assert folded.settings == {**generator.settings, "batch_norm": False} and not folded.training


def test_batch_norm_that_is_synchronized_is_folded_too() -> None:
    generator = stir(Generator(channels=4, blocks=1, batch_norm=True)).eval()
    lr = torch.rand(1, 3, 6, 7)
    expected = generator(lr)
    synchronized = torch.nn.SyncBatchNorm.convert_sync_batchnorm(generator)
    assert torch.allclose(fold_batch_norm(synchronized)(lr), expected, atol=1e-5)


def test_window_size_is_the_best_of_all() -> None:
    "Against every count of rows and columns, on small pictures."
    def work(height, width, tall, wide, reach):
        return len(windows(height, tall, reach)) * len(windows(width, wide, reach)) * tall * wide

    for height, width, reach, pixels in itertools.product((5, 17, 40), (8, 33), (1, 3), (60, 150, 400)):
        tall, wide = window_size(height, width, reach, pixels)
        assert tall * wide <= pixels and tall <= height and wide <= width
        least = min(height, 2 * reach + 1), min(width, 2 * reach + 1)
        others = [work(height, width, a, b, reach) for a in range(least[0], height + 1)
                  for b in range(least[1], width + 1) if a * b <= pixels]
        assert work(height, width, tall, wide, reach) == min(others)


def test_plans_stay_within_memory() -> None:
    fast = FastGenerator(Generator.from_preset("paper"))
    for memory, size in itertools.product((1e8, 3e8, 1e9), ((300, 500), (1000, 1500), (4000, 3000))):
        plan = plan_windows(fast, *size, memory)
        assert 4 * math.prod(plan.features) * fast.features_floats <= memory
        assert 4 * math.prod(plan.enlarge) * fast.enlarge_floats <= memory
    with pytest.raises(UserError, match="too little memory"):
        plan_windows(fast, 1000, 1000, 5e6)


def test_batches_are_split_where_memory_asks_for_it() -> None:
    generator = lively(channels=8, blocks=1, kernel_size=3)
    fast, lr = FastGenerator(generator), torch.rand(7, 3, 12, 10)
    memory = 2.5 * 4 * 120 * (fast.features_floats + fast.enlarge_floats)
    assert plan_windows(fast, 12, 10, memory).batch == 2
    told = []
    with torch.no_grad():
        assert (enlarge_in_tiles(fast, lr, memory, progress=told.append) - generator(lr).clamp(0, 1)).abs().max() < 1e-5
    assert sum(told) == 7 * 16 * 120 and len(told) == 4


@pytest.mark.parametrize("message", ["CUDA out of memory", "DefaultCPUAllocator: can't allocate memory"])
def test_refused_memory_halves_the_tiles(message: str) -> None:
    class Grudging(FastGenerator):
        asked = []

        def features(self, lr):
            self.asked.append(lr[0, 0].numel())
            if self.asked[-1] > 800:
                raise RuntimeError(message)
            return super().features(lr)

    generator, lr = lively(channels=8, blocks=1, kernel_size=3), torch.rand(1, 3, 40, 37)
    grudging = Grudging(generator)
    with torch.no_grad():
        assert (enlarge_in_tiles(grudging, lr) - generator(lr).clamp(0, 1)).abs().max() < 1e-5
    assert max(grudging.asked) == 40 * 37 and grudging.asked[-1] <= 800


def test_other_errors_are_not_swallowed_and_nothing_left_ends_clearly() -> None:
    class Broken(FastGenerator):
        message = "something else"

        def features(self, lr):
            raise RuntimeError(self.message)

    broken = Broken(lively(channels=8, blocks=1, kernel_size=3))
    with pytest.raises(RuntimeError, match="something else"):
        enlarge_in_tiles(broken, torch.rand(1, 3, 9, 9))
    broken.message = "out of memory"
    with pytest.raises(UserError, match="too little memory"):
        enlarge_in_tiles(broken, torch.rand(1, 3, 9, 9))


def test_inputs_are_not_changed() -> None:
    fast = FastGenerator(lively(channels=8, blocks=1, kernel_size=3, bicubic_skip=True))
    for lr in (torch.rand(1, 3, 9, 9), torch.randint(0, 256, (1, 1, 9, 9), dtype=torch.uint8)):
        before = lr.clone()
        enlarge_in_tiles(fast, lr)
        assert torch.equal(lr, before)


@pytest.mark.cuda
def test_on_cuda() -> None:
    generator, lr = lively(channels=16, blocks=2), torch.rand(1, 3, 120, 90)
    with torch.no_grad():
        whole = generator(lr).clamp(0, 1)
    fast = FastGenerator(generator).cuda()
    memory = 4 * 60 * 60 * fast.features_floats
    assert (enlarge_in_tiles(fast, lr, memory, "cuda") - whole).abs().max() < 1e-2  # TF32 convolutions
    half = enlarge_in_tiles(fast.half(), lr, memory, "cuda", torch.float16)
    assert half.dtype == torch.float32 and (half - whole).abs().max() < 2e-2
