"""Muon: what it does to filters and to everything else, in every layout, on every device."""

import copy

import pytest
import torch
from torch import nn

from srgan_nb.checkpoints import load_optimizer
from srgan_nb.stages import Muon, orthogonalize

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(32, 288), (288, 32), (3, 5, 7), (1, 9), (2, 2, 48, 27)])
def test_singular_values_come_near_one(shape: tuple[int, ...], device: str) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(shape, device=device)
    before, after = torch.linalg.svdvals(matrices), torch.linalg.svdvals(orthogonalize(matrices))
    lifted = after[before > 0.01 * before.norm(dim=-1, keepdim=True)]
    assert lifted.min() > 0.65 and lifted.max() < 1.25


def test_its_size_does_not_matter() -> None:
    matrix = torch.randn(8, 20, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(orthogonalize(1e6 * matrix), orthogonalize(matrix), rtol=1e-3, atol=1e-4)
    assert torch.equal(orthogonalize(torch.zeros(4, 3)), torch.zeros(4, 3))


def learners(device: str, layout: torch.memory_format) -> tuple[nn.Module, Muon]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.PReLU(), nn.BatchNorm2d(8), nn.Conv2d(8, 3, 1, bias=False))
    network.to(device, memory_format=layout)
    return network, Muon(network.parameters(), lr=1e-2)


def learn(network: nn.Module, optimizer: Muon, steps: int, seed: int) -> None:
    numbers = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        pictures = torch.randn(2, 3, 9, 9, generator=numbers).to(next(network.parameters()).device)
        optimizer.zero_grad()
        (network(pictures) - pictures[..., 1:-1, 1:-1]).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_goes_on_from_its_state_bit_for_bit(device: str, layout: torch.memory_format) -> None:
    network, optimizer = learners(device, layout)
    learn(network, optimizer, 3, seed=1)
    other, other_optimizer = learners(device, layout)
    other.load_state_dict(network.state_dict())
    load_optimizer(other_optimizer, copy.deepcopy(optimizer.state_dict()))  # torch would share the step
    for pair in ((network, optimizer), (other, other_optimizer)):
        learn(*pair, 3, seed=2)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))


def test_a_weight_without_a_gradient_stays() -> None:
    network, optimizer = learners("cpu", torch.contiguous_format)
    network[0].requires_grad_(False)
    before = [weight.clone() for weight in network.parameters()]
    learn(network, optimizer, 2, seed=1)
    moved = [not torch.equal(weight, old) for weight, old in zip(network.parameters(), before, strict=True)]
    assert moved == [False, False, True, True, True, True]


def test_it_learns() -> None:
    network, optimizer = learners("cpu", torch.contiguous_format)
    picture = torch.randn(4, 3, 9, 9, generator=torch.Generator().manual_seed(3))

    def loss() -> float:
        with torch.no_grad():
            return (network(picture) - picture[..., 1:-1, 1:-1]).square().mean().item()

    before = loss()
    learn(network, optimizer, 60, seed=4)
    assert loss() < 0.5 * before
