"""The generator: its file format (names and shapes of weights), refusals, gradients, precisions, and its reach."""

import copy
import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from srgan_nb.bicubic import bicubic_kernel
from srgan_nb.errors import UserError
from srgan_nb.generator import GENERATOR_PRESETS, Generator, UpsampleBlock, receptive_field

SMALL = dict(channels=4, blocks=1, kernel_size=5)


def test_names_and_shapes_of_weights_stay():
    """Published weights are loaded by these names: a change here makes every file useless."""
    norm = {"weight": (4,), "bias": (4,), "running_mean": (4,), "running_var": (4,), "num_batches_tracked": ()}
    expected = {"head.0.weight": (4, 3, 5, 5), "head.0.bias": (4,), "head.1.weight": (1,),
                "blocks.0.conv1.weight": (4, 4, 3, 3), "blocks.0.activation.weight": (1,),
                "blocks.0.conv2.weight": (4, 4, 3, 3), "trunk.0.weight": (4, 4, 3, 3),
                "tail.weight": (3, 4, 5, 5), "tail.bias": (3,)}
    for block in ("upsample.0", "upsample.1"):
        expected |= {f"{block}.conv.weight": (16, 4, 3, 3), f"{block}.conv.bias": (16,),
                     f"{block}.activation.weight": (1,)}
    for layer, (name, shape) in itertools.product(("blocks.0.norm1", "blocks.0.norm2", "trunk.1"), norm.items()):
        expected[f"{layer}.{name}"] = shape
    assert {name: tuple(value.shape) for name, value in Generator(**SMALL).state_dict().items()} == expected


def test_without_batch_norm_convolutions_have_biases():
    names = set(Generator(**SMALL, batch_norm=False).state_dict())
    assert {"blocks.0.conv1.bias", "blocks.0.conv2.bias", "trunk.0.bias"} <= names
    assert not [name for name in names if "norm" in name or name.startswith("trunk.1")]


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_single_shuffle_has_one_wide_tail_and_no_weights_of_its_own(scale):
    expected = {name: tuple(value.shape) for name, value in Generator(scale, **SMALL).state_dict().items()
                if not name.startswith("upsample")}
    expected |= {"tail.weight": (3 * scale**2, 4, 5, 5), "tail.bias": (3 * scale**2,)}
    single = Generator(scale, **SMALL, single_shuffle=True)
    assert {name: tuple(value.shape) for name, value in single.state_dict().items()} == expected


@pytest.mark.parametrize("scale, bicubic_skip", list(itertools.product((2, 3, 4, 8), (False, True))))
def test_single_shuffle_is_the_network_built_by_hand(scale, bicubic_skip):
    torch.manual_seed(0)
    generator = Generator(scale, 4, 2, 3, batch_norm=False, bicubic_skip=bicubic_skip, single_shuffle=True)
    for parameter in generator.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    weights, lr = generator.state_dict(), torch.rand(2, 3, 6, 7)

    def convolution(x, name):
        return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)

    features = x = F.prelu(convolution(lr, "head.0"), weights["head.1.weight"])
    for block in ("blocks.0", "blocks.1"):
        inner = F.prelu(convolution(x, f"{block}.conv1"), weights[f"{block}.activation.weight"])
        x = x + convolution(inner, f"{block}.conv2")
    sr = F.pixel_shuffle(convolution(features + convolution(x, "trunk.0"), "tail"), scale) / 2
    sr = sr + (F.interpolate(lr, scale_factor=scale, mode="bicubic") if bicubic_skip else 0.5)
    assert torch.allclose(generator(lr), sr, atol=1e-5)


def test_counts_of_the_presets():
    counts = {preset: sum(p.numel() for p in Generator.from_preset(preset).parameters()) for preset in GENERATOR_PRESETS}
    assert counts == {"paper": 1_547_350, "base": 1_248_129, "lite": 245_981}


def test_every_doubling_costs_one_upsample_block():
    two, four, eight = (sum(p.numel() for p in Generator(scale).parameters()) for scale in (2, 4, 8))
    assert eight - four == four - two == sum(p.numel() for p in UpsampleBlock(64).parameters()) == 147_713


def test_only_batch_norm_in_training_mode_lets_a_picture_depend_on_its_neighbours():
    def change_by_company(generator):
        lr = torch.rand(1, 3, 12, 12)
        with torch.no_grad():
            return (generator(torch.cat([lr, 1 - lr]))[:1] - generator(lr)).abs().max().item()

    generator = Generator(**SMALL)
    assert change_by_company(generator.train()) > 0.01 and change_by_company(generator.eval()) < 1e-5
    assert change_by_company(Generator(**SMALL, batch_norm=False).train()) < 1e-5


def test_the_skip_is_pytorch_s_bicubic_whose_kernel_dips_deeper_than_matlab_s():
    impulse = torch.zeros(1, 3, 1, 9)
    impulse[..., 4] = 1
    distance = (torch.arange(9 * 4) + 0.5) / 4 - 0.5 - 4  # in LR pixels, from the bright one
    with torch.no_grad():
        row = Generator.from_preset("lite")(impulse.expand(-1, -1, 9, -1))[0, 0, 18]
    assert torch.allclose(row, bicubic_kernel(distance, a=-0.75), atol=1e-5)
    assert bicubic_kernel(distance, a=-0.75).min() < bicubic_kernel(distance).min() < 0


@pytest.mark.parametrize("settings", [dict(SMALL, scale=2), dict(SMALL, batch_norm=False, bicubic_skip=True),
                                      dict(SMALL, scale=8, single_shuffle=True)])
def test_settings_rebuild_the_same_network(settings):
    generator = Generator(**settings).eval()
    for parameter in generator.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    twin = Generator(**generator.settings).eval()
    twin.load_state_dict(generator.state_dict())
    lr = torch.rand(1, 3, 6, 7)
    assert torch.equal(twin(lr), generator(lr))


@pytest.mark.parametrize("wrong, word", [
    (lambda: Generator(scale=6), "2, 3, 4, 8"), (lambda: Generator(scale=1), "2, 3, 4, 8"),
    (lambda: Generator(kernel_size=4), "odd"), (lambda: Generator.from_preset("big"), "paper, base, lite"),
    (lambda: Generator(**SMALL)(torch.rand(3, 8, 8)), r"\(N, 3, H, W\)"),
    (lambda: Generator(**SMALL)(torch.rand(1, 4, 8, 8)), r"\(1, 4, 8, 8\)"),
    (lambda: Generator(scale=5, single_shuffle=True), "2, 3, 4, 8"),
    (lambda: Generator(**SMALL, single_shuffle=True)(torch.rand(1, 4, 8, 8)), r"\(1, 4, 8, 8\)")])
def test_wrong_arguments_are_refused_in_one_line(wrong, word):
    with pytest.raises(UserError, match=word) as error:
        wrong()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("preset", GENERATOR_PRESETS)
def test_every_parameter_learns_from_the_second_step_on(preset):
    torch.manual_seed(0)
    generator = Generator(**{**GENERATOR_PRESETS[preset], "channels": 8, "blocks": 2})
    lr, hr = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 32, 32)
    optimiser = torch.optim.Adam(generator.parameters(), 1e-3)
    for _ in range(2):
        optimiser.zero_grad()
        F.mse_loss(generator(lr), hr).backward()
        optimiser.step()
    silent = [name for name, parameter in generator.named_parameters() if parameter.grad.abs().max() == 0]
    assert not silent and all(parameter.grad.isfinite().all() for parameter in generator.parameters())


@pytest.mark.parametrize("scale, size", list(itertools.product((2, 3, 4, 8), ((1, 1), (5, 8)))))
def test_any_size_is_enlarged(scale, size):
    for skip, single in itertools.product((False, True), repeat=2):
        sr = Generator(scale, **SMALL, bicubic_skip=skip, single_shuffle=single).eval()(torch.rand(2, 3, *size))
        assert sr.shape == (2, 3, scale * size[0], scale * size[1])


def test_output_is_not_clamped():
    generator = Generator(**SMALL).eval()
    torch.nn.init.constant_(generator.tail.bias, 5.0)
    assert generator(torch.rand(1, 3, 8, 8)).mean() > 1.5


@pytest.mark.parametrize("single_shuffle", [False, True])
def test_precisions_and_memory_formats_agree(single_shuffle):
    torch.manual_seed(0)
    generator = Generator(**SMALL, bicubic_skip=True, single_shuffle=single_shuffle).eval()
    torch.nn.init.normal_(generator.tail.weight, std=0.05)
    lr = torch.rand(1, 3, 12, 12)
    with torch.no_grad():
        sr, double = generator(lr), copy.deepcopy(generator).double()(lr.double())
        channels_last = copy.deepcopy(generator).to(memory_format=torch.channels_last)(
            lr.to(memory_format=torch.channels_last))
        half = copy.deepcopy(generator).bfloat16()(lr.bfloat16())
    assert torch.allclose(sr, double.float(), atol=1e-5) and torch.allclose(sr, channels_last, atol=1e-5)
    assert half.dtype == torch.bfloat16 and torch.allclose(sr, half.float(), atol=0.05)


def reach_on_paper(scale, blocks, kernel_size):
    reach = kernel_size // 2
    for factor in {2: [2], 3: [3], 4: [2, 2], 8: [2, 2, 2]}[scale]:
        reach = math.ceil(reach / factor) + 1
    return reach + 1 + 2 * blocks + kernel_size // 2


@pytest.mark.parametrize("scale, blocks, kernel_size", list(itertools.product((2, 3, 4, 8), (0, 1, 3), (1, 3, 9))))
def test_measured_reach_is_the_derived_one(scale, blocks, kernel_size):
    for batch_norm, bicubic_skip in itertools.product((False, True), repeat=2):
        generator = Generator(scale, 4, blocks, kernel_size, batch_norm, bicubic_skip)
        assert receptive_field(generator) == reach_on_paper(scale, blocks, kernel_size)


@pytest.mark.parametrize("scale, blocks, kernel_size", list(itertools.product((2, 3, 4, 8), (0, 1, 3), (1, 3, 9))))
def test_with_a_single_shuffle_reach_is_the_sum_of_half_kernels(scale, blocks, kernel_size):
    derived = 2 * (kernel_size // 2) + 2 * blocks + 1
    for batch_norm, bicubic_skip in itertools.product((False, True), repeat=2):
        generator = Generator(scale, 4, blocks, kernel_size, batch_norm, bicubic_skip, single_shuffle=True)
        assert receptive_field(generator) == (max(derived, 2) if bicubic_skip else derived)  # bicubic sees 2 far


@pytest.mark.slow
def test_reach_of_the_presets():
    for preset, reach in (("paper", 40), ("lite", 27)):
        assert {receptive_field(Generator.from_preset(preset, scale)) for scale in (2, 3, 4, 8)} == {reach}


def test_measuring_the_reach_leaves_no_trace_and_needs_no_gradient_mode():
    generator = Generator(**SMALL).train()
    before, random_state = copy.deepcopy(generator.state_dict()), torch.get_rng_state()
    with torch.inference_mode():
        inside = receptive_field(generator)
    with torch.no_grad():
        assert receptive_field(generator) == inside == reach_on_paper(4, 1, 5)
    after = generator.state_dict()
    assert generator.training and all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(random_state, torch.get_rng_state()) and all(p.grad is None for p in generator.parameters())


@pytest.mark.parametrize("value", [0.0, -1.0, 1e6])
def test_reach_does_not_depend_on_the_weights(value):
    generator = Generator(**SMALL)
    for tensor in generator.state_dict().values():
        tensor.fill_(value if tensor.is_floating_point() else 1)
    for layer in generator.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_var.fill_(abs(value) + 1)
    assert receptive_field(generator) == reach_on_paper(4, 1, 5)


@pytest.mark.parametrize("scale, single_shuffle", list(itertools.product((2, 3, 4, 8), (False, True))))
def test_a_tile_with_that_halo_is_exact_and_with_one_pixel_less_is_not(scale, single_shuffle):
    torch.manual_seed(0)
    generator = Generator(scale, channels=4, blocks=2, kernel_size=3, batch_norm=False, bicubic_skip=True,
                          single_shuffle=single_shuffle).double()
    for parameter in generator.parameters():
        parameter.data.uniform_(0.5, 1).div_(parameter[0].numel())
    picture = torch.rand(1, 3, 36, 40, dtype=torch.float64)
    reach, top, left, size = receptive_field(generator), 15, 16, 5

    def error(halo):
        tile = generator(picture[..., top - halo:top + size + halo, left - halo:left + size + halo])
        inner = slice(scale * halo, scale * (halo + size))
        whole = generator(picture)[..., scale * top:scale * (top + size), scale * left:scale * (left + size)]
        return (tile[..., inner, inner] - whole).abs().max() / whole.abs().max()

    with torch.no_grad():
        assert error(reach) < 1e-14 and error(reach - 1) > 1e-9
