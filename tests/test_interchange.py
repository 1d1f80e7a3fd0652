"""Generators to other programs and from other people: files as those people write them, and files that attack."""

import math
import os
import pickle
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from srgan_nb.errors import UserError
from srgan_nb.generator import Generator
from srgan_nb.interchange import PublicGenerator, export_onnx, export_program, generator_of, load_public, read_weights
from srgan_nb.upscaling import Upscaler, upscale
from tests.conftest import ROOT
from tests.support.networks import stir

CHANNELS, BLOCKS = 8, 2


# A network with the names and the pickled classes of sgrvinod's tutorial: modules called models.SomeName.

THEIR_MODULE = types.ModuleType("models")


def theirs(kind: type) -> type:
    kind.__module__, kind.__qualname__ = "models", kind.__name__
    setattr(THEIR_MODULE, kind.__name__, kind)
    return kind


@theirs
class ConvolutionalBlock(nn.Module):
    def __init__(self, inputs, outputs, size, norm=False, activation=None):
        super().__init__()
        norms = [nn.BatchNorm2d(outputs)] if norm else []
        activations = [activation] if activation else []
        self.conv_block = nn.Sequential(nn.Conv2d(inputs, outputs, size, padding=size // 2), *norms, *activations)

    def forward(self, x):
        return self.conv_block(x)


@theirs
class ResidualBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv_block1 = ConvolutionalBlock(CHANNELS, CHANNELS, 3, True, nn.PReLU())
        self.conv_block2 = ConvolutionalBlock(CHANNELS, CHANNELS, 3, True)

    def forward(self, x):
        return x + self.conv_block2(self.conv_block1(x))


@theirs
class SubPixelConvolutionalBlock(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.conv = nn.Conv2d(CHANNELS, factor**2 * CHANNELS, 3, padding=1)
        self.pixel_shuffle = nn.PixelShuffle(factor)
        self.prelu = nn.PReLU()

    def forward(self, x):
        return self.prelu(self.pixel_shuffle(self.conv(x)))


@theirs
class SRResNet(nn.Module):
    def __init__(self, factors=(2, 2)):
        super().__init__()
        self.conv_block1 = ConvolutionalBlock(3, CHANNELS, 9, activation=nn.PReLU())
        self.residual_blocks = nn.Sequential(*(ResidualBlock() for _ in range(BLOCKS)))
        self.conv_block2 = ConvolutionalBlock(CHANNELS, CHANNELS, 3, True)
        self.subpixel_convolutional_blocks = nn.Sequential(*(SubPixelConvolutionalBlock(factor) for factor in factors))
        self.conv_block3 = ConvolutionalBlock(CHANNELS, 3, 9, activation=nn.Tanh())

    def forward(self, x):
        first = self.conv_block1(x)
        x = first + self.conv_block2(self.residual_blocks(first))
        return self.conv_block3(self.subpixel_convolutional_blocks(x))


@theirs
class Generator_(nn.Module):  # noqa: N801  called Generator in their file
    def __init__(self):
        super().__init__()
        self.net = SRResNet()

    def forward(self, x):
        return self.net(x)


def run_theirs(network: nn.Module, lr: torch.Tensor) -> torch.Tensor:
    "As their script does it: ImageNet's normalisation in, [-1, 1] out; here turned into [0, 1]."
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        return (network((lr - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)) + 1) / 2


LR = torch.rand(1, 3, 11, 14, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def their_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "models", THEIR_MODULE)


@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("kind", ["srresnet", "srgan"])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_whole_pickled_modules_are_read_without_their_classes(kind: str, new_format: bool, tmp_path: Path, their_module,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    network = stir(SRResNet() if kind == "srresnet" else Generator_())
    optimizer = torch.optim.Adam(network.parameters())
    network(LR).mean().backward()
    optimizer.step()  # so that the file holds the optimiser's state too
    content = {"epoch": 7, "model" if kind == "srresnet" else "generator": network, "optimizer": optimizer}
    torch.save(content, tmp_path / "checkpoint.pth.tar", _use_new_zipfile_serialization=new_format)
    monkeypatch.delitem(sys.modules, "models")
    loaded = load_public(tmp_path / "checkpoint.pth.tar")
    assert isinstance(loaded, PublicGenerator) and not loaded.training
    with torch.no_grad():
        assert torch.allclose(loaded(LR), run_theirs(network, LR), atol=1e-5)


@pytest.mark.parametrize("factors", [[2], [3], [2, 2], [2, 2, 2]])
def test_scale_is_read_off(factors: list[int]) -> None:
    network = stir(SRResNet(factors))
    loaded = generator_of(network.state_dict())
    assert loaded.scale == math.prod(factors)
    with torch.no_grad():
        assert torch.allclose(loaded(LR), run_theirs(network, LR), atol=1e-5)


OURS = stir(Generator(4, CHANNELS, BLOCKS, 9))


def lornatang_weights(prefix: str = "", block: str = "conv_block") -> dict[str, torch.Tensor]:
    "A state dict with Lornatang's names, made from a generator of ours."
    halves = {"conv1": "0", "norm1": "1", "activation": "2", "conv2": "3", "norm2": "4"}
    renamed = {}
    for name, value in OURS.state_dict().items():
        parts = name.split(".")
        if parts[0] == "head":
            layer = f"{block}1.{parts[1]}"
        elif parts[0] == "blocks":
            layer = f"trunk.{parts[1]}.rcb.{halves[parts[2]]}"
        elif parts[0] == "trunk":
            layer = f"{block}2.{parts[1]}"
        elif parts[0] == "upsample":
            layer = f"upsampling.{parts[1]}.upsample_block.{'0' if parts[2] == 'conv' else '2'}"
        else:
            layer = f"{block}3"
        renamed[f"{prefix}{layer}.{parts[-1]}"] = value
    return renamed


def lornatang_picture(lr: torch.Tensor) -> torch.Tensor:
    "What that network makes: its last convolution's numbers are the picture, without a turn from [-1, 1]."
    with torch.no_grad():
        return OURS(lr) * 2 - 1


@pytest.mark.parametrize("block", ["conv_block", "conv"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_lornatang_s_names_and_range(prefix: str, block: str, tmp_path: Path) -> None:
    content = {"epoch": 1, "best_psnr": np.float64(3), "state_dict": lornatang_weights(prefix, block), "optimizer": {}}
    torch.save(content, tmp_path / "g_best.pth.tar")
    loaded = load_public(tmp_path / "g_best.pth.tar")
    assert isinstance(loaded, Generator)
    with torch.no_grad():
        assert torch.allclose(loaded(LR), lornatang_picture(LR), atol=1e-5)


def test_bare_and_safetensors_files(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    torch.save(lornatang_weights(), tmp_path / "bare.pth")
    save_file(lornatang_weights(), tmp_path / "bare.safetensors")
    torch.save(lornatang_weights(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    first = read_weights(tmp_path / "bare.pth")
    for name in ("bare.safetensors", "old.pth"):
        other = read_weights(tmp_path / name)
        assert other.keys() == first.keys() and all(torch.equal(other[key], first[key]) for key in first)


def test_public_generators_go_through_tiles() -> None:
    network = stir(SRResNet())
    loaded = generator_of(network.state_dict())
    lr = torch.rand(1, 3, 60, 50)
    expected = run_theirs(network, lr).clamp(0, 1)
    tiled = Upscaler(loaded, device="cpu", max_memory=62_500_000)(lr)
    assert (tiled - expected).abs().max() < 1e-5
    assert upscale(np.zeros((5, 6, 4), np.uint8), loaded).shape == (20, 24, 4)


REFUSED = {
    "another network": ({"layer1.0.weight": torch.zeros(3), "fc.bias": torch.zeros(2)}, "no layers called layer1.0.weight"),
    "nothing": ({}, "no layers called anything"),
    "one key too many": ({**lornatang_weights(), "extra.weight": torch.zeros(1)}, "no layers called extra.weight"),
    "a layer missing": ({name: value for name, value in lornatang_weights().items() if "conv_block3" not in name},
                        "tail.bias first: wanted .* found nothing"),
    "no head": ({name: value for name, value in lornatang_weights().items() if "conv_block1" not in name},
                "no first convolution"),
    "a slope a channel": ({**lornatang_weights(), "conv_block1.1.weight": torch.zeros(8)}, "head.1.weight first"),
    "scale 6": ({**lornatang_weights(), "upsampling.0.upsample_block.0.weight": torch.zeros(72, 8, 3, 3)},
                "scale is 6: choose 2, 3, 4, 8"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_named(name: str) -> None:
    weights, reason = REFUSED[name]
    with pytest.raises(UserError, match=reason) as raised:
        generator_of(weights)
    assert "\n" not in str(raised.value)


class Attack:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("new_format", [True, False])
def test_attacks_are_read_and_not_obeyed(new_format: bool, tmp_path: Path) -> None:
    import builtins

    target = tmp_path / "harmed"
    attacks = [Attack(os.mkdir, str(target)), Attack(os.system, f"mkdir {target}"),
               Attack(builtins.exec, f"import os; os.mkdir({str(target)!r})"),
               Attack(subprocess.check_call, ["mkdir", str(target)]),
               Attack(getattr, "text", "upper")]
    for index, attack in enumerate(attacks):
        path = tmp_path / f"{index}.pth"
        content = {"state_dict": {**lornatang_weights(), "x": attack}}
        torch.save(content, path, _use_new_zipfile_serialization=new_format)
        load_public(path)  # the weights are whole, the attack is an inert thing beside them
    assert not target.exists()
    pickle.loads(pickle.dumps(attacks[0]))
    assert target.exists()  # it was no dud


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\3\4 no zip", pickle.dumps([1, 2, 3])])
def test_files_that_are_no_checkpoints(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file.pth").write_bytes(content)
    with pytest.raises(UserError, match="not a checkpoint|no weights") as raised:
        load_public(tmp_path / "file.pth")
    assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match="no such file"):
        load_public(tmp_path / "missing.pth")


# ---------------------------------------------------------------------------------------------------------------------
# Out

@pytest.mark.parametrize(("preset", "scale"), [("lite", 4), ("paper", 4), ("paper", 3)])
def test_onnx_gives_torch_s_numbers_at_three_sizes(preset: str, scale: int, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    generator = stir(Generator.from_preset(preset, scale))
    export_onnx(generator, tmp_path / "g.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "g.onnx", providers=["CPUExecutionProvider"])
    for size in ((1, 3, 24, 24), (2, 3, 17, 9), (1, 3, 1, 31)):
        lr = torch.rand(size)
        (sr,) = session.run(None, {"lr": lr.numpy()})
        with torch.no_grad():
            assert np.abs(sr - generator(lr).numpy()).max() < 1e-4


@pytest.mark.parametrize("export", [export_onnx, export_program])
def test_a_name_is_no_network_to_export(export, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a network is needed, not 'srgan': load_generator"):
        export("srgan", tmp_path / "g")


def test_onnx_without_the_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match="pip install onnx"):
        export_onnx(Generator.from_preset("lite"), tmp_path / "g.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_exported_program_needs_no_srgan_nb(tmp_path: Path) -> None:
    generator = stir(Generator(4, CHANNELS, 1, 3, bicubic_skip=True))
    export_program(generator, tmp_path / "g.pt2")
    lr = torch.rand(1, 3, 7, 9)
    with torch.no_grad():
        torch.save((lr, generator(lr)), tmp_path / "pair.pt")
    code = ("import sys, torch; sys.modules['srgan_nb'] = None\n"
            "lr, sr = torch.load('pair.pt'); made = torch.export.load('g.pt2').module()(lr)\n"
            "assert (made - sr).abs().max() < 1e-5")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


@pytest.mark.slow
def test_a_program_s_name_is_the_one_that_was_asked_for(tmp_path: Path) -> None:
    generator = Generator(4, CHANNELS, 1, 3)
    assert export_program(generator, tmp_path / "my.model.v1") == tmp_path / "my.model.v1.pt2"
    assert export_program(generator, tmp_path / "mine.pt2") == tmp_path / "mine.pt2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.pt2", "my.model.v1.pt2"]


@pytest.mark.slow
def test_a_compiled_generator_is_exported_as_the_one_inside(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    generator = stir(Generator(4, CHANNELS, 1, 3))
    for name, network in (("plain", generator), ("compiled", torch.compile(generator))):
        export_onnx(network, tmp_path / f"{name}.onnx")
        export_program(network, tmp_path / f"{name}.pt2")
    assert (tmp_path / "plain.onnx").read_bytes() == (tmp_path / "compiled.onnx").read_bytes()
    lr = torch.rand(1, 3, 7, 9)
    plain, compiled = (torch.export.load(tmp_path / f"{name}.pt2").module()(lr) for name in ("plain", "compiled"))
    assert torch.equal(plain, compiled)


@pytest.mark.slow
def test_interchange_is_light() -> None:
    "Importing it pulls in neither onnx nor a runtime."
    code = "import sys, srgan_nb.interchange; assert not {'onnx', 'onnxruntime', 'ipywidgets'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)

