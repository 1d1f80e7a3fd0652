"""What the notebooks on losses can't hold: damaged weight files, the download that fails, real weights, gradients."""
import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from srgan_nb.discriminator import PatchDiscriminator
from srgan_nb.errors import UserError
from srgan_nb.losses import (
    VGG_ENDS,
    DiscriminatorContentLoss,
    PerceptualLoss,
    PixelLoss,
    VGGContentLoss,
    adversarial_loss,
    content_loss,
    discriminator_loss,
    find_vgg_weights,
    frozen,
    gradient_norms,
    gradient_penalty,
    vgg_layers,
)
from srgan_nb.stages import verdicts

SHARED = Path(os.environ.get("SRGAN_NB_SHARED", ""), "weights", "vgg19_conv3_1.pth")


def vgg22_state() -> dict:
    return {f"features.{name}": value for name, value in VGGContentLoss("VGG22", None).features.state_dict().items()}


# weights from files

@pytest.mark.parametrize("kind", ["pth", "safetensors", "half"])
def test_a_file_with_just_the_layers_needed_is_enough(tmp_path, kind):
    state = vgg22_state()
    if kind == "safetensors":
        from safetensors.torch import save_file
        save_file(state, file := tmp_path / "vgg.safetensors")
    else:
        stored = {name: value.half() for name, value in state.items()} if kind == "half" else state
        torch.save(stored, file := tmp_path / "vgg.pth")
    loss = VGGContentLoss("VGG22", file)
    for name, value in loss.features.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, state[f"features.{name}"], rtol=1e-3, atol=1e-4)
    assert file.name in loss.describe()


def test_unused_parameters_are_no_obstacle_and_are_not_kept(tmp_path):
    torch.save(vgg22_state() | {"classifier.0.weight": torch.zeros(3), "features.10.bias": torch.zeros(256)},
               tmp_path / "vgg.pth")
    assert len(VGGContentLoss("VGG22", tmp_path / "vgg.pth").features.state_dict()) == 8


class Evil:
    def __reduce__(self):
        return os.system, ("touch EVIL",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("fault", ["missing", "folder", "empty", "truncated", "text", "pickle", "list", "shape",
                                   "lacking"])
def test_files_that_will_not_do_are_named_in_one_line(tmp_path, monkeypatch, fault):
    monkeypatch.chdir(tmp_path)
    file, state = tmp_path / "vgg.pth", vgg22_state()
    if fault == "folder":
        file.mkdir()
    elif fault == "empty":
        file.touch()
    elif fault == "truncated":
        torch.save(state, file)
        file.write_bytes(file.read_bytes()[:1000])
    elif fault == "text":
        file.write_text("<html>404</html>")
    elif fault == "pickle":
        file.write_bytes(pickle.dumps({"features.0.weight": Evil()}))
    elif fault == "list":
        torch.save([1, 2], file)
    elif fault == "shape":
        torch.save(state | {"features.0.weight": torch.zeros(64, 1, 3, 3)}, file)
    elif fault == "lacking":
        del state["features.7.bias"]
        torch.save(state, file)
    with pytest.raises(UserError, match="vgg.pth") as raised:
        VGGContentLoss("VGG22", file)
    assert "\n" not in str(raised.value)
    assert not Path("EVIL").exists()


# ImageNet's weights

def test_no_network_says_which_file_to_put_where(tmp_path, monkeypatch):
    def no_network(*arguments, **options):
        raise OSError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(UserError, match="put https://.*vgg19-dcbb9e9d.pth at ") as raised:
        VGGContentLoss("VGG54", "imagenet")
    assert str(tmp_path) in str(raised.value) and "\n" not in str(raised.value)


def test_a_cached_file_is_used_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delattr(torch.hub, "download_url_to_file")
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(vgg22_state(), cache / "vgg19-dcbb9e9d.pth", _use_new_zipfile_serialization=False)  # as torchvision's is
    loss = VGGContentLoss("VGG22")
    assert "weights imagenet" in loss.describe()


def test_a_download_goes_to_the_cache_and_its_hash_is_checked(tmp_path, monkeypatch):
    def download(url, file, hash_prefix=None, progress=True):
        assert hash_prefix == "dcbb9e9d"
        torch.save(vgg22_state(), file)

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    VGGContentLoss("VGG22", "imagenet")
    assert (tmp_path / "hub" / "checkpoints" / "vgg19-dcbb9e9d.pth").exists()


# what the machine was told

@pytest.mark.parametrize("network, variable", [("VGG19", "SRGAN_NB_VGG"), ("VGG16", "SRGAN_NB_VGG16")])
def test_find_vgg_weights(tmp_path, monkeypatch, network, variable):
    monkeypatch.delenv(variable, raising=False)
    assert find_vgg_weights(network) is None
    monkeypatch.setenv(variable, str(tmp_path / "mine.pth"))
    with pytest.raises(UserError, match=f"{variable} names"):
        find_vgg_weights(network)
    (tmp_path / "mine.pth").touch()
    assert find_vgg_weights(network) == tmp_path / "mine.pth"


# names and shapes

@pytest.mark.parametrize("name", ["VGG", "VGG06", "VGG13", "VGG55", "VGG222", "vgg22", "mse", "L2"])
def test_names_that_do_not_exist(name):
    with pytest.raises(UserError, match="choose"):
        content_loss(name, None)


def test_pools_and_kinds_that_do_not_exist():
    with pytest.raises(UserError, match="max or avg"):
        VGGContentLoss("VGG22", None, pool="min")
    with pytest.raises(UserError, match="mse or l1"):
        PixelLoss("MSE")


@pytest.mark.parametrize("name", ["MSE", "L1", "VGG22"])
def test_shapes_that_would_broadcast_are_refused(name):
    with pytest.raises(ValueError, match="must be equal"):
        content_loss(name, None)(torch.rand(2, 3, 16, 16), torch.rand(1, 3, 16, 16))


@pytest.mark.parametrize("name", ["MSE", "L1", "VGG12", "VGG22", "VGG54"])
def test_zero_for_equal_pictures_and_linear_in_the_scale(name):
    sr, hr = torch.rand(2, 1, 3, 32, 32).unbind()
    assert content_loss(name, None)(hr, hr) == 0
    torch.testing.assert_close(content_loss(name, None, scale=0.25)(sr, hr), content_loss(name, None)(sr, hr) / 4)


def test_the_inputs_are_left_as_they_were():
    sr, hr = torch.rand(2, 1, 3, 32, 32).unbind()
    before = sr.clone(), hr.clone()
    content_loss("VGG22", None)(sr, hr)  # torchvision's ReLUs work in place
    assert torch.equal(sr, before[0]) and torch.equal(hr, before[1])


# gradients

@pytest.mark.parametrize("name", ["MSE", "L1", "VGG22", "VGG54"])
@pytest.mark.parametrize("pool", ["max", "avg"])
def test_gradient_reaches_sr_and_nothing_else(name, pool):
    sr, hr = torch.rand(1, 3, 32, 32, requires_grad=True), torch.rand(1, 3, 32, 32, requires_grad=True)
    loss = content_loss(name, None, pool=pool)
    loss(sr, hr).backward()
    assert sr.grad.isfinite().all() and sr.grad.norm() > 0
    assert all(parameter.grad is None for parameter in loss.parameters())
    assert hr.grad is None or not name.startswith("VGG")
    assert not any(parameter.requires_grad for parameter in loss.parameters())


def test_gradient_of_vgg22_agrees_with_finite_differences():
    torch.manual_seed(0)
    loss = VGGContentLoss("VGG22", None).double()
    sr, hr = torch.rand(2, 1, 3, 8, 8, dtype=torch.float64).unbind()
    gradient, = torch.autograd.grad(loss(sr.requires_grad_(), hr), sr)
    direction = torch.randn_like(sr)
    step = 1e-7
    with torch.no_grad():
        slope = (loss(sr + step * direction, hr) - loss(sr - step * direction, hr)) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-4, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_adversarial_losses_stay_finite_for_logits_that_are_sure(dtype):
    logits = torch.tensor([-60000.0, -200.0, 0.0, 200.0, 60000.0], dtype=dtype, requires_grad=True)
    loss = adversarial_loss(logits) + discriminator_loss(logits, logits)
    loss.backward()
    assert loss.dtype == torch.float32 and loss.isfinite() and logits.grad.isfinite().all()


def test_gradient_norms_keep_the_graph_and_touch_no_grad():
    layer = nn.Linear(4, 1)
    output = layer(torch.rand(8, 4)).mean()
    terms = {"whole": output, "half": output / 2, "constant": torch.tensor(1.0),
             "elsewhere": torch.ones(1, requires_grad=True).sum()}
    norms = gradient_norms(terms, layer.weight)
    assert norms["half"] == pytest.approx(norms["whole"] / 2) and norms["constant"] == norms["elsewhere"] == 0
    assert layer.weight.grad is None
    output.backward()
    assert layer.weight.grad.norm().item() == pytest.approx(norms["whole"])


def test_frozen_gives_back_each_flag_even_after_an_error():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    network[0].requires_grad_(False)
    with pytest.raises(RuntimeError), frozen(network):
        assert not any(parameter.requires_grad for parameter in network.parameters())
        raise RuntimeError
    assert [parameter.requires_grad for parameter in network.parameters()] == [False, False, True, True]


def test_perceptual_loss_is_the_sum_of_its_terms():
    sr, hr, logits = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16), torch.randn(2, 1)
    total, terms = PerceptualLoss(content_loss("MSE", scale=3), adversarial_weight=0.5)(sr, hr, logits)
    torch.testing.assert_close(terms["content"], 12 * nn.functional.mse_loss(sr, hr))
    torch.testing.assert_close(terms["adversarial"], -0.5 * torch.sigmoid(logits).log().mean())
    assert torch.equal(total, terms["content"] + terms["adversarial"])


@pytest.mark.parametrize("relativistic", ["average", "paired"])
def test_a_relativistic_loss_compares_with_the_others_and_asks_for_both_logits(relativistic):
    sr, hr, fake, real = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16), torch.randn(2, 1, 2, 2), torch.randn(2, 1, 2, 2)
    perceptual = PerceptualLoss(content_loss("MSE"), adversarial_weight=0.5, relativistic=relativistic)
    terms = perceptual(sr, hr, fake, real)[1]
    others = {"average": (real.mean(), fake.mean()), "paired": (real, fake)}[relativistic]  # what SR, and HR, is compared with
    more_real = -torch.sigmoid(fake - others[0]).log().mean()
    less_real = -(1 - torch.sigmoid(real - others[1])).log().mean()
    torch.testing.assert_close(terms["adversarial"], 0.5 * (more_real + less_real))
    expected = -torch.sigmoid(real - others[1]).log().mean() - (1 - torch.sigmoid(fake - others[0])).log().mean()
    torch.testing.assert_close(discriminator_loss(real, fake, relativistic), expected)
    torch.testing.assert_close(verdicts(real, fake, relativistic)["real"], torch.sigmoid(real - others[1]).mean())
    torch.testing.assert_close(verdicts(real, fake, relativistic)["fake"], torch.sigmoid(fake - others[0]).mean())
    for loss, logits in ((perceptual, (fake,)), (PerceptualLoss(content_loss("MSE")), (fake, real))):
        with pytest.raises(ValueError, match="real_logits"):
            loss(sr, hr, *logits)


def test_a_paired_loss_has_no_use_for_what_is_the_same_in_both_pictures_and_none_for_the_rest_of_the_batch():
    content, difference = 5 * torch.randn(4, 1, 3, 3), torch.randn(4, 1, 3, 3)  # how real this place looks in either; SR less HR
    paired = discriminator_loss(content, content + difference, "paired")
    torch.testing.assert_close(paired, discriminator_loss(torch.zeros(4, 1, 3, 3), difference, "paired"))
    parts = [discriminator_loss(content[i:i + 1], (content + difference)[i:i + 1], "paired") for i in range(4)]
    torch.testing.assert_close(paired, torch.stack(parts).mean())
    assert not torch.isclose(discriminator_loss(content, content + difference, "average"), paired, rtol=0.01)


def test_an_unknown_comparison_is_refused_by_name():
    with pytest.raises(UserError, match="no relativistic loss 'mean': choose average, paired"):
        discriminator_loss(torch.zeros(2, 1), torch.zeros(2, 1), "mean")


def test_gradient_penalty_flattens_the_discriminator_and_leaves_the_photos_alone():
    torch.manual_seed(0)
    judge = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(4 * 6 * 6, 1))
    photos, optimizer = torch.rand(4, 3, 8, 8), torch.optim.SGD(judge.parameters(), lr=0.1)
    penalties = []
    for _ in range(20):
        optimizer.zero_grad()
        penalties.append(gradient_penalty(judge, photos))
        penalties[-1].backward()
        optimizer.step()
    assert penalties[-1] < 0.5 * penalties[0] and photos.grad is None and not photos.requires_grad


def test_gradient_penalty_is_a_mean_over_the_photos_that_are_judged():
    torch.manual_seed(0)
    judge = nn.Conv2d(3, 1, 3)
    photos = torch.rand(4, 3, 8, 8)

    def half_of_them(images):
        return judge(images[:2])

    assert torch.isclose(gradient_penalty(half_of_them, photos), gradient_penalty(judge, photos[:2]))


def test_several_vgg_layers_are_the_mean_of_each_alone():
    sr, hr = torch.rand(1, 3, 32, 32, requires_grad=True), torch.rand(1, 3, 32, 32)
    both, *alone = (content_loss(name, None, scale=2)(sr, hr) for name in ("VGG31+VGG22", "VGG22", "VGG31"))
    torch.testing.assert_close(both, sum(alone) / 2)
    assert "relu3_1 and relu2_2" in content_loss("VGG31+VGG22", None).describe()
    with pytest.raises(UserError, match="VGG99"):
        content_loss("VGG22+VGG99", None)


def test_random_weights_are_always_the_same_and_leave_the_global_generator_alone():
    torch.manual_seed(5)
    first = VGGContentLoss("VGG22", None).features.state_dict()
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))
    second = VGGContentLoss("VGG22", None).features.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_relative_loss_has_no_unit_and_a_share_looks_at_the_first_pictures():
    sr, hr = torch.rand(2, 4, 3, 32, 32).unbind()
    relative = VGGContentLoss("VGG22+VGG53", None, network="VGG16", relative=True)
    expected = sum((found - target).square().mean() / target.square().mean()
                   for found, target in zip(relative.feature_maps(sr), relative.feature_maps(hr), strict=True)) / 2
    torch.testing.assert_close(relative(sr, hr), expected)
    half = VGGContentLoss("VGG22+VGG53", None, network="VGG16", relative=True, share=0.5)
    torch.testing.assert_close(half(sr, hr), relative(sr[:2], hr[:2]))
    assert "0.5 of each batch" in half.describe() and "relu5_3 of VGG16" in half.describe()


@pytest.mark.parametrize("network, layer", [("VGG16", "VGG54"), ("VGG19", "VGG55"), ("VGG13", "VGG22")])
def test_a_layer_that_the_network_lacks_is_refused(network, layer):
    with pytest.raises(UserError, match=f"{network}"):
        VGGContentLoss(layer, None, network=network)


@pytest.mark.parametrize("network", ["VGG16", "VGG19"])
def test_layers_are_those_of_torchvision(network):
    from torchvision.models import vgg16, vgg19
    with torch.device("meta"):
        whole = {"VGG16": vgg16, "VGG19": vgg19}[network]().features
    for layer in VGG_ENDS[network]:
        layers = vgg_layers(layer, network=network)
        assert str(layers) == str(whole[:len(layers)]) and isinstance(layers[-1], nn.ReLU)
    assert len(layers) == len(whole) - 1  # the last pool


def test_the_pixel_term_is_a_third_one():
    sr, hr, logits = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16), torch.randn(2, 1)
    perceptual = PerceptualLoss(content_loss("MSE"), pixel_weight=0.25)
    total, terms = perceptual(sr, hr, logits)
    torch.testing.assert_close(terms["pixel"], 0.5 * (sr - hr).abs().mean())  # on [-1, 1] a difference is twice as large
    torch.testing.assert_close(total, sum(terms.values()))
    assert "L1 of pixels" in perceptual.describe()


def test_the_layers_of_the_discriminator_compare():
    "Nothing for equal pictures, the same at any strength of a layer, and gradient for SR alone."
    discriminator = PatchDiscriminator(channels=4).eval().requires_grad_(False)
    loss = DiscriminatorContentLoss(discriminator, scale=2.0)
    sr, hr = torch.rand(2, 3, 32, 32, requires_grad=True), torch.rand(2, 3, 32, 32)
    maps = [discriminator.feature_maps(images)[1:] for images in (sr, hr)]
    assert len(maps[0]) == 6 and loss(hr, hr) == 0
    by_hand = sum((a - b).abs().sum() / b.abs().sum() for a, b in zip(*maps, strict=True)) / 6
    torch.testing.assert_close(loss(sr, hr), 2 * by_hand)
    loss(sr, hr).backward()
    assert sr.grad.abs().sum() > 0
    with pytest.raises(ValueError):
        loss(sr, hr[..., :16])


# real weights

@pytest.mark.skipif(not SHARED.is_file(), reason="SRGAN_NB_SHARED/weights/vgg19_conv3_1.pth is not here")
def test_real_weights_mind_blur_more_than_noise_of_equal_mse():
    from srgan_nb.images import demo_photo, read_image

    for name in ("chelsea", "astronaut", "coffee"):
        hr = read_image(demo_photo(name))[None, :, 60:156, 120:216]
        blurred = nn.functional.avg_pool2d(nn.functional.pad(hr, (3, 3, 3, 3), mode="reflect"), 7, stride=1)
        noise = torch.randn(hr.shape, generator=torch.Generator().manual_seed(0))
        noisy = hr + noise * ((blurred - hr).square().mean() / noise.square().mean()).sqrt()
        loss = VGGContentLoss("VGG22", SHARED)
        assert loss(blurred, hr) > 1.5 * loss(noisy, hr), name
    with pytest.raises(UserError, match="features.12.weight"):
        VGGContentLoss("VGG54", SHARED)
