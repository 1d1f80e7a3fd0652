"""What the residual notebook can't hold: names in checkpoints, precision and memory layout."""

import pytest
import torch

from srgan_nb.generator import ResidualBlock


def test_names_in_checkpoints():
    with_norm = {"conv1.weight", "conv2.weight", "activation.weight"} | {
        f"norm{i}.{name}" for i in (1, 2) for name in ("weight", "bias", "running_mean", "running_var",
                                                       "num_batches_tracked")}
    without = {"conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias", "activation.weight"}
    assert set(ResidualBlock(4).state_dict()) == with_norm
    assert set(ResidualBlock(4, batch_norm=False).state_dict()) == without


@pytest.mark.parametrize("batch_norm", [True, False])
def test_channels_last_gives_the_same_numbers_in_the_same_layout(batch_norm):
    block, x = ResidualBlock(8, batch_norm).eval(), torch.randn(2, 8, 9, 7)
    expected = block(x)
    last = block.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(last, expected, atol=1e-5)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_every_parameter_gets_a_gradient_also_in_bfloat16(batch_norm):
    block, x = ResidualBlock(8, batch_norm), torch.randn(2, 8, 9, 7)
    with torch.autocast("cpu", torch.bfloat16):
        loss = (block(x) * torch.randn(2, 8, 9, 7)).sum()
    loss.backward()
    for name, parameter in block.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.abs().sum() > 0, name
